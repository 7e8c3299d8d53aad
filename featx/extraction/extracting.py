"""The whole of ``featx extract``: from a dataset and a request to tables, published under their ids and labels."""

from __future__ import annotations

import platform
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from featx import __version__
from featx.datasets import split_warnings
from featx.devices import check_device, resolve_device
from featx.errors import CorruptFileError, DataError, MissingDataError, OptionError, TooManyErrors
from featx.extraction.executors import (
    chosen_devices,
    compute_again,
    compute_missing,
    open_agreed,
    required_bytes,
    seconds_per_batch,
    stored_probe,
)
from featx.extraction.options import Options, allowed_errors
from featx.extraction.plan import Plan, make_plan
from featx.features import Features
from featx.machine import n_cores
from featx.recipe import SET
from featx.store import TableContent
from featx.store.opening import last_used, note_last_used, open_store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from featx.datasets import Dataset
    from featx.extraction.executors import Executor
    from featx.extraction.segments import Tally
    from featx.progress import OnProgress
    from featx.recipe import Recipe, Request, Views

_LIBRARIES = ("torch", "torchvision", "timm", "pillow", "numpy", "h5py")
_FORGOTTEN = (
    "The cache cannot be written, so a command without TABLE does not know of this one: name it, featx fit TABLE."
)


def run(
    dataset: Dataset,
    request: Request,
    *,
    cache: str | Path | None = None,
    options: Options | None = None,
    on_progress: OnProgress | None = None,
    views: Views | None = None,
    executor: Executor | None = None,
    remember: bool = True,
) -> Extraction:
    """Extract `dataset` as `request` says, and publish one table a layer.

    Parameters
    ----------
    dataset : Dataset
        Rows to extract.
    request : Request
        Backbone, layers, preprocessing.
    cache : str or Path, optional
        Cache folder; ``FEATX_CACHE`` or ``./cache`` if not given.
    options : Options, optional
        How to compute.
    on_progress : callable, optional
        Called with a `Progress` after each batch.
    views : Views, optional
        Augmented views of the images to train on, in tables of their own that those returned name.
    executor : Executor, optional
        Who computes: this process, or a cluster such as `featx.RayCluster`.
    remember : bool
        Whether a command that names no table means these from now on.

    Raises
    ------
    OptionError
        If views are asked for and no row is for training.
    TooManyErrors
        After everything good has been published, if more images are bad than ``options.max_errors`` allows.
    """
    started, options, store = time.perf_counter(), options or Options(), open_store(cache)
    _check_device(options, here=executor is None)
    plan = make_plan(dataset, request, store, options, views=views, on_progress=on_progress)
    compute = compute_again if options.refresh else compute_missing
    tally = compute(plan, executor, on_progress)
    tables = [publish(plan, recipe, tally) for recipe in plan.recipes]
    paths = [table.path for table in tables if table.path is not None]
    forgotten = remember and last_used(store) != paths and not note_last_used(store, paths)
    done = Extraction(
        tables=tables,
        layers=_layer_names(plan),
        n_images=len(dataset),
        computed=tally.computed,
        reused=max(0, max(_n_rows(table, views) for table in tables) - tally.computed),
        errors=max((table.errors for table in tables), key=len),
        seconds=time.perf_counter() - started,
        images_per_second=tally.computed / tally.seconds if tally.computed else None,
        waiting=tally.waiting / tally.seconds if tally.computed else None,
        engine=tally.engine,
        precision=request.precision,
        views=1 if views is None else views.n,
        notes=[*dataset.notes, *_leaks(plan), *([_FORGOTTEN] if forgotten else [])],
    )
    _check_errors(done, options)
    return done


