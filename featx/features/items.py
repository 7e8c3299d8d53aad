"""Rows of items: what the rows of several images become together, read from the table of these when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import DataError

if TYPE_CHECKING:
    import numpy.typing as npt

    from featx.features.features import Features
    from featx.store.rows import Indices

    Floats = npt.NDArray[np.float32]

#: Rows of images that are read at a time, in bytes.
_BLOCK_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class Combining:
    """How the rows of several images become the row of their item.

    Attributes
    ----------
    how : str
        ``mean``, ``max``, ``mean+max``, ``attention`` or ``slots``. ``attention``: a mean with weights that are
        learned from the images.
    slots : tuple of str
        What stands side by side, for ``slots``; several images in one slot count by their mean.
    learned : tuple of mapping of str to ndarray
        For each block of columns (of a join each table) what training rows have taught: for ``slots`` the row ``fill``
        (s, d) that stands for an image that is missing; for ``attention`` ``mean``, ``scale`` (d,), ``tanh``, ``gate``
        (d, h) and ``weight`` (h,). Empty before a fit.
    """

    how: str
    slots: tuple[str, ...] = ()
    learned: tuple[Mapping[str, npt.NDArray[np.float32]], ...] = ()

    @property
    def learns(self) -> bool:
        """Whether training rows have something to teach it."""
        return self.how in ("slots", "attention")

    @property
    def times_wider(self) -> int:
        """How many times as long as the row of an image a row is."""
        return {"mean+max": 2, "slots": len(self.slots)}.get(self.how, 1)

    def block(self, number: int) -> Combining:
        """Return how one block of columns is combined."""
        return replace(self, learned=self.learned[number : number + 1])

    def rows(self, X: Floats, starts: Indices, codes: Indices) -> Floats:
        """Return the rows of items (k, e) of one block of columns.

        Parameters
        ----------
        X : ndarray of float32, shape (m, d)
            Rows of images, item by item.
        starts : ndarray of int, shape (k + 1,)
            Where each item begins, and the end. None is empty but for ``slots``.
        codes : ndarray of int, shape (m,)
            Number of the slot of each image.
        """
        known = self.learned[0] if self.learned else {}
        n = np.diff(starts)
        if self.how == "slots":
            found = np.empty((len(n), len(self.slots), X.shape[1]), np.float32)
            found[:] = known.get("fill", np.float32(0))
            place = np.repeat(np.arange(len(n)), n) * len(self.slots) + codes
            order = np.argsort(place, kind="stable")
            there, first, counts = np.unique(place[order], return_index=True, return_counts=True)
            if len(there):
                means = np.add.reduceat(X[order], first, axis=0) / counts[:, None]
                found.reshape(-1, X.shape[1])[there] = means
            return found.reshape(len(n), -1)
        means = means_of(X, starts) if self.how != "max" else X[:0]
        if self.how == "attention" and known:
            return means_of(X, starts, attention(known, X, starts))
        if self.how in ("mean", "attention"):
            return means
        most = np.maximum.reduceat(X, starts[:-1], axis=0)
        return most if self.how == "max" else np.hstack([means, most])


def means_of(X: Floats, starts: Indices, weights: Floats | None = None) -> Floats:
    """Return the mean row of each item, shape (k, d); with `weights` (m,) that sum to 1 in each, the weighted one."""
    share = np.repeat(1 / np.diff(starts), np.diff(starts)) if weights is None else weights
    return np.add.reduceat(X * share.astype(np.float32)[:, None], starts[:-1], axis=0)


def attention(known: Mapping[str, npt.NDArray[np.float32]], X: Floats, starts: Indices) -> Floats:
    """Return how much each image counts in its item, shape (m,): gated attention.

    Notes
    -----
    M. Ilse, J. M. Tomczak, M. Welling, "Attention-based deep multiple instance learning", ICML 2018, equation 9.
    """
    Z = (X - known["mean"]) / known["scale"]
    gated = np.tanh(Z @ known["tanh"]) / (1 + np.exp(-np.clip(Z @ known["gate"], -60, 60)))
    return softmax_of(gated @ known["weight"], starts)


def softmax_of(scores: Floats, starts: Indices) -> Floats:
    """Return scores (m,) as shares that sum to 1 in each item."""
    n = np.diff(starts)
    shifted = np.exp(scores - np.repeat(np.maximum.reduceat(scores, starts[:-1]), n))
    return np.asarray(shifted / np.repeat(np.add.reduceat(shifted, starts[:-1]), n))


class ItemRows:
    """Rows of items behind the interface of `featx.store.rows.RowReader`, made of those of images.

    Parameters
    ----------
    images : Features
        Rows (n, d) of one table.
    order : ndarray of int, shape (m,)
        Which of them, item by item.
    starts : ndarray of int, shape (k + 1,)
        Where each item begins in `order`, and the end.
    codes : ndarray of int, shape (m,)
        Slot of each image of `order`.
    combining : Combining
        Of one block.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, images: Features, order: Indices, starts: Indices, codes: Indices, combining: Combining) -> None:
        if len(images.shape) != 2:
            raise DataError(
                f"Items are made of vectors, and the table holds maps of {images.shape[1:]}. Pool them: featx extract "
                "DATA --pool avg"
            )
        self.images, self.order, self.starts, self.codes, self.combining = images, order, starts, codes, combining
        self.shape: tuple[int, ...] = (len(starts) - 1, images.shape[1] * combining.times_wider)

    def __len__(self) -> int:
        return self.shape[0]

    def combined_by(self, combining: Combining) -> ItemRows:
        """Return the same items, combined in another way."""
        return ItemRows(self.images, self.order, self.starts, self.codes, combining)

    def members(self, rows: Indices) -> tuple[Indices, Indices]:
        """Return where in `order` the images of some items are, item by item, and where each item begins there."""
        n = np.diff(self.starts)[rows]
        starts = np.concatenate([[0], np.cumsum(n)])
        return np.arange(starts[-1]) + np.repeat(self.starts[rows] - starts[:-1], n), starts

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the rows ``start … stop``."""
        return self.take(np.arange(start, stop))

    def look(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the rows ``start … stop``."""
        return self.read(start, stop)

    def take(self, rows: Indices, out: npt.NDArray[Any] | None = None, *, mapped: bool = False) -> npt.NDArray[Any]:
        """Return any rows in any order."""
        if out is None:
            out = np.empty((len(rows), self.shape[1]), self.dtype)
        at = 0
        for part in self.blocks_of(rows):
            where, starts = self.members(part)
            X = self.images[self.order[where]].astype(np.float32, copy=False)
            out[at : at + len(part)] = self.combining.rows(X, starts, self.codes[where])
            at += len(part)
        del mapped  # a mean of rows is nowhere as it is
        return out

    def blocks_of(self, rows: Indices) -> list[Indices]:
        """Return `rows` cut into parts whose images fit into memory."""
        n_bytes = np.cumsum(np.diff(self.starts)[rows] * self.images.shape[1] * 4)
        cuts = np.flatnonzero(np.diff(n_bytes // _BLOCK_BYTES)) + 1
        return [part for part in np.split(rows, cuts) if len(part)]
