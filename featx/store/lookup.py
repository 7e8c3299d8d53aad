"""Where is this digest? Millions of them, by sorted prefix instead of a dictionary."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class DigestIndex:
    """Find digests among `digests`.

    Parameters
    ----------
    digests : ndarray of uint8, shape (n, width)
        `width` of at least 8 bytes. Of equal ones the first is found.

    Examples
    --------
    >>> known = np.arange(32, dtype=np.uint8).reshape(2, 16)
    >>> DigestIndex(known).positions(known[[1, 1, 0]])
    array([1, 1, 0])
    """

    def __init__(self, digests: npt.NDArray[np.uint8]) -> None:
        self._digests = digests
        prefixes = _prefixes(digests)
        self._order = np.argsort(prefixes, kind="stable")
        self._sorted = prefixes[self._order]

    def positions(self, queries: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """Return the row of each query in `digests`, -1 where there is none (int64, shape (m,))."""
        found = np.full(len(queries), -1, np.int64)
        prefixes = _prefixes(queries)
        slots = np.searchsorted(self._sorted, prefixes)
        pending = np.arange(len(queries))
        while len(pending):  # one round, but for equal prefixes
            inside = slots[pending] < len(self._sorted)
            pending = pending[inside]
            pending = pending[self._sorted[slots[pending]] == prefixes[pending]]
            candidates = self._order[slots[pending]]
            same = (self._digests[candidates] == queries[pending]).all(axis=1)
            found[pending[same]] = candidates[same]
            pending = pending[~same]
            slots[pending] += 1
        return found


def _prefixes(digests: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    return np.ascontiguousarray(digests[:, :8]).view(np.uint64).reshape(-1)
