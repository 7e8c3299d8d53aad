"""`join`: several tables of the same images side by side, their rows matched by content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import DataError
from featx.features.features import Features
from featx.features.rows import JoinedRows
from featx.recipe import joined_key
from featx.store.catalog import DigestIndex

if TYPE_CHECKING:
    from numpy.typing import NDArray


def join(tables: Sequence[Features | str | Path]) -> Features:
    """Put the features of several tables side by side: other layers, poolings or backbones, for the same images.

    Rows are matched by the content of their images, whatever these are called and in whatever order they come. A row of
    the join is an image that all tables have; every other is in its ``errors`` with the table that lacks it. Names,
    labels, splits and groups are those of the first table.

    Parameters
    ----------
    tables : sequence of Features or path
        Each of vectors, made by recipes of their own. A join among them counts as its tables.

    Returns
    -------
    Features
        ``X`` has the columns of the first table, then those of the second, … `Features.tables` has each by itself. One
        table alone comes back as it is.

    Raises
    ------
    DataError
        If rows cannot stand side by side (maps, augmented views, arrays without content hashes, the same features
        twice), or no image is in all tables.

    Examples
    --------
    >>> import featx, tempfile
    >>> images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    >>> with tempfile.TemporaryDirectory() as cache:
    ...     how = {"backbone": "alexnet", "weights": "none", "image_size": 64, "cache": cache, "workers": 0}
    ...     both = featx.join(featx.extract(images, layers="relu3,relu5", **how))
    ...     both.shape, [table.shape for table in both.tables]
    ((6, 640), [(6, 384), (6, 256)])
    """
    if isinstance(tables, str | Path):
        raise DataError("featx.join takes a list of tables: featx.join([first, second])")
    opened = [table if isinstance(table, Features) else Features.open(table) for table in tables]
    parts = [part for table in opened for part in table.tables]
    if not parts:
        raise DataError("featx.join needs at least one table.")
    if len(opened) == 1:
        return opened[0]
    _check(parts)
    first, places = parts[0], [DigestIndex(part.item_ids).positions(parts[0].item_ids) for part in parts]
    places[0] = np.arange(len(first))  # two files of the same bytes are two rows
    kept = np.flatnonzero(np.all([place >= 0 for place in places], axis=0))
    if not len(kept):
        raise DataError(
            f"No image is in all of {', '.join(map(_name, parts))}. Rows are matched by content, so make the tables of "
            "the same images: featx extract DATA --layers A,B"
        )
    blocks = tuple(part.select(place[kept]) for part, place in zip(parts, places, strict=True))
    joined = replace(
        blocks[0].whole(),
        rows=JoinedRows(blocks),
        key=joined_key([part.key for part in parts]),
        recipe="",
        request="",
        probe={},
        errors=[*first.errors, *_missing(parts, places)],
        blocks=blocks,
    )
    return Features(joined)


def joined_if_tables(source: Any) -> Features | None:
    """Return the table that `source` is, or the tables that it lists side by side; None for anything else."""
    listed = list(source) if isinstance(source, list | tuple) else [source]
    are_tables = [isinstance(one, Features) or _is_file(one) for one in listed]
    return join(listed) if listed and all(are_tables) else None


def opened(source: Any) -> Features:
    """Return the table that `source` is or names, or the tables that it lists side by side.

    Raises
    ------
    DataError
        If it is anything else.
    """
    found = joined_if_tables(source)
    return Features.open(source) if found is None else found


def _is_file(source: Any) -> bool:
    return isinstance(source, str | Path) and Path(source).suffix.lower() in (".h5", ".hdf5")


def _check(parts: list[Features]) -> None:
    for part in parts:
        if len(part.shape) != 2:
            raise DataError(
                f"{_name(part)} holds maps of {part.shape[1:]}, and only vectors stand side by side. "
                "Pool them: featx extract DATA --pool avg"
            )
        if part.recipe is not None and part.recipe.view is not None:
            raise DataError(f"{_name(part)} holds an augmented view. Join the tables of the images.")
        if not part.item_ids.any(axis=1).all():
            raise DataError(
                "Rows are matched by the content of their images, and arrays of your own have none. Put them side by "
                "side yourself: Features.from_arrays(np.hstack([A, B]), y)"
            )
    keys = Counter(part.key for part in parts)
    for part in parts:
        if keys[part.key] > 1:
            raise DataError(f"{_name(part)} is there {keys[part.key]} times, by its key {part.key[:8]}. Name it once.")


def _missing(parts: list[Features], places: list[NDArray[np.int64]]) -> list[tuple[str, str]]:
    """Return the id of each image that some table lacks, with the first that lacks it."""
    first, reasons = parts[0], dict[bytes, tuple[str, str]]()
    contents = list(map(bytes, first.item_ids))
    known = set(contents)
    for part, place in zip(parts[1:], places[1:], strict=True):
        for row in np.flatnonzero(place < 0).tolist():
            reasons.setdefault(contents[row], (str(first.ids[row]), f"no row of this image in {_name(part)}"))
        for name, content in zip(part.ids.tolist(), map(bytes, part.item_ids), strict=True):
            if content not in known:
                reasons.setdefault(content, (name, f"no row of this image in {_name(first)}"))
    return list(reasons.values())


def _name(part: Features) -> str:
    return str(part.path or "a table in memory")
