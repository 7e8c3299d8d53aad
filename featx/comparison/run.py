"""Running a comparison: a fit that its folder holds is loaded, all others run, and each is kept as soon as it is done.

A file of `runs/` is written whole or not at all, so a comparison that is killed loses the fits in hand. One that is
damaged, or was written by another version of featx, counts as none.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx import __version__
from featx.comparison.outcome import Row, Run
from featx.comparison.subsets import keep_shots, labelled
from featx.datasets import split_warnings
from featx.datasets.dataset import select
from featx.errors import CacheError
from featx.extraction import Options
from featx.extraction import run as extract
from featx.features import join
from featx.files.atomic import read_record, write_record
from featx.files.disk import Disk
from featx.model import Accuracy, Predictions, fit
from featx.model.rows import given_groups
from featx.model.saving import is_savable
from featx.model.search import outcomes
from featx.recipe import DEFAULT_LAYER, SET, joined_key
from featx.store import clean_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featx.comparison.plan import Trial
    from featx.datasets import Dataset
    from featx.features import Features
    from featx.model import Model
    from featx.progress import OnProgress
    from featx.recipe import Request, Views

log = logging.getLogger("featx")

#: Folders of a comparison: finished runs, and their models.
RUNS, MODELS = "runs", "models"


@dataclass(frozen=True, eq=False, kw_only=True)
class ComparisonContext:
    """What all fits of a comparison share.

    Attributes
    ----------
    dataset : Dataset
        With training and validation rows, and test rows where there are some.
    item_ids : ndarray of uint8, shape (n, 32)
        Content hashes of all images.
    tables : str
        Title of the dataset that tables of features are kept under: a validation split that was drawn here is not to
        replace that of the user's own tables.
    folder : Path or None
        Of the comparison: finished runs and models are kept there; None keeps nothing.
    cache : path or None
        Of features.
    options : Options
        How to extract.
    views : Views or None
        Of the training images, for heads on frozen features.
    n_seeds : int
        Fits that make one row.
    split : {"test", "val"}
        Whose rows report on every fit, and tell each from the best.
    on_progress : callable or None
        Called with a `Progress` in long steps.
    note : callable
        Called with a line for each row that is done.
    """

    dataset: Dataset
    item_ids: NDArray[np.uint8]
    tables: str
    folder: Path | None
    cache: str | Path | None
    options: Options = field(default_factory=Options)
    views: Views | None = None
    n_seeds: int = 1
    split: str = "test"
    on_progress: OnProgress | None = None
    note: Callable[[str], None] = lambda _: None

    @property
    def groups(self) -> NDArray[np.str_] | None:
        """Group of each image, None where none were given."""
        return self.dataset.groups

    @cached_property
    def warnings(self) -> list[str]:
        """What is odd about the data, such as test images that are among the training images as well."""
        dataset = self.dataset
        return [*dataset.notes, *split_warnings(self.item_ids, dataset.splits, dataset.ids, dataset.groups)]

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the content, label and split of every image."""
        dataset = self.dataset
        digest = hashlib.sha256(self.item_ids.tobytes())
        digest.update(np.asarray(dataset.labels, dtype=np.int64).tobytes())
        digest.update("\0".join([*dataset.splits.tolist(), *dataset.classes]).encode())
        return digest.hexdigest()

    @cached_property
    def evaluated(self) -> NDArray[np.intp]:
        """Positions of the labelled rows of `split`."""
        return labelled(self.dataset, self.split)

    @cached_property
    def evaluated_ids(self) -> NDArray[np.str_]:
        """Their ids."""
        return np.array([self.dataset.ids[i] for i in self.evaluated.tolist()], dtype=str)

    @cached_property
    def truth(self) -> NDArray[np.int64]:
        """Their classes."""
        return np.asarray(self.dataset.labels)[self.evaluated]

    def key(self, trial: Trial) -> str:
        """Return the name under which the run of a trial with recipes is kept."""
        key = joined_key([recipe.key for recipe in trial.recipes])
        asked = {name: getattr(trial, name) for name in ("kind", "backbone", "layer", "pool", "head", "shots", "seed")}
        if trial.kind == "frozen":
            asked |= {"settings": trial.settings, "views": self.views and dataclasses.asdict(self.views)}
        else:
            # What the head of a network in training was called when the first folders were written.
            head = "own" if trial.kind == "scratch" else trial.settings.get("head_layers") or "linear"
            asked |= {"options": trial.settings, "head": head}
        return key_of(data=self.fingerprint, judge=self.split, recipe=key, **asked)


