"""Rows that are nearly the same: all pairs nearer than a threshold, found without holding all pairs.

Every row is kept in m + 1 numbers: its first m coordinates a in some orthonormal basis, and the length r of the rest.
For unit rows the Cauchy–Schwarz inequality bounds the cosine of two of them,

    x · y  ≤  a_x · a_y + r_x r_y,

which is one product of the short rows. Only pairs whose bound reaches the threshold are computed from the rows
themselves, so nothing is missed. The basis are the leading singular vectors of a sample: they leave the least rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from featx.features.features import Features

    Floats = NDArray[np.float32]
    Rows = NDArray[np.intp]

#: Coordinates of the basis, and rows of the sample that it is of.
_COORDINATES, _SAMPLE = 128, 2000
#: Rows held against one another at a time, and the bytes that rows themselves may then take.
_TILE, _TILE_BYTES = 2048, 64 << 20
#: What rounding in single precision may take off a cosine of 1, or add to a bound.
_ROUNDING = 1e-5


@dataclass(frozen=True, eq=False)
class NearDuplicates:
    """Which rows of a table are nearly the same.

    Attributes
    ----------
    cluster : ndarray of int, shape (n,)
        Rows that are linked by near pairs, directly or over others, have one number, counted from 0 as they appear;
        −1 for a row that is near to no other.
    nearest : ndarray of int, shape (n,)
        The row most similar to each, −1 for none.
    similarity : ndarray of float32, shape (n,)
        Their cosine, 0 for none.
    """

    cluster: Rows
    nearest: Rows
    similarity: Floats


def near_duplicates(table: Features, near: float) -> NearDuplicates:
    """Find all rows of which another has a cosine of at least `near`.

    It takes memory for 129 numbers a row, and at worst, where all rows are alike, the time of all n² / 2 products.
    Images of identical content are known by that, and one of each is looked at.

    Parameters
    ----------
    table : Features
        Rows (n, …), taken as vectors whatever their shape.
    near : float
        Above 0, at most 1.

    Examples
    --------
    >>> from featx.features import Features
    >>> table = Features.from_arrays(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.01]], "float32"))
    >>> near_duplicates(table, 0.98).cluster.tolist()
    [0, -1, 0]
    """
    first, copies_of = _contents(table.item_ids)
    pairs = _Pairs(table.select(first), near)
    links = [np.stack([np.arange(len(table)), first[copies_of]])]
    for i, j, cosines in pairs:
        links.append(first[_spanning(i, j, cosines >= pairs.least)])
    nearest = np.where(pairs.nearest >= 0, first[pairs.nearest], -1)[copies_of]
    similarity = pairs.similarity[copies_of]
    copies = np.setdiff1d(np.arange(len(table)), first)[::-1]
    second = np.full(len(first), -1)
    second[copies_of[copies]] = copies  # the lowest is written last
    nearest = np.where(second[copies_of] >= 0, second[copies_of], nearest)  # a copy is nearer than anything else
    nearest[copies] = first[copies_of[copies]]
    similarity[second[copies_of] >= 0] = 1
    return NearDuplicates(_numbered(np.concatenate(links, axis=1), len(table)), nearest, similarity)


def _contents(item_ids: NDArray[np.uint8]) -> tuple[Rows, Rows]:
    """Return the first row of each content, ascending, and of which of these each row is a copy."""
    contents = np.ascontiguousarray(item_ids).view("S32").ravel().copy()
    own = np.flatnonzero(~item_ids.any(axis=1))  # rows of one's own arrays have no hash, and are each for itself
    _, first, copies = np.unique(contents, return_index=True, return_inverse=True)
    if len(own) > 1:
        copies[own[1:]] = len(first) + np.arange(len(own) - 1)
        first = np.concatenate([first, own[1:]])
    order = np.argsort(first)
    return first[order], np.argsort(order)[copies]


class _Pairs:
    """All pairs of rows that may be near, a tile at a time; the nearest of each row when all have been gone through."""

    def __init__(self, table: Features, near: float) -> None:
        self.table, self.least = table, near - _ROUNDING
        self.lengths = np.empty(len(table), np.float32)
        self.short = self._shorten()
        self.nearest = np.full(len(table), -1)
        self.similarity = np.zeros(len(table), np.float32)

    def __iter__(self) -> Iterator[tuple[Rows, Rows, Floats]]:
        """Yield rows i and j, ascending, and their cosines (len(i), len(j)), 0 where a row meets itself."""
        n, d = len(self.table), int(np.prod(self.table.shape[1:]))
        step = max(16, min(_TILE, _TILE_BYTES // (4 * d)))
        for low in range(0, n, step):
            for left in range(low, n, step):
                bounds = self.short[low : low + step] @ self.short[left : left + step].T
                there = bounds >= self.least
                if low == left:
                    np.fill_diagonal(there, val=False)
                if not there.any():
                    continue
                i = low + np.flatnonzero(there.any(axis=1))
                j = left + np.flatnonzero(there.any(axis=0))
                cosines = self._units(i) @ self._units(j).T
                cosines[i[:, None] == j] = 0
                self._keep(i, j, cosines)
                self._keep(j, i, cosines.T)
                yield i, j, cosines

    def _keep(self, rows: Rows, others: Rows, cosines: Floats) -> None:
        best = cosines.argmax(axis=1)
        values = cosines[np.arange(len(rows)), best]
        better = (values >= self.least) & (values > self.similarity[rows])
        self.nearest[rows[better]] = others[best[better]]
        self.similarity[rows[better]] = np.minimum(values[better], 1)

    def _units(self, rows: Rows) -> Floats:
        X = self.table[rows].reshape(len(rows), -1).astype(np.float32, copy=False)
        return np.asarray(X / np.where(self.lengths[rows] > 0, self.lengths[rows], 1)[:, None])

    def _shorten(self) -> Floats:
        """Return each unit row as its coordinates in the basis and the length of the rest, shape (n, m + 1)."""
        n = len(self.table)
        sample = np.sort(np.random.default_rng(0).permutation(n)[:_SAMPLE])
        X = self.table[sample].reshape(len(sample), -1).astype(np.float32, copy=False)
        basis = _leading(X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), np.finfo(np.float32).tiny))
        short = np.empty((n, basis.shape[1] + 1), np.float32)
        for where, block in self.table.blocks(_TILE_BYTES, in_place=True):
            rows = block.reshape(len(block), -1).astype(np.float32, copy=False)
            self.lengths[where] = lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))
            short[where, :-1] = rows @ basis / np.where(lengths > 0, lengths, 1)[:, None]
            inside = np.einsum("nd,nd->n", short[where, :-1], short[where, :-1])
            short[where, -1] = np.where(lengths > 0, np.sqrt(np.maximum(1 - inside, 0) + _ROUNDING), 0)
        return short


def _leading(X: Floats) -> Floats:
    """Return the leading right singular vectors of rows (s, d), as columns (d, m)."""
    m = min(_COORDINATES, *X.shape)
    if X.shape[1] <= X.shape[0]:
        return np.ascontiguousarray(np.linalg.eigh(X.T @ X)[1][:, ::-1][:, :m])
    values, vectors = np.linalg.eigh(X @ X.T)
    kept = values[::-1][:m] > max(1e-6 * float(values[-1]), 1e-30)
    basis = X.T @ vectors[:, ::-1][:, :m][:, kept]
    return np.asarray(np.linalg.qr(basis)[0], dtype=np.float32)


def _spanning(i: Rows, j: Rows, linked: NDArray[np.bool_]) -> Rows:
    """Return at most len(i) + len(j) links (2, l) that connect what `linked` (len(i), len(j)) connects."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    at, to = np.nonzero(linked)
    rows = np.concatenate([i, j])
    size = len(rows)
    parts = connected_components(coo_array((np.ones(len(at)), (at, len(i) + to)), (size, size)), directed=False)[1]
    first = np.unique(parts, return_index=True)[1]
    return np.stack([rows, rows[first[parts]]])


def _numbered(links: Rows, n: int) -> Rows:
    """Return the cluster of each of `n` rows, as they appear; −1 for one without links to others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    parts = connected_components(coo_array((np.ones(links.shape[1]), tuple(links)), (n, n)), directed=False)[1]
    alone = np.bincount(parts)[parts] == 1
    _, first, number = np.unique(parts[~alone], return_index=True, return_inverse=True)
    cluster = np.full(n, -1)
    cluster[~alone] = np.argsort(np.argsort(first))[number]
    return cluster
