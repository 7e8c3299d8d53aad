"""What all rows of a comparison have in common: images, splits, seeds, and the rows on which they are judged."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.comparison.ledger import Ledger, key_of
from featx.comparison.runs import Row, Run, Trial
from featx.comparison.subsets import labelled
from featx.datasets import shared_across_splits
from featx.errors import CacheError, OptionError
from featx.extraction import Options, open_store
from featx.extraction.identify import Identity, identify
from featx.heads.state import is_exportable
from featx.model import Accuracy
from featx.store import clean_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featx.datasets import Dataset
    from featx.model import Model
    from featx.progress import OnProgress
    from featx.recipe import Views

log = logging.getLogger("featx")

#: Folders of a comparison: finished runs, and their models.
RUNS, MODELS = "runs", "models"


@dataclass(frozen=True, eq=False, kw_only=True)
class Bench:
    """Where contestants meet.

    Attributes
    ----------
    dataset : Dataset
        With training and validation rows, and test rows where there are some.
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
    seeds : sequence of int
        Each trial is run once with each.
    judge : {"test", "val"}
        Split of the rows on which contestants are told apart.
    on_progress : callable or None
        Called with a `Progress` in long steps.
    note : callable
        Called with a line for each row that is done.
    """

    dataset: Dataset
    tables: str
    folder: Path | None
    cache: str | Path | None
    options: Options = field(default_factory=Options)
    views: Views | None = None
    seeds: Sequence[int] = (0,)
    judge: str = "test"
    on_progress: OnProgress | None = None
    note: Callable[[str], None] = lambda _: None

    @cached_property
    def identity(self) -> Identity:
        """Content hashes of all images."""
        return identify(self.dataset, open_store(self.cache), rehash=self.options.rehash)

    @cached_property
    def warnings(self) -> list[str]:
        """What is odd about the data, such as test images that are among the training images as well."""
        dataset = self.dataset
        return [*dataset.notes, *shared_across_splits(self.identity.item_ids, dataset.splits, dataset.ids)]

    @cached_property
    def largest_class(self) -> int:
        """Training images of the class that has the most."""
        return int(np.bincount(self.dataset.labels[labelled(self.dataset, "train")], minlength=1).max())

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the content, label and split of every image."""
        dataset = self.dataset
        digest = hashlib.sha256(self.identity.item_ids.tobytes())
        digest.update(np.asarray(dataset.labels, dtype=np.int64).tobytes())
        digest.update("\0".join([*dataset.splits.tolist(), *dataset.classes]).encode())
        return digest.hexdigest()

    @cached_property
    def ledger(self) -> Ledger:
        """Runs that are done."""
        return Ledger(self.folder / RUNS if self.folder else None)

    @cached_property
    def judged(self) -> NDArray[np.intp]:
        """Positions of the rows on which contestants are told apart."""
        return labelled(self.dataset, self.judge)

    @cached_property
    def judged_ids(self) -> NDArray[np.str_]:
        """Their ids."""
        return np.array([self.dataset.ids[i] for i in self.judged.tolist()], dtype=str)

    @cached_property
    def truth(self) -> NDArray[np.int64]:
        """Their classes."""
        return np.asarray(self.dataset.labels)[self.judged]

    def key(self, trial: Trial, facts: dict[str, Any], seed: int) -> str:
        """Return the name under which a run of `trial` is kept."""
        return key_of(data=self.fingerprint, judge=self.judge, seed=seed, **dataclasses.asdict(trial), **facts)

    def compete(self, trial: Trial, facts: Callable[[], dict[str, Any]], run: Callable[[int, str], Run]) -> Row:
        """Return the row of a trial, running only those seeds that were not run before.

        A run that fails makes a row with its error; only a cache or a folder that cannot be used ends everything.

        Parameters
        ----------
        trial : Trial
            What to run.
        facts : callable
            Returns what, beside the trial and the images, decides how it comes out.
        run : callable
            From a seed and the run's key to a finished run.
        """
        runs, n_new = [], 0
        try:
            for seed in self.seeds:
                key = self.key(trial, facts(), seed)
                done = self.ledger.get(key)
                if done is None:
                    done = run(seed, key)
                    self.ledger.put(key, done)
                    n_new += 1
                else:
                    done = dataclasses.replace(done, extract_seconds_now=0.0)
                runs.append(done)
        except CacheError:
            raise
        except Exception as error:
            log.debug("%s", trial, exc_info=error)
            self.note(f"{trial}: not done, {error}")
            return Row(trial, error=error)
        row = Row(trial, runs)
        self.note(f"{trial}: {_accuracies(row)}{'' if n_new else ', as kept'}")
        return row

    def record(
        self, model: Model, trial: Trial, seed: int, key: str, ids: Sequence[str], predicted: NDArray[Any], **facts: Any
    ) -> Run:
        """Return the run of a fitted model, which is saved with its accuracy on the judged rows.

        Parameters
        ----------
        model : Model
        trial, seed, key
            What was run, and the name under which it is kept.
        ids : sequence of str, length m
            Judged rows in any order; those that are not named count as not readable.
        predicted : ndarray of int, shape (m,)
            Class of each, -1 for an image that could not be read.
        **facts
            The fields of `Run` that a model does not know.
        """
        given = dict(zip(ids, predicted.tolist(), strict=True))
        classes = np.array([given.get(name, -1) for name in self.judged_ids.tolist()])
        readable = classes >= 0
        if self.judge == "test" and readable.any():
            n_correct = int((classes == self.truth)[readable].sum())
            model.report["test"] = Accuracy(int(readable.sum()), n_correct).to_dict()
        assert model.recipe is not None
        frame = model.recipe.frame
        report = {"settings": {}, **model.report}
        facts["settings"] = {**report["settings"], **facts.get("settings", {}), **report["chosen"]}
        fields = {
            **{name: report[name] for name in ("train", "val", "test", "n_parameters", "history")},
            **facts,
            "seed": seed,
            "image_size": frame.height if frame.height == frame.width else [frame.height, frame.width],
            "predicted": classes.tolist(),
            "model": self._save(model, trial, seed, key),
        }
        return Run(**json.loads(json.dumps(fields, default=str)))

    def _save(self, model: Model, trial: Trial, seed: int, key: str) -> str | None:
        """Save a model and return its path from the folder; None if nothing is kept, or the head has no data form."""
        if self.folder is None or not is_exportable(model.head):
            return None
        shots = f"n{trial.shots}" if trial.shots else ""
        words = [trial.backbone, trial.layer, trial.pool, trial.head, shots, f"s{seed}"]
        path = f"{MODELS}/{clean_name('-'.join(filter(None, words)))}-{key[:8]}.featx"
        (self.folder / MODELS).mkdir(parents=True, exist_ok=True)
        model.save(self.folder / path)
        return path


def check_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """Return `seeds`, at least one and each once."""
    if not seeds or len(set(seeds)) != len(seeds):
        raise OptionError(f"--seeds takes different whole numbers such as 0,1,2; got {','.join(map(str, seeds))!r}.")
    return tuple(seeds)


def check_shots(shots: Sequence[int | None]) -> Sequence[int | None]:
    """Return `shots`, at least one number of images a class."""
    if not shots or any(n is not None and n < 1 for n in shots):
        raise OptionError(f"--shots takes images a class such as 50,500; got {','.join(map(str, shots))!r}.")
    return shots


def _accuracies(row: Row) -> str:
    run = row.shown
    assert run is not None
    parts = {"validation": run.val, "test": run.test}
    text = ", ".join(f"{name} {100 * part['accuracy']:.2f} %" for name, part in parts.items() if part)
    return text if len(row.runs) == 1 else f"{text} (median of {len(row.runs)} seeds)"