@dataclass(frozen=True)
class Fitted:
    """A model, and what its fit and its predictions for the rows of the reporting split came to.

    Attributes
    ----------
    model : Model
    ids : sequence of str, length m
        Rows that were predicted, in any order.
    predicted : ndarray of int, shape (m,)
        Class of each, -1 for an image that could not be read.
    fit_seconds : float
        Of the fit alone.
    facts : dict
        Fields of `Run` that the model does not know.
    """

    model: Model
    ids: Sequence[str]
    predicted: NDArray[np.intp]
    fit_seconds: float
    facts: dict[str, Any] = field(default_factory=dict)


def run_or_load(context: ComparisonContext, trials: Sequence[Trial]) -> list[Row]:
    """Return a row for each `n_seeds` trials, running only those that were not run before.

    A fit that fails makes a row with its error; only a cache or a folder that cannot be used ends everything. Heads on
    the layers of one backbone are fitted side by side where joblib has a parallel backend.

    Parameters
    ----------
    context : ComparisonContext
    trials : sequence of Trial
        Resolved; those of one row, and rows of one extraction, follow one another.
    """
    rows: list[Row] = []
    for _, together in itertools.groupby(trials, key=lambda t: (t.kind, t.request, t.kind == "frozen" or t.shots)):
        kept = [(trial, None if trial.fault else load_run(context, trial)) for trial in together]
        fresh = _run([trial for trial, run in kept if run is None], context)
        for first in range(0, len(kept), context.n_seeds):
            rows.append(_row(context, kept[first : first + context.n_seeds], fresh))
            context.note(_told(rows[-1], is_new=any(run is None for _, run in kept[first : first + context.n_seeds])))
    return rows


def _row(
    context: ComparisonContext, kept: Sequence[tuple[Trial, Run | None]], fresh: Iterator[Fitted | Exception]
) -> Row:
    """Return the row of trials that differ in their seed, taking from `fresh` what is not kept, and keeping it."""
    runs: list[Run] = []
    failure: Exception | None = None
    for trial, run in kept:
        if run is not None:
            runs.append(run)
            continue
        try:
            outcome = next(fresh)
            if isinstance(outcome, Exception):
                raise outcome
            runs.append(_record(context, trial, outcome))
        except CacheError:
            raise
        except Exception as error:
            log.debug("%s", trial, exc_info=error)
            failure = failure or error
    return Row(kept[0][0], [] if failure else runs, failure)


def _run(trials: Sequence[Trial], context: ComparisonContext) -> Iterator[Fitted | Exception]:
    """Yield what comes of each of `trials`, which have one request, or why nothing does."""
    if not trials:
        return
    if trials[0].fault:
        yield from itertools.repeat(trials[0].fault, len(trials))
    elif trials[0].kind == "frozen":
        yield from _fit_side_by_side(context, trials)
    else:
        yield from _train_one_by_one(context, trials)


# Heads on frozen features


