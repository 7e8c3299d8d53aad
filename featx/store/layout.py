"""HDF5 lays out, the store writes: where each array of a file lies, and the HDF5 structures around it.

libhdf5 is asked for a file whose datasets are allocated but not written. It runs in memory, so that
no fault of a disk can reach it; what comes back is the offset of every array and the few kilobytes
(superblock, object headers, attributes) that make the file an ordinary HDF5 file for everyone else.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Extent:
    """Where one array lies in a file: C order, little-endian, uninterrupted.

    Attributes
    ----------
    offset : int
        Of the first byte, from the start of the file. 0 for an array without bytes.
    dtype : numpy.dtype
    shape : tuple of int
    """

    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        """Length in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def end(self) -> int:
        """Offset of the first byte behind the array."""
        return self.offset + self.n_bytes


@dataclass(frozen=True)
class Layout:
    """An HDF5 file without the content of its datasets.

    Attributes
    ----------
    size : int
        Of the whole file, in bytes.
    extents : dict of str to Extent
        The arrays by name.
    gaps : list of (int, bytes)
        Offset and content of all that lies outside the user block and the arrays.
    """

    size: int
    extents: dict[str, Extent]
    gaps: list[tuple[int, bytes]]


def lay_out(arrays: Mapping[str, Extent], attributes: Mapping[str, str | int], user_block: int) -> Layout:
    """Place `arrays` (their offsets are ignored) behind a user block of `user_block` bytes.

    Parameters
    ----------
    arrays : mapping of str to Extent
        In the order in which they shall lie. A slash in a name makes a group.
    attributes : mapping of str to str or int
        Attributes of the root group.
    user_block : int
        A power of two of at least 512.
    """
    import h5py

    image = _Image()
    aligned = {"alignment_threshold": 512, "alignment_interval": 64}  # so that X can be mapped as numbers
    with h5py.File(image, "w", userblock_size=user_block, **aligned) as file:
        for name, value in attributes.items():
            file.attrs[name] = value
        extents = {name: _allocate(file, name, extent) for name, extent in arrays.items()}
    gaps = [(start, image.content(start, stop)) for start, stop in gaps_between(extents, user_block, image.size)]
    return Layout(image.size, extents, gaps)


def gaps_between(extents: Mapping[str, Extent], start: int, stop: int) -> list[tuple[int, int]]:
    """Return the ranges of ``start … stop`` that no extent covers.

    Raises
    ------
    ValueError
        If extents overlap or reach outside.

    Examples
    --------
    >>> gaps_between({"y": Extent(600, np.dtype("<i8"), (10,))}, 512, 1000)
    [(512, 600), (680, 1000)]
    """
    gaps = []
    for extent in sorted((extent for extent in extents.values() if extent.n_bytes), key=lambda extent: extent.offset):
        if extent.offset < start:
            raise ValueError("arrays overlap")
        if extent.offset > start:
            gaps.append((start, extent.offset))
        start = extent.end
    if start > stop:
        raise ValueError("arrays reach past the end of the file")
    return [*gaps, (start, stop)] if start < stop else gaps


def _allocate(file: Any, name: str, extent: Extent) -> Extent:
    from h5py import h5d, h5p, h5s, h5t

    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_layout(h5d.CONTIGUOUS)
    properties.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)  # equal content is an equal file
    group, _, leaf = name.rpartition("/")
    home = file.require_group(group) if group else file
    kind = h5t.py_create(hdf5_dtype(extent.dtype), logical=True)
    dataset = h5d.create(home.id, leaf.encode(), kind, h5s.create_simple(extent.shape), properties)
    return Extent(dataset.get_offset() if extent.n_bytes else 0, extent.dtype, extent.shape)


def hdf5_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Say to h5py that byte strings are UTF-8."""
    import h5py

    if dtype.names:
        fields = [(name, hdf5_dtype(dtype[name])) for name in dtype.names]
        return np.dtype(fields)
    return np.dtype(h5py.string_dtype("utf-8", dtype.itemsize)) if dtype.kind == "S" else dtype


class _Image(io.RawIOBase):
    """A file in memory that remembers what libhdf5 writes and knows a size, but holds no gigabytes of holes."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0
        self._position = 0
        self._written: list[tuple[int, bytes]] = []

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def truncate(self, size: int | None = None) -> int:
        self.size = self._position if size is None else size
        return self.size

    def write(self, data: Any) -> int:
        self._written.append((self._position, bytes(data)))
        self._position += len(self._written[-1][1])
        self.size = max(self.size, self._position)
        return len(self._written[-1][1])

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        view[:] = self.content(self._position, self._position + len(view))
        self._position += len(view)
        return len(view)

    def content(self, start: int, stop: int) -> bytes:
        """Return the bytes of a range, zero where nothing was written."""
        data = bytearray(stop - start)
        for offset, written in self._written:
            low, high = max(start, offset), min(stop, offset + len(written))
            if low < high:
                data[low - start : high - start] = written[low - offset : high - offset]
        return bytes(data)
