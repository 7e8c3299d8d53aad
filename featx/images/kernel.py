"""The inner loop of a resize, which numba compiles to the processor's widest vectors. Importing it takes a while."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

# As in featx.images.resizing, but here: numba keeps compiled code for as long as this file is unchanged.
_PLACES, _HALF = np.int32(22), np.int32(1 << 21)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def weigh(source: Any, first: Any, counts: Any, weights: Any, out: Any) -> None:
    """Make each row of `out` a weighted sum of some rows of `source`, rounded to bytes.

    Parameters
    ----------
    source : ndarray of uint8, shape (n_source, n_bytes)
    first, counts : ndarray of int64, shape (n,)
        Row i is made of ``counts[i]`` rows of the source, from ``first[i]``.
    weights : ndarray of int32, shape (n, most)
        With 22 binary places.
    out : ndarray of uint8, shape (n, n_bytes)
        Written. All arrays are C-contiguous.
    """
    n_bytes = out.shape[1]
    total = np.empty(n_bytes, np.int32)
    for i in range(len(out)):
        total[:] = _HALF
        for k in range(counts[i]):
            weight, row = weights[i, k], source[first[i] + k]
            for j in range(n_bytes):
                total[j] += np.int32(weight * np.int32(row[j]))  # numba would go on in 64 bits, half as many at once
        for j in range(n_bytes):
            out[i, j] = min(max(total[j] >> _PLACES, 0), 255)