def _fit_side_by_side(context: ComparisonContext, trials: Sequence[Trial]) -> Iterator[Fitted | Exception]:
    try:
        tables, seconds_now = _extract(context, trials[0].request)
    except Exception as error:  # noqa: BLE001 - the rows of these trials say it
        yield from itertools.repeat(error, len(trials))
        return
    n_views = context.views.n if context.views else 1
    views = {"views": n_views, "augment": context.views.augment} if context.views else {}
    own = [join([tables[recipe.key] for recipe in trial.recipes]) for trial in trials]
    calls = [
        (
            _training_rows(context, table, trial),
            table.select(np.isin(table.ids, context.evaluated_ids)),
            *(trial.head, trial.settings, n_views, trial.seed),
        )
        for trial, table in zip(trials, own, strict=True)
    ]
    for trial, table, fitted in zip(trials, own, outcomes(fit_and_predict, calls), strict=True):
        if isinstance(fitted, Exception):
            yield fitted
            continue
        facts = {
            "layer": trial.recipes[0].layer if trial.layer == DEFAULT_LAYER else _set_name(trial),
            "pool": "+".join(dict.fromkeys(recipe.pool for recipe in trial.recipes)),
            "extract_seconds": cold_seconds(table),
            "extract_seconds_now": seconds_now,
            "settings": {**trial.settings, **views},
        }
        yield dataclasses.replace(fitted, facts=facts)


def _set_name(trial: Trial) -> str | None:
    return trial.layer and trial.layer.removeprefix(SET)


def _extract(context: ComparisonContext, request: Request) -> tuple[dict[str, Features], float]:
    """Return the tables of all layers by their keys, and the seconds that they took this time."""
    extraction = extract(
        dataclasses.replace(context.dataset, title=context.tables),
        request,
        cache=context.cache,
        options=context.options,
        views=context.views,
        on_progress=context.on_progress,
        remember=False,
    )
    return {table.key: table for table in extraction.tables}, round(extraction.seconds, 3)


def _training_rows(context: ComparisonContext, table: Features, trial: Trial) -> Features:
    """Return the rows of `table` that are left once only some images a class train."""
    if trial.shots is None:
        return table
    return table.select(np.isin(table.ids, keep_shots(context.dataset, trial.shots, seed=trial.seed).ids))


def fit_and_predict(
    table: Features, evaluated: Features, head: str, settings: dict[str, Any], n_views: int, seed: int
) -> Fitted:
    """Fit one head on `table` and predict the rows of `evaluated`; this is what travels to workers.

    Parameters
    ----------
    table, evaluated : Features
    head : str
    settings : dict
        Of the head.
    n_views : int
        Of each training image.
    seed : int
    """
    started = time.perf_counter()
    model = fit(table, head, settings=settings, views=n_views, seed=seed)
    seconds = round(time.perf_counter() - started, 3)
    return Fitted(model, evaluated.ids.tolist(), model.predict_proba(evaluated).argmax(axis=1), seconds)


def cold_seconds(table: Features) -> float | None:
    """Return what the rows of a table cost when they were computed; None where its file does not tell.

    A file tells of the run that wrote it. Where that run found a part of the rows in the cache, the cost of the
    others stands for all of them; where it found all, nothing is known.
    """
    computed, seconds = table.provenance.get("computed"), table.provenance.get("seconds")
    return round(seconds * max(1.0, len(table) / computed), 3) if computed and seconds else None


# Networks that train


def _train_one_by_one(context: ComparisonContext, trials: Sequence[Trial]) -> Iterator[Fitted | Exception]:
    """Train the seeds of one row; once one has failed, the others are not tried."""
    failure: Exception | None = None
    for trial in trials:
        try:
            yield failure or _train(context, trial)
        except Exception as error:  # noqa: BLE001 - the row of these trials says it
            failure = error
            yield error


def _train(context: ComparisonContext, trial: Trial) -> Fitted:
    """Train once, going on where a run that was killed had come to."""
    from featx.finetuning import finetune

    options = context.options
    how = {"device": options.device, "workers": options.workers, "max_errors": options.max_errors}
    checkpoint = _file(context, trial, "checkpoint")
    model = finetune(
        keep_shots(context.dataset, trial.shots, seed=trial.seed),
        backbone=trial.backbone,
        seed=trial.seed,
        cache=context.cache,
        checkpoint=checkpoint,
        resume=checkpoint is not None,
        on_progress=context.on_progress,
        **how | dict(trial.settings),
    )
    found = model.classify(select(context.dataset, context.evaluated), device=options.device, workers=options.workers)
    assert isinstance(found, Predictions)
    facts = {"layer": None, "pool": None, "extract_seconds": None, "extract_seconds_now": 0.0}
    return Fitted(model, found.ids, found.best, model.report["seconds"], facts)


