"""Rows that are in no table of their own: arrays in memory, rows picked from tables; and which rows are meant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from featx.errors import CorruptFileError, DataError, RowIndexError
from featx.store import Table
from featx.store.catalog import DigestIndex
from featx.store.rows import Indices, RowReader, gather
from featx.targets import Targets

#: Rows that stay together when blocks are shuffled, in bytes.
_SHUFFLED_BYTES = 1 << 20
#: At least so many such pieces are mixed in one block.
_FEWEST_PIECES = 16


class ArrayRows:
    """An array behind the interface of `featx.store.rows.RowReader`."""

    def __init__(self, X: npt.NDArray[Any]) -> None:
        self.X, self.shape, self.dtype = X, X.shape, X.dtype

    def __len__(self) -> int:
        return len(self.X)

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return a copy of the rows ``start … stop``."""
        return self.X[start:stop].copy()

    def take(self, rows: Indices, out: npt.NDArray[Any] | None = None, *, mapped: bool = False) -> npt.NDArray[Any]:
        """Return a copy of any rows."""
        del mapped  # it is in memory as it is
        return np.take(self.X, rows, axis=0, out=out)

    def look(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the rows ``start … stop`` of the array itself."""
        return self.X[start:stop]


class PickedRows:
    """Rows picked from several tables, which may be pickled as these may: as their paths.

    Parameters
    ----------
    picks : list of Picks
        In the order in which they are to stand. All have one shape and dtype.
    """

    def __init__(self, picks: list[Picks]) -> None:
        self._tables = [part.source for part in picks]
        self._place = np.concatenate([part.places for part in picks])
        self._number = np.repeat(np.arange(len(picks)), [len(part.places) for part in picks])
        self.shape, self.dtype = (len(self._place), *self._tables[0].shape[1:]), self._tables[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the rows ``start … stop``."""
        return self.take(np.arange(start, stop))

    def look(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the rows ``start … stop``: where they lie, if they are neighbours there; else a copy."""
        places = self._place[start:stop]
        if len(self._tables) == 1 and len(places) and (np.diff(places) == 1).all():
            return self._tables[0].rows.look(int(places[0]), int(places[-1]) + 1)
        return self.read(start, stop)

    def take(self, rows: Indices, out: npt.NDArray[Any] | None = None, *, mapped: bool = False) -> npt.NDArray[Any]:
        """Return any rows in any order."""
        if out is None:
            out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        return gather(out, self._number[rows], self._place[rows], partial(self._take_of, mapped=mapped))

    def _take_of(self, number: int, rows: Indices, out: npt.NDArray[Any] | None, *, mapped: bool) -> npt.NDArray[Any]:
        return self._tables[number].rows.take(rows, out, mapped=mapped)


class _Vectors(Protocol):
    """A table whose rows are vectors: `featx.Features`."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, rows: Indices, /) -> npt.NDArray[Any]: ...


class JoinedRows:
    """The vectors of several tables side by side, read from each when they are asked for.

    Parameters
    ----------
    blocks : sequence of Features
        Of one length, each of shape (n, d).
    """

    def __init__(self, blocks: Sequence[_Vectors]) -> None:
        self.blocks = blocks
        ends = np.cumsum([block.shape[1] for block in blocks]).tolist()
        self._columns = [slice(end - block.shape[1], end) for block, end in zip(blocks, ends, strict=True)]
        self.shape: tuple[int, ...] = (blocks[0].shape[0], ends[-1])
        self.dtype = np.result_type(*(block.dtype for block in blocks))

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the rows ``start … stop``."""
        return self.take(np.arange(start, stop))

    def look(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the rows ``start … stop``: a copy, since blocks lie apart."""
        return self.read(start, stop)

    def take(self, rows: Indices, out: npt.NDArray[Any] | None = None, *, mapped: bool = False) -> npt.NDArray[Any]:
        """Return any rows in any order."""
        del mapped  # each block knows best
        if out is None:
            out = np.empty((len(rows), self.shape[1]), self.dtype)
        for block, columns in zip(self.blocks, self._columns, strict=True):
            out[:, columns] = block[rows]
        return out


@dataclass(frozen=True, kw_only=True)
class ArrayTable:
    """What `featx.store.Table` offers, for arrays in memory, and for the `blocks` of a join side by side."""

    rows: RowReader
    y: npt.NDArray[np.int64]
    ids: npt.NDArray[np.str_]
    classes: tuple[str, ...]
    splits: npt.NDArray[np.str_]
    item_ids: npt.NDArray[np.uint8]
    path: Path | None = None
    key: str = ""
    recipe: str = ""
    request: str = ""
    errors: list[tuple[str, str]] = field(default_factory=list)
    error_item_ids: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, 32), np.uint8))
    provenance: dict[str, Any] = field(default_factory=dict)
    probe: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    views: list[str] = field(default_factory=list)
    groups: npt.NDArray[np.str_]
    targets: Targets | None = None
    items: npt.NDArray[np.str_]
    slots: npt.NDArray[np.str_]
    times: npt.NDArray[np.float64] | None = None
    blocks: tuple[Any, ...] = ()  # of Features

    @property
    def shape(self) -> tuple[int, ...]:
        """Of ``X``."""
        return self.rows.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of ``X``."""
        return self.rows.dtype


@dataclass(frozen=True)
class Picks:
    """Rows of one table, and the rows of another of which they are views.

    Attributes
    ----------
    source : Table or ArrayTable
    places : ndarray of int64, shape (m,)
        Rows of `source`.
    origin : ndarray of int64, shape (m,)
        Rows of the other.
    """

    source: Table | ArrayTable
    places: Indices
    origin: Indices


def find_items(view: Table, item_ids: npt.NDArray[np.uint8], like: RowReader) -> Picks:
    """Return the rows of `view` that are of `item_ids`, in the order of these.

    Both tables are joined by content: either may have been published anew, with other labels or more images.

    Parameters
    ----------
    view : Table
    item_ids : ndarray of uint8, shape (n, 32)
    like : RowReader
        The rows of which they are views.

    Raises
    ------
    CorruptFileError
        If they are of another shape or type than `like`.
    """
    if (view.shape[1:], view.dtype) != (like.shape[1:], like.dtype):
        raise CorruptFileError(f"{view.path} is damaged: its rows have another shape than those it holds views of.")
    places = DigestIndex(view.item_ids).positions(item_ids)
    origin = np.flatnonzero(places >= 0)
    return Picks(view, places[origin], origin)


def row_numbers(which: slice | Sequence[int] | Sequence[bool] | npt.NDArray[Any], length: int) -> Indices:
    """Return row numbers of a table of `length`, counted from the start, for anything that numpy takes as one index.

    Raises
    ------
    DataError
        If it is no such thing.
    """
    if isinstance(which, slice):
        return np.arange(length)[which]
    chosen = np.asarray(which)
    if chosen.shape == (0,):
        return np.empty(0, np.int64)
    if chosen.ndim != 1 or chosen.dtype.kind not in "iub":
        raise DataError(f"Rows are chosen by integers or a mask, got {chosen.dtype} of shape {chosen.shape}.")
    if chosen.dtype == bool and len(chosen) != length:
        raise DataError(f"A mask needs {length:,} values, got {len(chosen):,}.")
    if chosen.dtype == bool:
        return np.flatnonzero(chosen)
    rows = chosen.astype(np.int64)  # a copy: it must not follow the caller's array
    if rows.view(np.uint64).max() >= length:  # so seen, negative ones are large
        if not -length <= chosen.min() <= chosen.max() < length:
            raise RowIndexError(f"Rows are 0 to {length - 1:,}, got {chosen.min():,} to {chosen.max():,}.")
        rows[rows < 0] += length
    return rows


def in_order(length: int, n_rows: int) -> Iterator[Indices]:
    """Yield the numbers of `length` rows in blocks of `n_rows`."""
    for start in range(0, length, n_rows):
        yield np.arange(start, min(start + n_rows, length))


def shuffled(length: int, n_rows: int, row_bytes: int, seed: int | Sequence[int]) -> Iterator[Indices]:
    """Yield the numbers of `length` rows in blocks of `n_rows`, as `Features.blocks` mixes them.

    Parameters
    ----------
    length, n_rows : int
        Rows in all, and in a block.
    row_bytes : int
        Size of a row, which decides how many neighbours stay together.
    seed : int or sequence of int
    """
    random = np.random.default_rng(seed)
    piece = max(1, min(n_rows // _FEWEST_PIECES, _SHUFFLED_BYTES // row_bytes))
    starts = random.permutation(np.arange(0, length, piece))
    per_block = max(1, n_rows // piece)
    for low in range(0, len(starts), per_block):
        pieces = [np.arange(start, min(start + piece, length)) for start in starts[low : low + per_block]]
        yield random.permutation(np.concatenate(pieces))
