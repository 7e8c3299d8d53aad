"""The step between a table and a head: rows brought to one scale, with what was learned on train."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import featx.heads  # noqa: F401 - before anything else imports scikit-learn, see there

# isort: split
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from featx.errors import OptionError
from featx.model.settings import SCALES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from featx.features import Features


class FeatureScaler(TransformerMixin, BaseEstimator):
    """Scale rows of features.

    Unlike scikit-learn's scalers it takes rows of any shape (vectors and unpooled maps), learns from
    blocks, and keeps float32.

    Parameters
    ----------
    kind : {"standard", "l2", "none"}
        ``standard``: mean 0 and variance 1 over the rows learned from, for each feature of a vector or
        each channel of a map; a feature that never varies is only centred. ``l2``: each row to length 1,
        a row of zeros stays. ``none``: as it is.
    blocks : sequence of (int, float)
        Of vectors of several tables side by side: how many columns each has, and its weight. ``standard`` brings the
        columns of a block to this deviation instead of 1, and so makes a penalty on their coefficients weaker by its
        square; ``l2`` brings the rows of each block to this length.
    prior : float
        With ``standard``: how many rows of evidence stand for all features of a vector, or of its block, varying alike.
        Few rows tell the variance of a feature badly, and one that by chance hardly varies in them is not blown up.

    Attributes
    ----------
    mean_, scale_ : ndarray of float32, shape (d,) or (c, 1, 1)
        With ``standard`` only.
    widths_, weights_ : ndarray of int64 and of float32, shape (b,)
        The blocks, with ``l2`` only.

    Examples
    --------
    >>> FeatureScaler("standard").fit_transform(np.float32([[1, 5], [3, 5]])).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """

    def __init__(self, kind: str = "standard", blocks: Sequence[tuple[int, float]] = (), *, prior: float = 0.0) -> None:
        self.kind = kind
        self.blocks = blocks
        self.prior = prior

    def fit(self, X: NDArray[Any], y: Any = None) -> FeatureScaler:  # noqa: ARG002 - scikit-learn's signature
        """Learn from rows `X` of shape (n, …)."""
        return self.fit_blocks([X])

    def fit_blocks(self, blocks: Iterable[NDArray[Any]]) -> FeatureScaler:
        """Learn from rows that come in blocks of shape (m, …), each seen once.

        Means and squared deviations of two blocks combine without cancellation: T. F. Chan, G. H. Golub,
        R. J. LeVeque, "Algorithms for computing the sample variance", The American Statistician 1983.
        """
        if self.kind not in SCALES:
            raise OptionError(f"--scale must be one of auto, {', '.join(SCALES)}; got {self.kind!r}.")
        widths, weights = np.array(list(self.blocks), np.float64).reshape(-1, 2).T
        if self.kind == "l2" and len(widths):
            self.widths_, self.weights_ = widths.astype(np.int64), weights.astype(np.float32)
        if self.kind != "standard":
            return self
        n, mean, deviation = 0, np.float64(0.0), np.float64(0.0)
        for block in blocks:
            axes = (0, *range(2, block.ndim))  # all but the channels
            m = block.size // block.shape[1]
            block_mean = block.mean(axis=axes, dtype=np.float64, keepdims=True)[0]
            block_deviation = block.var(axis=axes, dtype=np.float64, keepdims=True)[0] * m
            shift = block_mean - mean
            deviation = deviation + block_deviation + shift**2 * (n * m / (n + m))
            mean = mean + shift * (m / (n + m))
            n += m
        spread = np.sqrt(deviation / n)
        # Rounding leaves a constant feature with a tiny spread that would blow it up.
        constant = spread <= 1e-6 * np.abs(mean)
        if self.prior and np.ndim(spread) == 1:
            sizes = widths.astype(np.int64) if len(widths) else np.array([len(spread)])
            usual = np.add.reduceat(spread**2, np.cumsum([0, *sizes[:-1]])) / sizes
            spread = np.sqrt((n * spread**2 + self.prior * np.repeat(usual, sizes)) / (n + self.prior))
        self.mean_ = np.asarray(mean, dtype=np.float32)
        self.scale_ = np.where(constant, 1.0, spread).astype(np.float32)
        if len(widths):
            self.scale_ /= np.repeat(weights, widths.astype(np.int64)).astype(np.float32)
        return self

    def transform(self, X: NDArray[Any]) -> NDArray[np.float32]:
        """Return rows `X` of shape (n, …) scaled, in float32."""
        X = np.asarray(X, dtype=np.float32)
        if self.kind == "standard":
            check_is_fitted(self, "mean_")
            scaled = X - self.mean_
            scaled /= self.scale_
            return scaled
        if self.kind == "l2" and hasattr(self, "widths_"):
            parts = np.split(X, np.cumsum(self.widths_)[:-1], axis=1)
            return np.hstack([weight * _unit(part) for weight, part in zip(self.weights_, parts, strict=True)])
        return _unit(X) if self.kind == "l2" else X


def _unit(X: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(X.reshape(len(X), -1), axis=1).reshape(-1, *(1,) * (X.ndim - 1))
    return np.asarray(X / np.where(lengths > 0, lengths, 1), dtype=np.float32)


class ScaledTable:
    """The rows of a table as a scaler leaves them, made when they are asked for.

    It is what heads take for a table, so those that stream a table larger than memory stream it scaled.

    Parameters
    ----------
    table : Features
        Rows of shape (n, …) with labels.
    scaler : FeatureScaler
        Fitted.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, table: Features, scaler: FeatureScaler) -> None:
        self._table, self._scaler = table, scaler
        self.shape, self.y = table.shape, table.y

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def X(self) -> NDArray[np.float32]:  # noqa: N802 - the field's name for it
        """All rows, float32; never more than one block beside them."""
        rows = np.empty(self.shape, dtype=self.dtype)
        for positions, block in self.blocks():
            rows[positions] = block
        return rows

    def __getitem__(self, rows: Any) -> NDArray[np.float32]:
        """Return the rows at a slice, mask or array of positions."""
        return self._scaler.transform(self._table[rows])

    def select(self, rows: Any) -> ScaledTable:
        """Return a part of the table."""
        return ScaledTable(self._table.select(rows), self._scaler)

    def blocks(
        self, n_bytes: int = 64 << 20, *, shuffle: bool = False, seed: int = 0
    ) -> Iterator[tuple[Any, NDArray[np.float32]]]:
        """Yield (positions, rows) in blocks of bounded size, as `featx.Features` does."""
        for positions, block in self._table.blocks(n_bytes, shuffle=shuffle, seed=seed):
            yield positions, self._scaler.transform(block)