# What is kept


def key_of(**facts: Any) -> str:
    """Return the name under which a run is kept: a digest of `facts` and of featx's version.

    Examples
    --------
    >>> key_of(head="mlp", seed=0) == key_of(seed=0, head="mlp"), key_of(head="mlp") == key_of(head="knn")
    (True, False)
    """
    text = json.dumps({"featx": __version__, **facts}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def load_run(context: ComparisonContext, trial: Trial) -> Run | None:
    """Return the run of `trial` that the folder holds, None if it holds none that can be trusted."""
    path = _file(context, trial, "json")
    found = None if path is None else read_record(Disk(), path)
    try:
        return None if found is None else Run(**found | {"extract_seconds_now": 0.0})
    except TypeError:
        return None


def _record(context: ComparisonContext, trial: Trial, fitted: Fitted) -> Run:
    """Return the run of a fitted model, and keep both."""
    given = dict(zip(fitted.ids, fitted.predicted.tolist(), strict=True))
    classes = np.array([given.get(name, -1) for name in context.evaluated_ids.tolist()])
    readable, model = classes >= 0, fitted.model
    if context.split == "test" and readable.any():
        groups = given_groups(context, context.evaluated[readable])
        model = model.with_report(test=Accuracy.of((classes == context.truth)[readable], groups))
    frame, report = model.inputs[0].recipe.frame, {"settings": {}, **model.report}
    fields = {
        **{name: report[name] for name in ("train", "val", "test", "n_parameters", "history")},
        **fitted.facts,
        "settings": {**report["settings"], **fitted.facts.get("settings", {}), **report["chosen"]},
        "fit_seconds": fitted.fit_seconds,
        "seed": trial.seed,
        "image_size": frame.height if frame.height == frame.width else [frame.height, frame.width],
        "predicted": classes.tolist(),
        "model": _save(context, trial, model),
    }
    run = Run(**json.loads(json.dumps(fields, default=str)))
    if (path := _file(context, trial, "json")) is not None:
        write_record(Disk(), path, dataclasses.asdict(run))
        path.with_suffix(".checkpoint").unlink(missing_ok=True)
    return run


def _save(context: ComparisonContext, trial: Trial, model: Model) -> str | None:
    """Save a model and return its path from the folder; None if nothing is kept, or the head has no data form."""
    if context.folder is None or not is_savable(model.head):
        return None
    shots = f"n{trial.shots}" if trial.shots else ""
    words = [trial.backbone, trial.layer, trial.pool, trial.head, shots, f"s{trial.seed}"]
    path = f"{MODELS}/{clean_name('-'.join(filter(None, words)))}-{context.key(trial)[:8]}.featx"
    (context.folder / MODELS).mkdir(parents=True, exist_ok=True)
    model.save(context.folder / path)
    return path


def _file(context: ComparisonContext, trial: Trial, kind: str) -> Path | None:
    return context.folder / RUNS / f"{context.key(trial)}.{kind}" if context.folder else None


def _told(row: Row, *, is_new: bool) -> str:
    """Return the line that is said when a row is done."""
    if row.shown is None:
        return f"{row.trial}: not done, {row.error}"
    parts = {"validation": row.shown.val, "test": row.shown.test}
    text = ", ".join(f"{name} {100 * part['accuracy']:.2f} %" for name, part in parts.items() if part)
    seeds = f" (median of {len(row.runs)} seeds)" if len(row.runs) > 1 else ""
    return f"{row.trial}: {text}{seeds}{'' if is_new else ', as kept'}"


def describe(context: ComparisonContext) -> dict[str, Any]:
    """Return what is said about the data of a comparison."""
    dataset = context.dataset
    sizes = {split: len(labelled(dataset, split)) for split in ("train", "val", "test")}
    return {"name": dataset.name, "classes": list(dataset.classes), **sizes, "judged": context.split}
