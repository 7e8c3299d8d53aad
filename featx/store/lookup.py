"""Where is this digest? Millions of them, by one sorted word of each instead of a dictionary."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: Digests that are looked up at a time: what that takes is then little beside millions of them.
_AT_ONCE = 1 << 20


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
