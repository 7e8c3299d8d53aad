"""Publishing: one table from rows that lie in segments and in other tables."""

from __future__ import annotations

import contextlib
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.errors import CacheError, CorruptFileError, MissingDataError
from featx.files.disk import Disk, remove
from featx.store.catalog import Catalog, DigestIndex, KeyRows, RowsMovedError, missing_rows
from featx.store.container import RowStream
from featx.store.hints import Claims
from featx.store.rows import block_rows
from featx.store.segments import Places, list_segments, set_aside, write_segment
from featx.store.tables import Table, TableContent, write_table

logger = logging.getLogger("featx.store")

#: Rows that are moved into segments are cut into pieces of this size.
SEGMENT_BYTES = 64 << 20
_POLL_SECONDS = 0.1
#: What publishers of one key claim.
_TURN = "publish"
_MOST_ATTEMPTS = 5


class Publisher:
    """Publishes tables of one cache folder.

    Parameters
    ----------
    disk : Disk
    root : Path
    catalog : Catalog
    claims : Claims
    limit : int
        Bytes of ``X`` above which rows stay in segments.
    """

    def __init__(self, disk: Disk, root: Path, catalog: Catalog, claims: Claims, limit: int) -> None:
        self._disk, self._root, self._catalog, self._claims, self._limit = disk, root, catalog, claims, limit

    def publish(self, path: Path, content: TableContent) -> None:
        """Make `path` the table that `content` describes, then drop the segments it made superfluous.

        Publishers of one key take turns, for as long as a claim lives: otherwise one could drop the
        segments into which another has just saved rows of a table that it replaces. Should both go
        ahead all the same, rows may have to be computed again; none is ever wrong.
        """
        if self._is_current(path, content) and not covered_segments(self._catalog, Table(path, self._disk)):
            return  # nothing to write, which a read-only cache allows too
        deadline = time.monotonic() + self._claims.lease_seconds
        while not self._claims.claim(content.key, _TURN) and time.monotonic() < deadline:
            if self._is_current(path, content):
                return  # another process published the same, and drops what is superfluous
            time.sleep(_POLL_SECONDS)
        try:
            is_new = not self._is_current(path, content)
            if is_new:
                self._write(path, content)
            self._drop_covered(Table(path, self._disk), verified=is_new)
        finally:
            self._claims.release(content.key, _TURN)

    def _is_current(self, path: Path, content: TableContent) -> bool:
        try:
            table = Table(path, self._disk)
            there = {segment.stem for segment in list_segments(self._disk, self._root, content.key)}
            return table.says(content) and there.issuperset(table.segments)
        except MissingDataError:
            return False
        except CorruptFileError as error:
            set_aside(self._disk, path, str(error))
            return False

    def _write(self, path: Path, content: TableContent) -> None:
        for _ in range(_MOST_ATTEMPTS):
            with contextlib.suppress(RowsMovedError):
                self._keep_rows(path, content)
                write_table(self._disk, path, content, self._rows(content))
                return
        raise CacheError(f"The cache changes too fast to write {path}. Run the same command again.")

    def _rows(self, content: TableContent) -> RowStream | Places:
        held, positions = self._locate(content)
        row_shape, dtype = held.row
        shape = (len(positions), *row_shape)
        if int(np.prod(shape)) * dtype.itemsize <= self._limit:
            return RowStream(dtype, shape, lambda start, stop: held.take(positions[start:stop]))
        self._move_into_segments(content, held, positions)
        held, positions = self._locate(content, segments_only=True)
        numbers = np.searchsorted(held.starts, positions, side="right") - 1
        used, numbers_used = np.unique(numbers, return_inverse=True)
        place = np.stack([numbers_used, positions - held.starts[numbers]], axis=1)
        return Places([held.holdings[number].path.stem for number in used.tolist()], place, shape, dtype)

    def _locate(self, content: TableContent, *, segments_only: bool = False) -> tuple[KeyRows, npt.NDArray[np.int64]]:
        held = self._catalog.rows(content.key)
        if segments_only:
            held = held.only([holding for holding in held.holdings if not holding.is_table])
        positions = held.positions(content.item_ids)
        n_missing = int((positions < 0).sum())
        if n_missing:
            raise missing_rows(content.key, n_missing, len(positions))
        return held, positions

    def _move_into_segments(self, content: TableContent, held: KeyRows, positions: npt.NDArray[np.int64]) -> None:
        """Copy rows that so far lie in tables only into segments of their own."""
        in_table = np.array([holding.is_table for holding in held.holdings])
        numbers = np.searchsorted(held.starts, positions, side="right") - 1
        moving = np.unique(positions[in_table[numbers]])
        row_bytes = max(1, int(np.prod(held.row[0])) * held.row[1].itemsize)
        step = max(1, SEGMENT_BYTES // row_bytes)
        for start in range(0, len(moving), step):
            some = moving[start : start + step]
            write_segment(self._disk, self._root, content.key, held.item_ids[some], held.take(some), ())

    def _keep_rows(self, path: Path, content: TableContent) -> None:
        """Before a table is replaced, rows that no other file has are moved into segments: nothing is dropped."""
        try:
            old = Table(path, self._disk)
        except (MissingDataError, CorruptFileError):
            return
        held = self._catalog.rows(old.key)
        others = held.only([holding for holding in held.holdings if holding.path != path])
        staying = DigestIndex(np.concatenate([others.item_ids, content.item_ids]))
        if not old.segments:
            rescue(self._disk, self._root, old, np.flatnonzero(staying.positions(old.item_ids) < 0))

    def _drop_covered(self, table: Table, *, verified: bool) -> None:
        """Remove the segments whose rows and errors are all in `table`, of which every byte must be sound."""
        covered = covered_segments(self._catalog, table)
        if covered and not verified:
            table.verify()
        for segment in covered:
            remove(self._disk, segment)


def covered_segments(catalog: Catalog, table: Table) -> list[Path]:
    """Return the segments that `table` makes superfluous: all they hold is in it, and no table refers to them."""
    held = catalog.rows(table.key)
    needed = {name for holding in held.holdings for name in holding.segments}
    rows, failed = DigestIndex(table.item_ids), DigestIndex(table.error_item_ids)
    loose = [h for h in held.holdings if not h.is_table and h.path.stem not in needed]
    return [
        holding.path
        for holding in loose
        if (rows.positions(holding.item_ids) >= 0).all() and (failed.positions(holding.failed) >= 0).all()
    ]


def rescue(disk: Disk, root: Path, table: Table, rows: npt.NDArray[np.int64]) -> int:
    """Copy rows of `table` into segments, but for those in damaged blocks; return how many were copied."""
    n_rescued, row_bytes = 0, max(1, int(np.prod(table.shape[1:])) * table.dtype.itemsize)
    step = max(1, SEGMENT_BYTES // row_bytes)
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        X, good = _readable(table, some)
        if good.any():
            write_segment(disk, root, table.key, table.item_ids[some][good], X[good], ())
        n_rescued += int(good.sum())
    return n_rescued


def _readable(table: Table, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    X, good = np.empty((len(rows), *table.shape[1:]), table.dtype), np.ones(len(rows), bool)
    step = block_rows(table.shape, table.dtype)
    blocks = rows // step
    for block in np.unique(blocks).tolist():
        here = np.flatnonzero(blocks == block)
        try:
            X[here] = table.rows.take(rows[here])
        except CorruptFileError as error:
            logger.warning("%s", error)
            good[here] = False
    return X, good
