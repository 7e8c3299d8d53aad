"""The rows of ``X`` in one file: found by arithmetic, read by ``pread``, verified by the block.

A block is as many whole rows as fit in 64 KiB (at least one). Its digest is checked the first time
that one of its rows is asked for, once in the life of a reader. Nothing is mapped into memory: mapped
pages count against memory limits, and a bad sector under a mapped page kills the process instead of
raising an error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from featx.errors import CorruptFileError
from featx.store.layout import Extent

BLOCK_BYTES = 1 << 16
#: Buffers that one call of ``preadv`` takes on every system.
_MOST_BUFFERS = 1024


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


class Source(Protocol):
    """What a payload reads from."""

    path: Path

    def read_into(self, buffers: list[memoryview], offset: int) -> None:
        """Fill `buffers` from `offset` on."""


class Payload:
    """Verified rows of one file.

    Parameters
    ----------
    source : Source
    extent : Extent
        Of ``X``.
    digests : ndarray of uint8, shape (n_blocks, 32)

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    """

    def __init__(self, source: Source, extent: Extent, digests: npt.NDArray[np.uint8]) -> None:
        self.shape, self.dtype = extent.shape, extent.dtype
        self._source, self._offset, self._digests = source, extent.offset, digests
        self._block_rows = block_rows(extent.shape, extent.dtype)
        self._row_bytes = math.prod(extent.shape[1:]) * extent.dtype.itemsize
        self._verified = np.zeros(len(digests), bool)

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, start: int, stop: int, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """Return the rows ``start … stop`` (shape ``(stop - start, …)``), read in one go."""
        if out is None:
            out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        data = out.reshape(-1).view(np.uint8).data
        self._source.read_into([data], self._offset + start * self._row_bytes)
        first, last = -(-start // self._block_rows), stop // self._block_rows
        if stop == len(self):
            last = len(self._digests)
        for block in range(first, last):  # whole blocks are verified where they already are
            if not self._verified[block]:
                low = (block * self._block_rows - start) * self._row_bytes
                self._compare(block, data[low : low + self._block_rows * self._row_bytes])
        self._touch(np.arange(start // self._block_rows, -(-stop // self._block_rows)))
        return out

    def take(self, rows: npt.NDArray[np.int64], out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """Return any rows in any order.

        Parameters
        ----------
        rows : ndarray of int64, shape (m,)
            Each in ``0 … n``; may repeat.
        out : ndarray, shape (m, …), optional
            C-contiguous, of the dtype of the rows.
        """
        if out is None:
            out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        if len(rows) > 1 and (np.diff(rows) == 1).all() and 0 <= rows[0] and rows[-1] < len(self):
            return self.read(int(rows[0]), int(rows[-1]) + 1, out)
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        if len(rows) and not 0 <= ascending[0] <= ascending[-1] < len(self):
            raise IndexError(f"rows {ascending[0]} … {ascending[-1]} of {len(self)}")
        self._touch(np.unique(ascending // self._block_rows))
        data, size = out.reshape(-1).view(np.uint8).data, self._row_bytes
        for low, high in _runs(ascending):
            targets = order[low:high].tolist()
            buffers = [data[target * size : (target + 1) * size] for target in targets]
            self._source.read_into(buffers, self._offset + int(ascending[low]) * size)
        return out

    def verify(self) -> None:
        """Check every block against its digest, seen or not."""
        for block in range(len(self._digests)):
            self._check(block)

    def damaged_blocks(self) -> Iterator[tuple[int, int]]:
        """Yield the rows (start, stop) of each block that fails its digest."""
        for block in range(len(self._digests)):
            try:
                self._check(block)
            except CorruptFileError:
                yield self._rows_of(block)

    def _touch(self, blocks: npt.NDArray[np.int64]) -> None:
        for block in blocks[~self._verified[blocks]].tolist():
            self._check(block)

    def _check(self, block: int) -> None:
        start, stop = self._rows_of(block)
        data = bytearray((stop - start) * self._row_bytes)
        self._source.read_into([memoryview(data)], self._offset + start * self._row_bytes)
        self._compare(block, data)

    def _compare(self, block: int, data: bytearray | memoryview) -> None:
        if blake3(data).digest() != self._digests[block].tobytes():
            start, stop = self._rows_of(block)
            raise CorruptFileError(
                f"{self._source.path} is damaged in its rows {start:,} to {stop - 1:,}. "
                "Save the others and compute these again: featx cache verify --repair, then the same command as before"
            )
        self._verified[block] = True

    def _rows_of(self, block: int) -> tuple[int, int]:
        start = block * self._block_rows
        return start, min(start + self._block_rows, len(self))


def _runs(ascending: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield (low, high) such that ``ascending[low:high]`` counts up by one, in digestible lengths."""
    breaks = np.flatnonzero(np.diff(ascending) != 1) + 1
    edges = [0, *breaks.tolist(), len(ascending)]
    for low, high in zip(edges, edges[1:], strict=False):
        for start in range(low, high, _MOST_BUFFERS):
            yield start, min(start + _MOST_BUFFERS, high)
