"""From rows in the cache to one table of a dataset: rows joined to their ids, labels and splits."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from featx import __version__
from featx.errors import CorruptFileError, DataError, MissingDataError
from featx.extraction.probing import stored_probe
from featx.features import Features
from featx.store import TableContent
from featx.threads import n_cores

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from featx.extraction.ensure import Ensured
    from featx.extraction.lookup import Lookup
    from featx.recipe import Recipe

_LIBRARIES = ("torch", "torchvision", "timm", "pillow", "numpy", "h5py")


def publish(lookup: Lookup, recipe: Recipe, ensured: Ensured) -> Features:
    """Write the table of `recipe` and those of its views, or find that they say all this already, and open it.

    Without views asked for, a table keeps those it has.

    Raises
    ------
    DataError
        If not a single image gave a row.
    """
    everything = np.ones(len(lookup.dataset), dtype=bool)
    if lookup.views is None:
        return Features.open(_publish(lookup, recipe, ensured, everything, _known_views(lookup, recipe)))
    viewed = lookup.viewed & lookup.found(recipe)
    of_views = [lookup.views.recipe(recipe, number) for number in lookup.views.numbers]
    names = [_publish(lookup, of_view, ensured, viewed).name for of_view in of_views]
    return Features.open(_publish(lookup, recipe, ensured, everything, names))


def _known_views(lookup: Lookup, recipe: Recipe) -> Sequence[str]:
    try:
        return lookup.store.table(table_path(lookup, recipe)).views
    except (MissingDataError, CorruptFileError):
        return ()


def _publish(lookup: Lookup, recipe: Recipe, ensured: Ensured, wanted: np.ndarray, views: Sequence[str] = ()) -> Path:
    """Write one table of the rows that `wanted` (bool, (n,)) names, and return its path."""
    dataset, item_ids = lookup.dataset, lookup.identity.item_ids
    reasons = {i: reason for i, reason in reasons_for_missing(lookup, recipe, ensured).items() if wanted[i]}
    rows = np.flatnonzero(lookup.found(recipe) & wanted)
    if not len(rows):
        index = min(reasons)
        raise DataError(
            f"None of the {len(reasons):,} images gave features; the first: {dataset.ids[index]}: {reasons[index]}."
        )
    bad = sorted(reasons)
    content = TableContent(
        key=recipe.key,
        recipe=recipe.to_json(),
        request=lookup.resolved.request.to_json(),
        ids=[dataset.ids[i] for i in rows.tolist()],
        item_ids=item_ids[rows],
        y=np.asarray(dataset.labels, dtype=np.int64)[rows],
        classes=list(dataset.classes),
        splits=lookup.splits(recipe)[rows].tolist(),
        errors=[(dataset.ids[i], reasons[i]) for i in bad],
        error_item_ids=_known_errors_only(lookup, recipe, bad),
        probe=stored_probe(lookup.store, recipe.plain) or {},
        provenance=_provenance(ensured) | {"source": dict(dataset.source)},
        views=views,
    )
    return lookup.store.publish(dataset.name, stem(recipe), content)


def stem(recipe: Recipe) -> str:
    """Return the readable part of a table's file name.

    Examples
    --------
    ``vgg16-features.16-flatten`` for ``torchvision/vgg16``, and ``-view1`` behind it for a view.
    """
    view = f"-view{recipe.view.number}" if recipe.view else ""
    return f"{recipe.backbone.rpartition('/')[2]}-{recipe.layer or 'output'}-{recipe.pool}{view}"


def table_path(lookup: Lookup, recipe: Recipe) -> Path:
    """Return where the table of `recipe` is, or will be."""
    return lookup.store.table_path(lookup.dataset.name, stem(recipe), recipe.key)


def reasons_for_missing(lookup: Lookup, recipe: Recipe, ensured: Ensured) -> dict[int, str]:
    """Return why rows are missing: no bytes, no image, or a failure of this run (also for rows with the same bytes)."""
    reasons = {index: str(error) for index, error in lookup.identity.unreadable.items()} | lookup.refused(recipe)
    lacking = [i for i in np.flatnonzero(~lookup.found(recipe)) if i not in reasons]
    item_ids = lookup.identity.item_ids
    failed = {item_ids[index].tobytes(): str(error) for index, error in ensured.filled.failures.items()}
    return reasons | {int(i): failed.get(item_ids[i].tobytes(), "not computed in this run") for i in lacking}


def _known_errors_only(lookup: Lookup, recipe: Recipe, bad: list[int]) -> np.ndarray:
    """Return item ids of images that will never give a row; zeros for those that are tried again next time."""
    refused = lookup.refused(recipe)
    item_ids = np.zeros((len(bad), 32), dtype=np.uint8)
    for place, index in enumerate(bad):
        if index in refused:
            item_ids[place] = lookup.identity.item_ids[index]
    return item_ids


def _provenance(ensured: Ensured) -> dict[str, Any]:
    """Return who computed what, where and how fast. It describes the run that wrote the file."""
    return {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"featx": __version__} | {library: metadata.version(library) for library in _LIBRARIES},
        "host": platform.node(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "engine": ensured.engine,
        "batch_size": ensured.batch_size,
        "computed": ensured.filled.computed,
        "seconds": round(ensured.seconds, 3),
        "n_cores": n_cores(),
    }
