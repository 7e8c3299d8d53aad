"""The shared memory between a run and one decoding process: a batch of images on its way."""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import NamedTuple

import numpy as np

#: `Slot.progress` when no image is being decoded.
IDLE = -1

_COUNTER_BYTES = 8


class Parcel(NamedTuple):
    """Where one image lies behind a slot's pixels: bytes of a file, or of an array of that shape."""

    position: int
    offset: int
    n_bytes: int
    shape: list[int] | None


class Slot:
    """A counter of progress, room for the pixels of a batch, and behind them the encoded images.

    The memory has no name, so nothing is left of it when its last process ends, however it ends; and it
    is not bound by the size of ``/dev/shm``, 64 MiB in a container.

    Parameters
    ----------
    fd : int
        File descriptor from `create_memory`, inherited by the decoding process.
    batch_size, height, width : int
        Room for so many images of that many pixels.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (batch_size, height, width, 3)
        Written by the decoding process.
    """

    def __init__(self, fd: int, *, batch_size: int, height: int, width: int) -> None:
        self.fd = fd
        self._mapped_bytes = _COUNTER_BYTES + batch_size * height * width * 3
        os.truncate(fd, max(self._mapped_bytes, os.fstat(fd).st_size))
        memory = mmap.mmap(fd, self._mapped_bytes)
        self._counter = np.frombuffer(memory, np.int64, count=1)
        self.pixels = np.frombuffer(memory, np.uint8, offset=_COUNTER_BYTES).reshape(batch_size, height, width, 3)

    @property
    def progress(self) -> int:
        """Position in the batch of the image that is being decoded, or `IDLE`."""
        return int(self._counter[0])

    @progress.setter
    def progress(self, position: int) -> None:
        self._counter[0] = position

    def put(self, images: list[tuple[int, bytes | np.ndarray]]) -> list[Parcel]:
        """Write (position, image) pairs behind the pixels, in place of those of the batch before."""
        os.truncate(self.fd, self._mapped_bytes)
        parcels, offset = [], self._mapped_bytes
        for position, image in images:
            shape = list(image.shape) if isinstance(image, np.ndarray) else None
            data = np.ascontiguousarray(image).reshape(-1).data if isinstance(image, np.ndarray) else image
            parcels.append(Parcel(position, offset, len(data), shape))
            offset += _write(self.fd, data, offset)
        return parcels

    def get(self, parcel: Parcel) -> bytes | np.ndarray:
        """Read one image that the other side has `put`."""
        data = os.pread(self.fd, parcel.n_bytes, parcel.offset)
        return data if parcel.shape is None else np.frombuffer(data, np.uint8).reshape(parcel.shape)


def create_memory() -> int:
    """Open a file without a name: memory on Linux, elsewhere a temporary file that is already deleted."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("featx-pixels")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _write(fd: int, data: bytes | memoryview, offset: int) -> int:
    written = 0
    while written < len(data):  # one call writes 2 GiB at most
        written += os.pwrite(fd, data[written:], offset + written)
    return written
