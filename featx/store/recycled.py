"""Memory for results, used again when nobody holds the last one: fresh pages cost more than the rows copied to them.

A batch of 512 rows of 1,280 numbers has 640 pages. The system makes each of them anew, and zeroes it, whenever the
allocator has given the memory of the batch before back, which took longer than to gather the rows.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

#: Smaller arrays the allocator keeps by itself; of larger ones the pages are the lesser part.
_SMALLEST_BYTES, _LARGEST_BYTES = 1 << 18, 1 << 23


class Recycled:
    """Arrays without contents, in memory of earlier ones that have been let go.

    Parameters
    ----------
    n_kept : int
        Pieces of memory that wait for their next use, 8 MiB each at most.

    Examples
    --------
    >>> recycled = Recycled()
    >>> first = recycled.empty((512, 1280), np.dtype("float32"))
    >>> place, last_row = first.ctypes.data, first[-1]
    >>> del first
    >>> recycled.empty((512, 1280), np.dtype("float32")).ctypes.data == place  # a row of it is held still
    False
    >>> del last_row
    >>> recycled.empty((512, 1280), np.dtype("float32")).ctypes.data == place
    True
    """

    def __init__(self, n_kept: int = 2) -> None:
        self._free: deque[npt.NDArray[np.uint8]] = deque(maxlen=n_kept)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return an array as `numpy.empty` does, the caller's as long as he holds it or any part of it."""
        n_bytes = math.prod(shape) * dtype.itemsize
        if not _SMALLEST_BYTES <= n_bytes <= _LARGEST_BYTES:
            return np.empty(shape, dtype)
        memory = self._find(n_bytes)
        # All views of the array refer to this object in the end, so it dies with the last of them.
        lease = (ctypes.c_char * n_bytes).from_buffer(memory.data)
        weakref.finalize(lease, self._free.append, memory).atexit = False
        return np.frombuffer(memoryview(lease), dtype).reshape(shape)

    def _find(self, n_bytes: int) -> npt.NDArray[np.uint8]:
        while self._free:
            try:
                memory = self._free.pop()
            except IndexError:  # another thread was first
                break
            if len(memory) == n_bytes:
                return memory
        return np.empty(n_bytes, np.uint8)
