"""`search`: the rows most like a photo, a row, or several, and unlike others."""

from __future__ import annotations

import difflib
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.curation.listing import Listing
from featx.datasets import item_id, open_dataset
from featx.errors import DataError, ImageError, OptionError
from featx.features import Features
from featx.features.nearest import Searching, direction, largest
from featx.model.inputs import ImageRows, inputs_of
from featx.settings import keywords
from featx.store.catalog import DigestIndex

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: What makes rows of photos like those of a table, its networks open for as long as the table is.
_row_makers: weakref.WeakKeyDictionary[Features, ImageRows] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class _Search(Searching):
    cache: str | Path | None = None


@keywords(_Search)
def search(table: Features | str | Path, like: Any, how: _Search) -> Listing:
    """Return the rows of a table that are most like something, by the cosine of their features; exact.

    Parameters
    ----------
    table : Features or path
        Any table.
    like : str, int, path, PIL image, array, or a sequence of these
        The id of a row, its position, a photo, or features of one's own (1-d, as long as a row). Of several, and of
        those in `unlike`, the mean direction counts (Rocchio's query).
    {options}
    cache : path-like, optional
        A cache folder, whose rows of these photos are read instead of computed. Nothing is written.

    Returns
    -------
    Listing
        With the column ``similarity``. Rows that were named are left out.

    Raises
    ------
    DataError
        If a name is no row and no file, a photo cannot be read, or the table does not say how rows are made.
    OptionError
        If nothing is to be searched for.

    Examples
    --------
    >>> table = Features.from_arrays([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]], ids=["sea", "wood", "shore"])
    >>> search(table, "sea", k=1).ids
    ('shore',)
    """
    rows = table if isinstance(table, Features) else Features.open(table)
    if how.k < 1:
        raise OptionError(f"-k takes a number of rows, at least 1; got {how.k}.")
    liked, unliked = _several(like), _several(how.unlike)
    if not liked:
        raise OptionError("Nothing is searched for. Name an image: featx search TABLE IMAGE")
    vectors, named = row_vectors(rows, [*liked, *unliked], how.cache)
    cosines = rows.cosines.to(direction(vectors[: len(liked)], vectors[len(liked) :]))
    cosines[named] = -np.inf
    found = largest(cosines, min(how.k, len(rows) - len(named)))
    return Listing(rows, found, {"similarity": cosines[found].tolist()})


def _several(what: Any) -> list[Any]:
    """Return a list of what is searched for, of whatever is given for one or for several."""
    if isinstance(what, np.ndarray) and (what.ndim, what.dtype.kind) in ((1, "i"), (2, "f")):
        return list(what)  # positions, or features
    return list(what) if isinstance(what, list | tuple) else [what]


def row_vectors(table: Features, asked: Sequence[Any], cache: Any) -> tuple[list[NDArray[Any]], list[int]]:
    """Return features of each that is asked for, as `search` takes them, and which rows were named."""
    found: dict[int, NDArray[Any]] = {}
    named, photos = [], {}
    for i, what in enumerate(asked):
        at = np.flatnonzero(table.ids == what).tolist() if isinstance(what, str) else []
        if at or isinstance(what, int | np.integer):
            row = at[0] if at else int(what)
            found[i] = table[row]
            named.append(row % len(table))
        elif isinstance(what, np.ndarray) and (what.ndim == 1 or what.shape == table.shape[1:]):
            found[i] = what
        else:
            photos[i] = what
    for what in photos.values():
        if isinstance(what, str | Path) and not Path(what).exists():
            near = difflib.get_close_matches(str(what), table.ids.tolist(), n=1)
            hint = f"Did you mean {near[0]}?" if near else f"An id looks like {table.ids[0]}." if len(table) else ""
            raise DataError(f"{what} is neither a row of the table nor a file. {hint}".rstrip())
    if photos:
        found |= dict(zip(photos, _rows_of(table, list(photos.values()), cache), strict=True))
    return [found[i] for i in range(len(asked))], sorted(set(named))


def _rows_of(table: Features, photos: list[Any], cache: Any) -> list[NDArray[Any]]:
    """Return a row for each photo: the table's own of the same content, else one that is made now."""
    images = open_dataset(photos)
    contents = []
    for i, data in images.iterate(range(len(images))):
        if isinstance(data, ImageError):
            raise DataError(f"{images.ids[i]} cannot be read: {data}")
        contents.append(np.frombuffer(item_id(data), np.uint8))
    at = DigestIndex(table.item_ids).positions(np.stack(contents))
    rows: list[Any] = [None if row < 0 else table[row] for row in at.tolist()]
    new = np.flatnonzero(at < 0).tolist()
    if new:
        (made,), reasons = _row_maker(table).rows(open_dataset([photos[i] for i in new]), cache=cache)
        if reasons:
            first = min(reasons)
            raise DataError(f"{images.ids[new[first]]} cannot be read: {reasons[first]}")
        for i, row in zip(new, made, strict=True):
            rows[i] = row
    return rows


def _row_maker(table: Features) -> ImageRows:
    if table not in _row_makers:
        inputs = inputs_of(table)
        if not inputs or any(made.request is None for made in inputs):
            raise DataError(
                "The table does not say how its rows were made, so none can be made of a photo. Search by the id of a "
                "row, or in Python by features of your own."
            )
        _row_makers[table] = ImageRows(inputs)
    return _row_makers[table]