def estimate(
    dataset: Dataset,
    request: Request,
    *,
    cache: str | Path | None = None,
    options: Options | None = None,
    on_progress: OnProgress | None = None,
    views: Views | None = None,
) -> Estimate:
    """Say what `run`, which takes the same, would do. Computes one batch at most, and writes nothing but records."""
    options = options or Options()
    _check_device(options)
    plan = make_plan(dataset, request, open_store(cache), options, views=views, on_progress=on_progress)
    plan.blind = options.refresh
    missing, seconds = list(plan.missing()), 0.0
    n_missing = sum(segment.n_passes for segment in missing)
    if n_missing:
        engine, _ = open_agreed(plan, missing[0])
        seconds = seconds_per_batch(plan.recipes, engine) * -(-n_missing // engine.batch_size)
    return Estimate(
        n_images=len(dataset),
        views=1 if views is None else views.n,
        to_compute=n_missing,
        n_bytes=required_bytes(plan, n_missing),
        seconds=seconds,
        paths=[str(table_path(plan, recipe)) for recipe in plan.recipes],
    )


@dataclass
class Extraction:
    """What one extraction came to.

    Attributes
    ----------
    tables : list of Features
        One a layer, in the order asked for.
    layers : list of str
        Their layers, by the names that were asked for.
    n_images, computed, reused : int
        Rows of the dataset; images that went through the backbone now, each augmented view for one; rows that
        were found.
    errors : list of (str, str)
        Images that could not be read: id and reason.
    seconds : float
        Wall-clock time of everything.
    images_per_second : float or None
        Of those that were computed, while they were.
    waiting : float or None
        Share of that time, 0–1, in which the network waited for images to be read and decoded.
    engine, precision : str
        ``none`` where nothing had to be computed.
    views : int
        Views of each image for training, the plain one included.
    notes : list of str
        What was decided, a sentence each.
    """

    tables: list[Features]
    layers: list[str]
    n_images: int
    computed: int
    reused: int
    errors: list[tuple[str, str]]
    seconds: float
    images_per_second: float | None
    waiting: float | None
    engine: str
    precision: str
    views: int = 1
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form of ``featx extract --json``."""
        tables = [
            {
                "path": str(table.path),
                "layer": layer,
                "pool": table.recipe.pool,
                "shape": list(table.shape),
                "key": table.key,
            }
            for table, layer in zip(self.tables, self.layers, strict=True)
            if table.recipe is not None
        ]
        return {
            "tables": tables,
            "images": self.n_images,
            "views": self.views,
            "computed": self.computed,
            "reused": self.reused,
            "errors": len(self.errors),
            "seconds": round(self.seconds, 3),
            "images_per_second": None if self.images_per_second is None else round(self.images_per_second, 2),
            "waiting": None if self.waiting is None else round(self.waiting, 3),
            "engine": self.engine,
            "precision": self.precision,
        }


@dataclass(frozen=True)
class Estimate:
    """What an extraction would do: the answer of ``--dry-run``.

    `to_compute` counts each augmented view as one. `seconds` is measured on one batch where something is to
    compute, 0 otherwise.
    """

    n_images: int
    views: int
    to_compute: int
    n_bytes: int
    seconds: float
    paths: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form of ``featx extract --dry-run --json``."""
        return asdict(self)


def publish(plan: Plan, recipe: Recipe, tally: Tally) -> Features:
    """Write the table of `recipe` and those of its views, or find that they say all this already, and open it.

    Without views asked for, a table keeps those it has.

    Raises
    ------
    DataError
        If not a single image gave a row.
    """
    everything = np.ones(len(plan.dataset), dtype=bool)
    if plan.views is None:
        return Features.open(_publish(plan, recipe, tally, everything, _known_views(plan, recipe)))
    viewed = plan.viewed & plan.found(recipe)
    of_views = [plan.views.recipe(recipe, number) for number in plan.views.numbers]
    names = [_publish(plan, of_view, tally, viewed).name for of_view in of_views]
    return Features.open(_publish(plan, recipe, tally, everything, names))


def _known_views(plan: Plan, recipe: Recipe) -> Sequence[str]:
    try:
        return plan.store.table(table_path(plan, recipe)).views
    except (MissingDataError, CorruptFileError):
        return ()


def _publish(plan: Plan, recipe: Recipe, tally: Tally, wanted: np.ndarray, views: Sequence[str] = ()) -> Path:
    """Write one table of the rows that `wanted` (bool, (n,)) names, and return its path."""
    dataset, item_ids = plan.dataset, plan.item_ids
    reasons = {i: reason for i, reason in reasons_for_missing(plan, recipe, tally).items() if wanted[i]}
    rows = np.flatnonzero(plan.found(recipe) & wanted)
    if not len(rows):
        index = min(reasons)
        raise DataError(
            f"None of the {len(reasons):,} images gave features; the first: {dataset.ids[index]}: {reasons[index]}."
        )
    bad = sorted(reasons)
    content = TableContent(
        key=recipe.key,
        recipe=recipe.to_json(),
        request=plan.request.to_json(),
        ids=[dataset.ids[i] for i in rows.tolist()],
        item_ids=item_ids[rows],
        y=np.asarray(dataset.labels, dtype=np.int64)[rows],
        classes=list(dataset.classes),
        splits=plan.splits(recipe)[rows].tolist(),
        errors=[(dataset.ids[i], reasons[i]) for i in bad],
        error_item_ids=_known_errors_only(plan, recipe, bad),
        probe=stored_probe(plan.store, recipe.plain) or {},
        provenance=_provenance(tally) | {"source": dict(dataset.source)},
        views=views,
        groups=_texts(dataset.groups, rows),
        items=_texts(dataset.items, rows),
        slots=_texts(dataset.slots, rows),
        times=None if dataset.times is None else dataset.times[rows],
        targets=dataset.targets and dataset.targets.select(rows),
    )
    return plan.store.publish(dataset.name, stem(recipe), content)


def _texts(values: np.ndarray | None, rows: np.ndarray) -> list[str]:
    return [] if values is None else values[rows].tolist()


def stem(recipe: Recipe) -> str:
    """Return the readable part of a table's file name.

    Examples
    --------
    ``vgg16-features.16-flatten`` for ``torchvision/vgg16``, and ``-view1`` behind it for a view.
    """
    view = f"-view{recipe.view.number}" if recipe.view else ""
    return f"{recipe.backbone.rpartition('/')[2]}-{recipe.layer or 'output'}-{recipe.pool}{view}"


def table_path(plan: Plan, recipe: Recipe) -> Path:
    """Return where the table of `recipe` is, or will be."""
    return plan.store.table_path(plan.dataset.name, stem(recipe), recipe.key)


def reasons_for_missing(plan: Plan, recipe: Recipe, tally: Tally) -> dict[int, str]:
    """Return why rows are missing: no bytes, no image, or a failure of this run (also for rows with the same bytes)."""
    reasons = {index: str(error) for index, error in plan.unreadable.items()} | plan.refused(recipe)
    lacking = [i for i in np.flatnonzero(~plan.found(recipe)) if i not in reasons]
    item_ids = plan.item_ids
    failed = {item_ids[index].tobytes(): str(error) for index, error in tally.failures.items()}
    return reasons | {int(i): failed.get(item_ids[i].tobytes(), "not computed in this run") for i in lacking}


def _known_errors_only(plan: Plan, recipe: Recipe, bad: list[int]) -> np.ndarray:
    """Return item ids of images that will never give a row; zeros for those that are tried again next time."""
    refused = plan.refused(recipe)
    item_ids = np.zeros((len(bad), 32), dtype=np.uint8)
    for place, index in enumerate(bad):
        if index in refused:
            item_ids[place] = plan.item_ids[index]
    return item_ids


def _provenance(tally: Tally) -> dict[str, Any]:
    """Return who computed what, where and how fast. It describes the run that wrote the file."""
    return {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"featx": __version__} | {library: metadata.version(library) for library in _LIBRARIES},
        "host": platform.node(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "engine": tally.engine,
        "device": tally.device,
        "batch_size": tally.batch_size,
        "computed": tally.computed,
        "seconds": round(tally.seconds, 3),
        "n_cores": n_cores(),
    }


def _check_device(options: Options, *, here: bool = True) -> None:
    """Refuse a device that is not there, also where everything is in the cache; a cluster's need not be `here`."""
    check_device(options.device)
    if options.devices and not here:
        raise OptionError("--devices is for the GPUs of this machine; a cluster uses those of its nodes. Leave it out.")
    if here and (options.device != "auto" or options.devices):  # torch is for those who name a device
        for device in chosen_devices(options):
            resolve_device(device, frozen=True)


def _n_rows(table: Features, views: Views | None) -> int:
    return len(table) + sum(len(table.view(number)) for number in (views.numbers if views else ()))


def _layer_names(plan: Plan) -> list[str]:
    """Return layers by the names that were asked for; two names of one layer have one table."""
    asked = plan.request.layers
    named = len(asked) == len(plan.recipes) and not any(layer.startswith(SET) for layer in asked)
    return list(asked) if named else [recipe.layer for recipe in plan.recipes]


def _leaks(plan: Plan) -> list[str]:
    """Warn of identical images, and of groups, in different splits: what saw one in training knows the other."""
    return split_warnings(plan.item_ids, plan.splits(plan.recipes[0]), plan.dataset.ids, plan.dataset.groups)


def _check_errors(done: Extraction, options: Options) -> None:
    if len(done.errors) > allowed_errors(options.max_errors, done.n_images):
        image, reason = done.errors[0]
        raise TooManyErrors(
            f"{len(done.errors):,} of {done.n_images:,} images cannot be read, more than --max-errors "
            f"{options.max_errors}; the first: {image}: {reason}. All others are kept in {done.tables[0].path}; "
            "its `errors` lists the bad ones."
        )
