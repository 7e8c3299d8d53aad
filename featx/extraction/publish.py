"""From rows in the cache to one table of a dataset: rows joined to their ids, labels and splits."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from featx import __version__
from featx.errors import CorruptFileError, DataError, MissingDataError
from featx.extraction.executors import stored_probe
from featx.features import Features
from featx.store import TableContent
from featx.threads import n_cores

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from featx.extraction.plan import Plan
    from featx.extraction.segments import Tally
    from featx.recipe import Recipe

_LIBRARIES = ("torch", "torchvision", "timm", "pillow", "numpy", "h5py")


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
    )
    return plan.store.publish(dataset.name, stem(recipe), content)


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
