"""Rows of ``X`` and how they are read: found by arithmetic, and verified by the block.

A block is as many whole rows as fit in 64 KiB (at least one). Its digest is checked the first time
that one of its rows is asked for, once in the life of a reader.

Indices are read by ``pread`` into the memory that the caller gets, and nothing else is held: that is
what streaming under a memory limit needs. Who has no such limit may have rows from all over the file
gathered from a memory map, which is three times as fast as a system call a row; pages mapped that
way are let go when they come to 512 MiB.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_128_digest

from featx.errors import CorruptFileError
from featx.store.hdf5 import Extent

BLOCK_BYTES = 1 << 16
DIGEST_BYTES = 16
#: Runs of rows that are shorter on the average than this are gathered from a map.
_LONG_RUN_BYTES = 1 << 17
_MOST_MAPPED_BYTES = 1 << 29
#: Blocks that are read by one call of the system and then verified.
_BLOCKS_AT_ONCE = 8
#: Buffers that one call of ``preadv`` takes on every system.
_MOST_BUFFERS = 1024

Indices = npt.NDArray[np.int64]


def digest(data: Any) -> bytes:
    """Return the XXH3 digest (16 bytes) of a buffer of bytes.

    It guards against faults, not enemies: who can write a file can write its digests, of whatever
    kind. At 9 to 28 GB/s it costs a tenth of reading from the page cache; SHA-256 without special
    instructions costs four times as much as reading.
    """
    return xxh3_128_digest(data)


def block_rows(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Return the rows in a block, for ``X`` of that shape and dtype.

    Examples
    --------
    >>> block_rows((50_000, 1280), np.dtype("float32"))
    12
    """
    return max(1, BLOCK_BYTES // max(1, math.prod(shape[1:]) * dtype.itemsize))


def n_blocks(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Return how many blocks ``X`` of that shape and dtype has."""
    return -(-shape[0] // block_rows(shape, dtype))


class RowReader(Protocol):
    """Rows of ``X``, wherever they lie: in one file (`RowBlocks`), in segments, or in memory."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the rows ``start … stop``."""

    def take(self, rows: Indices, out: npt.NDArray[Any] | None = None, *, mapped: bool = False) -> npt.NDArray[Any]:
        """Return any rows in any order, gathered from a memory map if that is allowed and quicker."""

    def look(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the rows ``start … stop`` to be read and not written: where they lie, if that can be, else a copy."""


class _File(Protocol):
    """What rows are read from: `featx.store.container.Sealed`."""

    path: Path

    @property
    def mapped(self) -> mmap.mmap | None: ...

    def read_parts(self, parts: Iterable[tuple[Sequence[memoryview], int]]) -> None: ...


class RowBlocks:
    """Rows of one file, verified by the block.

    Parameters
    ----------
    file : Sealed
    extent : Extent
        Of ``X``.
    digests : ndarray of uint8, shape (n_blocks, 16)

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    """

    def __init__(self, file: _File, extent: Extent, digests: npt.NDArray[np.uint8]) -> None:
        self.shape, self.dtype = extent.shape, extent.dtype
        self._file, self._extent, self._digests = file, extent, digests
        self._block_rows = block_rows(extent.shape, extent.dtype)
        self._row_bytes = math.prod(extent.shape[1:]) * extent.dtype.itemsize
        self._verified = np.zeros(len(digests), bool)
        self._mapped_bytes = 0

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, start: int, stop: int, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """Return the rows ``start … stop`` (shape ``(stop - start, …)``), and nothing but these in memory."""
        if out is None:
            out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        data, blocks = out.reshape(-1).view(np.uint8).data, self._blocks_of(start, stop)
        if self._verified[blocks].all():
            self._file.read_parts([([data], self._offset(start))])
            return out
        step = _BLOCKS_AT_ONCE * self._block_rows
        for low in range(start - start % self._block_rows, stop, step):  # verified while warm in the processor's cache
            first, last = max(low, start), min(low + step, stop)
            here = data[(first - start) * self._row_bytes : (last - start) * self._row_bytes]
            self._file.read_parts([([here], self._offset(first))])
            for block in self._blocks_of(first, last).tolist():
                top, bottom = self._rows_of(block)
                if first <= top and bottom <= last:
                    self._compare(block, here[(top - first) * self._row_bytes : (bottom - first) * self._row_bytes])
                else:
                    self._touch(np.array([block]))
        return out

    def take(self, rows: Indices, out: npt.NDArray[Any] | None = None, *, mapped: bool = False) -> npt.NDArray[Any]:
        """Return any rows in any order.

        Parameters
        ----------
        rows : ndarray of int64, shape (m,)
            Each in ``0 … n``; may repeat.
        out : ndarray, shape (m, …), optional
            C-contiguous, of the dtype of the rows.
        mapped : bool
            Whether rows from all over the file may be gathered from a memory map.
        """
        if out is None:
            out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        if not len(rows):
            return out
        if rows.view(np.uint64).max() >= len(self):  # so seen, negative ones are large
            raise IndexError(f"rows {rows.min()} … {rows.max()} of {len(self)}")
        n_breaks = np.count_nonzero(rows[1:] - rows[:-1] != 1)
        if not n_breaks:
            return self.read(int(rows[0]), int(rows[-1]) + 1, out)
        if not self._verified.all():
            self._touch(rows // self._block_rows)
        if mapped and out.nbytes < n_breaks * _LONG_RUN_BYTES and self._gather(rows, out):
            return out
        self._file.read_parts(self._parts(rows, out))
        return out

    def look(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the rows ``start … stop`` of the mapped file, verified; a copy where it cannot be mapped."""
        X = self._mapped()
        if X is None:
            return self.read(start, stop)
        self._touch(self._blocks_of(start, stop))
        return X[start:stop]

    def verify(self, on_bytes: Callable[[int], None] | None = None) -> None:
        """Check every block against its digest, seen or not; `on_bytes` gets the bytes of each."""
        self._verified[:] = False
        for block in range(len(self._digests)):
            self._touch(np.array([block]))
            if on_bytes:
                start, stop = self._rows_of(block)
                on_bytes((stop - start) * self._row_bytes)

    def _gather(self, rows: Indices, out: npt.NDArray[Any]) -> bool:
        """Copy rows from the map; False if there is none, or numpy would have to copy all of it first."""
        X, mapped = self._mapped(), self._file.mapped
        if X is None or mapped is None:
            return False
        X.take(rows, axis=0, out=out, mode="clip")  # "raise" would copy once more
        self._mapped_bytes += out.nbytes
        if self._mapped_bytes > _MOST_MAPPED_BYTES:
            mapped.madvise(mmap.MADV_DONTNEED)
            self._mapped_bytes = 0
        return True

    def _mapped(self) -> npt.NDArray[Any] | None:
        """Return all rows where they lie in the mapped file, not verified; None where it cannot be mapped."""
        mapped = self._file.mapped
        if mapped is None or self._extent.offset % self.dtype.itemsize:
            return None
        return np.frombuffer(mapped, self.dtype, math.prod(self.shape), self._extent.offset).reshape(self.shape)

    def _parts(self, rows: Indices, out: npt.NDArray[Any]) -> Iterator[tuple[list[memoryview], int]]:
        """Yield, for each run of neighbours in the file, where its rows go and where they are."""
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        data, size = out.reshape(-1).view(np.uint8).data, self._row_bytes
        breaks = np.flatnonzero(np.diff(ascending) != 1) + 1
        for low, high in pairwise([0, *breaks.tolist(), len(ascending)]):
            for start in range(low, high, _MOST_BUFFERS):
                targets = order[start : min(start + _MOST_BUFFERS, high)].tolist()
                buffers = [data[target * size : (target + 1) * size] for target in targets]
                yield buffers, self._offset(int(ascending[start]))

    def _touch(self, blocks: npt.NDArray[np.int64]) -> None:
        """Verify blocks that were not seen before."""
        seen = self._verified[blocks]
        if seen.all():
            return
        data = memoryview(bytearray(self._block_rows * self._row_bytes))
        for block in np.unique(blocks[~seen]).tolist():
            start, stop = self._rows_of(block)
            here = data[: (stop - start) * self._row_bytes]
            self._file.read_parts([([here], self._offset(start))])
            self._compare(block, here)

    def _compare(self, block: int, data: memoryview) -> None:
        if digest(data) != self._digests[block].tobytes():
            start, stop = self._rows_of(block)
            raise CorruptFileError(
                f"{self._file.path} is damaged in its rows {start:,} to {stop - 1:,}. "
                "Save the others and compute these again: featx cache verify --repair, then the same command as before"
            )
        self._verified[block] = True

    def _offset(self, row: int) -> int:
        return self._extent.offset + row * self._row_bytes

    def _blocks_of(self, start: int, stop: int) -> Indices:
        return np.arange(start // self._block_rows, -(-stop // self._block_rows))

    def _rows_of(self, block: int) -> tuple[int, int]:
        start = block * self._block_rows
        return start, min(start + self._block_rows, len(self))


def gather(
    out: npt.NDArray[Any],
    sources: Indices,
    places: Indices,
    take: Callable[[int, Indices, npt.NDArray[Any] | None], npt.NDArray[Any]],
) -> npt.NDArray[Any]:
    """Fill `out` (m, …) with rows of several readers, and return it.

    Parameters
    ----------
    out : ndarray, shape (m, …)
    sources, places : ndarray of int64, shape (m,)
        For each row the number of its reader, and its row there.
    take : callable
        ``take(source, places, out)`` returns rows of one reader, in `out` where there is one.
    """
    for source in np.unique(sources).tolist():
        here = np.flatnonzero(sources == source)
        if len(here) == len(out):
            return take(source, places, out)
        out[here] = take(source, places[here], None)
    return out


def within(numbers: Indices, length: int) -> bool:
    """Say whether all are in ``0 … length``."""
    return not len(numbers) or bool(numbers.min() >= 0 and numbers.max() < length)
