"""Which file holds a row: every segment and every table of a key that holds some, as one long list."""

from __future__ import annotations

import contextlib
import logging
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.errors import CacheError, CorruptFileError, MissingDataError
from featx.files.disk import Disk, explained
from featx.store.rows import RowReader
from featx.store.segments import KEY_DIGITS, Segment, list_files, list_segments, set_aside
from featx.store.tables import Table

logger = logging.getLogger("featx.store")

#: Files that a catalog holds open at a time.
_OPEN_FILES = 16
#: Times to look at a folder whose tables others keep publishing. Rows missed even then are computed once more.
_MOST_LOOKS = 8
#: Digests that are looked up at a time: what that takes is then little beside millions of them.
_AT_ONCE = 1 << 20

Bytes = npt.NDArray[np.uint8]


class DigestIndex:
    """Find digests among `digests`.

    Parameters
    ----------
    digests : ndarray of uint8, shape (n, width)
        `width` is a multiple of 8 bytes, at least 16. Of equal ones the first is found.

    Examples
    --------
    >>> known = np.arange(32, dtype=np.uint8).reshape(2, 16)
    >>> DigestIndex(known).positions(known[[1, 1, 0]])
    array([1, 1, 0])
    """

    def __init__(self, digests: npt.NDArray[np.uint8]) -> None:
        self._digests = digests
        words = _words(digests)
        self._order = np.argsort(words, kind="stable")
        self._sorted = words[self._order]

    def positions(self, queries: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """Return the row of each query in `digests`, -1 where there is none (int64, shape (m,))."""
        found = np.full(len(queries), -1, np.int64)
        for start in range(0, len(queries), _AT_ONCE):
            self._look_up(queries[start : start + _AT_ONCE], found[start : start + _AT_ONCE])
        return found

    def _look_up(self, queries: npt.NDArray[np.uint8], found: npt.NDArray[np.int64]) -> None:
        words = _words(queries)
        slots = np.searchsorted(self._sorted, words)
        pending = np.arange(len(queries))
        while len(pending):  # one round, but for equal words
            inside = slots[pending] < len(self._sorted)
            pending = pending[inside]
            pending = pending[self._sorted[slots[pending]] == words[pending]]
            candidates = self._order[slots[pending]]
            same = (self._digests[candidates] == queries[pending]).all(axis=1)
            found[pending[same]] = candidates[same]
            pending = pending[~same]
            slots[pending] += 1


def first_of_each(digests: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return those of `rows` (ascending) that are the first of their digest.

    Some 30 bytes a row are taken beside the digests.

    Parameters
    ----------
    digests : ndarray of uint8, shape (n, width)
    rows : ndarray of int64, shape (m,)

    Examples
    --------
    >>> known = np.arange(32, dtype=np.uint8).reshape(2, 16)
    >>> first_of_each(known[[0, 1, 1, 0]], np.arange(1, 4))
    array([1, 3])
    """
    words = _words(digests)[rows]
    order = np.argsort(words)
    words = words[order]
    alike = np.flatnonzero(words[1:] == words[:-1])
    shared = np.zeros(len(rows), bool)
    shared[order[alike]] = shared[order[alike + 1]] = True
    several = rows[shared]  # few, or truly many images are there twice
    _, first = np.unique(np.ascontiguousarray(digests[several]).view(f"V{digests.shape[1]}"), return_index=True)
    kept = ~shared
    kept[np.flatnonzero(shared)[first]] = True
    return rows[kept]


def _words(digests: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Mix both ends of each digest: stamps of the rows of one file begin alike and differ in their last bytes."""
    columns = np.ascontiguousarray(digests).view(np.uint64)
    words: npt.NDArray[np.uint64] = columns[:, -1] * np.uint64(0x9E3779B97F4A7C15)
    words ^= columns[:, 0]
    return words


class RowsMovedError(Exception):
    """A file that held rows was replaced or removed: look again, another one holds them."""


@dataclass(frozen=True, eq=False)
class Holding:
    """One file that holds rows.

    Attributes
    ----------
    path : Path
    identity : tuple of int
        Inode, size and time of change of the file.
    item_ids : ndarray of uint8, shape (n, 32)
    errors : list of (bytes, str)
        Item id and reason of items that are known to give no row.
    shape : tuple of int
        Of one row.
    dtype : numpy.dtype
    segments : list of str
        Of a segmented table: where its rows are. Its own rows are not counted twice.
    """

    path: Path
    identity: tuple[int, ...]
    item_ids: Bytes
    errors: list[tuple[bytes, str]]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    segments: list[str]
    is_table: bool

    def holds_some_of(self, item_ids: Bytes) -> bool:
        """Say whether a row here, or a reason why there is none, is of one of `item_ids`."""
        return bool((DigestIndex(np.concatenate([self.item_ids, self.failed])).positions(item_ids) >= 0).any())

    @property
    def failed(self) -> Bytes:
        """Item ids of `errors`, shape (n_errors, 32)."""
        return np.frombuffer(b"".join(item for item, _ in self.errors), np.uint8).reshape(-1, 32)


class KeyRows:
    """The rows of one key at one moment.

    Parameters
    ----------
    disk : Disk
    root : Path
    key : str
    holdings : list of Holding
        Of rows that several of them hold, the first is read.
    """

    def __init__(self, disk: Disk, root: Path, key: str, holdings: list[Holding]) -> None:
        self.holdings = holdings
        self._disk, self._root, self._key = disk, root, key
        counts = [len(holding.item_ids) for holding in holdings]
        self.starts = np.cumsum([0, *counts])
        self.item_ids = np.concatenate([np.empty((0, 32), np.uint8), *(holding.item_ids for holding in holdings)])
        self._index = DigestIndex(self.item_ids)
        self.errors = {item: reason for holding in holdings for item, reason in holding.errors}
        self._open: OrderedDict[int, RowReader] = OrderedDict()

    @property
    def row(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and dtype of one row; ``(0,)`` and float32 if there is nothing at all."""
        known = self.holdings[0] if self.holdings else None
        return (known.shape, known.dtype) if known else ((0,), np.dtype("<f4"))

    def only(self, holdings: list[Holding]) -> KeyRows:
        """Return the same for some of the files."""
        return KeyRows(self._disk, self._root, self._key, holdings)

    def positions(self, item_ids: Bytes) -> npt.NDArray[np.int64]:
        """Return where each item is in the list, -1 where it is not."""
        return self._index.positions(item_ids)

    def take(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return rows by position.

        Raises
        ------
        RowsMovedError
            If a file is not the one that was listed.
        """
        shape, dtype = self.row
        out = np.empty((len(positions), *shape), dtype)
        numbers = np.searchsorted(self.starts, positions, side="right") - 1
        for number in np.unique(numbers).tolist():
            here = np.flatnonzero(numbers == number)
            rows = self._reader(number)
            local = positions[here] - self.starts[number]
            if len(here) == len(positions):
                return rows.take(local, out)
            out[here] = rows.take(local)
        return out

    def _reader(self, number: int) -> RowReader:
        if number not in self._open:
            self._open[number] = self._fetch(self.holdings[number])
            while len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        return self._open[number]

    def _fetch(self, holding: Holding) -> RowReader:
        try:
            if fingerprint(self._disk, holding.path) != holding.identity:
                raise RowsMovedError
            source = (
                Table(holding.path, self._disk)
                if holding.is_table
                else Segment(self._disk, self._root, self._key, holding.path)
            )
        except (FileNotFoundError, MissingDataError) as error:
            raise RowsMovedError from error
        if not np.array_equal(source.item_ids, holding.item_ids):
            raise RowsMovedError
        if (source.rows.shape[1:], source.rows.dtype) != self.row:
            raise CorruptFileError(f"{holding.path} is damaged: its rows have another shape than those of its key.")
        return source.rows


def fingerprint(disk: Disk, path: Path) -> tuple[int, ...]:
    """Return what changes when another file takes the name."""
    status = disk.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns


class Catalog:
    """What the cache folder holds, by key. Listings are compared with what is known; only news is read.

    Parameters
    ----------
    disk : Disk
    root : Path
        The cache folder.
    """

    def __init__(self, disk: Disk, root: Path) -> None:
        self._disk, self._root = disk, root
        self._known: dict[str, KeyRows] = {}

    def rows(self, key: str) -> KeyRows:
        """Return the rows of `key`, as the folder is now. Damaged segments are set aside on the way."""
        old = self._known.get(key)
        known = {holding.path: holding for holding in old.holdings} if old else {}
        holdings = self._one_moment(key, known)
        if not old or [(h.path, h.identity) for h in holdings] != [(h.path, h.identity) for h in old.holdings]:
            self._known[key] = KeyRows(self._disk, self._root, key, holdings)
        return self._known[key]

    def _one_moment(self, key: str, known: dict[Path, Holding]) -> list[Holding]:
        """Look until no table changed meanwhile.

        Rows move from segments into a table that is published, and from a table that is replaced into
        segments. Who lists tables, then segments, misses the former; if the tables are still the same
        afterwards, there was nothing to miss.
        """
        for _ in range(_MOST_LOOKS):
            before = self._table_states(key)
            holdings = self._holdings(key, known)
            if self._table_states(key) == before:
                break
        return holdings

    def _table_states(self, key: str) -> dict[Path, tuple[int, ...]]:
        states = {}
        for path in self.table_paths(key):
            with contextlib.suppress(FileNotFoundError), explained("read", path):
                states[path] = fingerprint(self._disk, path)
        return states

    def _holdings(self, key: str, known: dict[Path, Holding]) -> list[Holding]:
        tables = [self._unless_known(path, known, self._table, key) for path in self.table_paths(key)]
        found = [holding for holding in tables if holding]
        covered = {name for holding in found for name in holding.segments}
        for path in list_segments(self._disk, self._root, key):
            holding = self._unless_known(path, known, self._segment, key, verify=path.stem not in covered)
            if holding:
                found.append(holding)
        return found

    def _unless_known(
        self, path: Path, known: dict[Path, Holding], read: Any, key: str, **options: bool
    ) -> Holding | None:
        try:
            with explained("read", path):
                identity = fingerprint(self._disk, path)
            if path in known and known[path].identity == identity:
                return known[path]
            holding: Holding | None = read(path, key, identity, **options)
        except (FileNotFoundError, MissingDataError):
            return None  # gone since it was listed
        return holding

    def table_paths(self, key: str) -> Iterator[Path]:
        """Yield the tables that may be of `key`, by their names."""
        for path in self.all_tables():
            if path.stem.endswith(f"-{key[:KEY_DIGITS]}"):
                yield path

    def all_tables(self) -> Iterator[Path]:
        """Yield the path of every table of the cache."""
        for folder in list_files(self._disk, self._root, suffix=""):
            yield from list_files(self._disk, folder)

    def _table(self, path: Path, key: str, identity: tuple[int, ...]) -> Holding | None:
        try:
            table = Table(path, self._disk)
            if table.key != key:
                return None
            items = table.item_ids if not table.segments else np.empty((0, 32), np.uint8)
            failed = [item.tobytes() for item in table.error_item_ids]
            errors = [(item, reason) for item, (_, reason) in zip(failed, table.errors, strict=True) if any(item)]
        except CorruptFileError as error:
            logger.warning("%s Its rows are not used. See: featx cache verify", error)
            return None
        return Holding(path, identity, items, errors, table.shape[1:], table.dtype, table.segments, is_table=True)

    def _segment(self, path: Path, key: str, identity: tuple[int, ...], *, verify: bool) -> Holding | None:
        try:
            segment = Segment(self._disk, self._root, key, path)
            if verify:
                segment.verify()
        except CorruptFileError as error:
            set_aside(self._disk, path, str(error))
            return None
        shape, dtype = segment.rows.shape[1:], segment.rows.dtype
        return Holding(path, identity, segment.item_ids, segment.errors, shape, dtype, [], is_table=False)


def missing_rows(key: str, n_missing: int, n: int) -> CacheError:
    """Return the error for rows that should be there."""
    return CacheError(
        f"{n_missing:,} of {n:,} rows of {key[:KEY_DIGITS]} are not in the cache. Compute them: featx extract"
    )
