"""`QuickHead`: a ridge that learns and unlearns labels in a fraction of a second, however many rows there are.

A ridge needs of its rows but their sum, their products XᵀX and the sum of each class. These are kept for each of five
folds: a batch of labels adds its own rows to them, a solve takes d³ / 3 operations, and the head that has not learned
from a fold is one more solve, of the sums less those of the fold.
"""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featx.features import Features

    Floats = NDArray[np.float32]
    Labels = NDArray[np.int64]

FOLDS = 5
#: Penalties on the mean squared error of standardised columns; the folds choose.
_PENALTIES = (0.03, 0.3, 3.0)
#: The penalty is chosen anew when there are so many times the labels, on at most so many rows.
_GROWTH, _CHOOSERS = 1.5, 3000
#: Longer rows are projected at random to so many columns, which keep angles (Johnson and Lindenstrauss).
_LONGEST, _PROJECTED = 2048, 512
_BLOCK = 2048
#: The least penalty: what rounding in single precision cannot outweigh.
_LEAST = 0.01
_SHARPNESS = tuple(2.0 ** (power / 2) for power in range(1, 13))


class QuickHead:
    """Probabilities of classes for all rows of a table, refitted as labels come.

    Parameters
    ----------
    table : Features
        Rows (n, …).
    groups : ndarray of int, shape (n,)
        Rows of one group share a fold.
    held_out : ndarray of bool, shape (n,)
        Rows that never teach.

    Attributes
    ----------
    probabilities : ndarray of float32, shape (n, k)
        By the head that has learned all labels but those held out.
    honest : ndarray of float32, shape (n, k)
        The same, but of each row that taught, by the head that has not learned from its fold.
    """

    def __init__(self, table: Features, groups: NDArray[np.intp], held_out: NDArray[np.bool_]) -> None:
        self._table, self._held_out = table, held_out
        d = math.prod(table.shape[1:])
        self._projection: Floats | None = None
        self._Z: Floats | None = None
        if d > _LONGEST:
            self._projection = np.random.default_rng(0).standard_normal((d, _PROJECTED), np.float32) / math.sqrt(d)
            self._Z = np.concatenate(
                [X.reshape(len(X), -1).astype(np.float32) @ self._projection for _, X in table.blocks(16 << 20)]
            )
            d = _PROJECTED
        some = self._raw(np.sort(np.random.default_rng(0).permutation(len(table))[:_CHOOSERS]))
        sd = some.std(axis=0)
        self._mean = some.mean(axis=0)
        self._scale = np.where(sd > 1e-6 * max(float(sd.max()), 1e-30), 1 / np.maximum(sd, 1e-30), 0).astype(np.float32)
        self.fold = np.array([zlib.crc32(b"%d" % group) % FOLDS for group in groups.tolist()])
        self._y: Labels = np.full(len(table), -1, np.int64)
        self._products = np.zeros((FOLDS, d, d), np.float32)
        self._class_sums = np.zeros((FOLDS, 0, d), np.float64)
        self._counts = np.zeros((FOLDS, 0))
        self._penalty, self._chosen_at, self._sharpness = _PENALTIES[1], 0, 8.0
        self.probabilities = self.honest = np.zeros((len(table), 0), np.float32)

    @property
    def n_taught(self) -> int:
        """Rows that it has learned from."""
        return int(self._counts.sum())

    def learn(self, y: Labels, k: int) -> bool:
        """Take up labels y (n,) of k classes, −1 for none; False, and no probabilities, if fewer than two have rows."""
        self._take_up(np.where(self._held_out, -1, y), k)
        if (self._counts.sum(axis=0) > 0).sum() < 2:
            self.probabilities = self.honest = np.zeros((len(y), 0), np.float32)
            return False
        taught = np.flatnonzero(self._y >= 0)
        if self.n_taught > _GROWTH * self._chosen_at or self.n_taught < self._chosen_at / _GROWTH:
            self._choose(taught)
        whole, folds = self._solve(self._penalty, None), [self._solve(self._penalty, f) for f in range(FOLDS)]
        scores, honest = self._scores(whole, folds)
        some = taught[:: max(1, len(taught) // _CHOOSERS)]
        losses = [_loss(_softmax(s * honest[some]), self._y[some]) for s in _SHARPNESS]
        self._sharpness = _SHARPNESS[int(np.argmin(losses))]
        self.probabilities, self.honest = _softmax(self._sharpness * scores), _softmax(self._sharpness * honest)
        self.scores = scores
        return True

    def _rows(self, which: Any) -> Floats:
        """Return rows (m, d), standardised by what all rows are like."""
        return np.asarray((self._raw(which) - self._mean) * self._scale, np.float32)

    def _raw(self, which: Any) -> Floats:
        if self._Z is not None:
            return np.asarray(self._Z[which])
        return np.asarray(self._table[which].reshape(len(which), -1), np.float32)

    def _blocks(self) -> Any:
        if self._Z is not None:
            yield from ((np.arange(at, min(at + _BLOCK, len(self._Z))), self._Z[at : at + _BLOCK]) for at in
                        range(0, len(self._Z), _BLOCK))  # fmt: skip
            return
        for where, X in self._table.blocks(16 << 20, in_place=True):
            yield where, np.asarray(X.reshape(len(X), -1), np.float32)

    def _take_up(self, y: Labels, k: int) -> None:
        grown = k - self._class_sums.shape[1]
        if grown > 0:
            self._class_sums = np.pad(self._class_sums, ((0, 0), (0, grown), (0, 0)))
            self._counts = np.pad(self._counts, ((0, 0), (0, grown)))
        changed = np.flatnonzero(y != self._y)
        for at in range(0, len(changed), _BLOCK):
            rows = changed[at : at + _BLOCK]
            X, old, new, fold = self._rows(rows), self._y[rows], y[rows], self.fold[rows]
            for f in np.unique(fold).tolist():
                for sign, of in ((1, (old < 0) & (new >= 0)), (-1, (old >= 0) & (new < 0))):
                    part = X[of & (fold == f)]
                    if len(part):
                        self._products[f] += sign * (part.T @ part)
                for sign, labels in ((1, new), (-1, old)):
                    for c in np.unique(labels[(fold == f) & (labels >= 0)]).tolist():
                        of_class = (fold == f) & (labels == c)
                        self._class_sums[f, c] += sign * X[of_class].sum(axis=0, dtype=np.float64)
                        self._counts[f, c] += sign * of_class.sum()
        self._y = y

    def _solve(self, penalty: float, without: int | None) -> tuple[Floats, Floats]:
        """Return weights (d, k) and intercepts (k,), of standardised rows, of the ridge on all folds but one."""
        from scipy.linalg import cho_factor, cho_solve

        kept = [f for f in range(FOLDS) if f != without]
        counts, sums = self._counts[kept].sum(axis=0), self._class_sums[kept].sum(axis=0)
        n, d = counts.sum(), self._products.shape[1]
        if not n:
            return np.zeros((d, len(counts)), np.float32), np.zeros(len(counts), np.float32)
        mean, share = sums.sum(axis=0) / n, counts / n
        S = self._products[kept].sum(axis=0)
        S /= np.float32(n)
        S -= np.outer(mean, mean).astype(np.float32)
        S[np.diag_indices(d)] += np.float32(max(penalty * d / 100, _LEAST))
        targets = (sums / n - share[:, None] * mean).T.astype(np.float32)
        W = cho_solve(cho_factor(S, lower=True, overwrite_a=True, check_finite=False), targets, check_finite=False)
        return W, (share - mean @ W).astype(np.float32)

    def _choose(self, taught: NDArray[np.intp]) -> None:
        """Choose the penalty that predicts folds best from the others."""
        some = taught[:: max(1, len(taught) // _CHOOSERS)]
        X, y, losses = self._rows(some), self._y[some], []
        for penalty in _PENALTIES:
            scores = np.empty((len(some), self._counts.shape[1]), np.float32)
            for f in range(FOLDS):
                W, b = self._solve(penalty, f)
                scores[self.fold[some] == f] = X[self.fold[some] == f] @ W + b
            losses.append(min(_loss(_softmax(s * scores), y) for s in _SHARPNESS))
        self._penalty, self._chosen_at = _PENALTIES[int(np.argmin(losses))], self.n_taught

    def _scores(self, whole: tuple[Floats, Floats], folds: list[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
        scores = np.empty((len(self._table), self._counts.shape[1]), np.float32)
        honest = np.empty_like(scores)
        whole, *folds = (self._of_raw(*one) for one in (whole, *folds))
        for where, X in self._blocks():
            scores[where] = honest[where] = X @ whole[0] + whole[1]
            taught = self._y[where] >= 0
            for f in range(FOLDS) if taught.any() else ():
                mine = np.flatnonzero(taught & (self.fold[where] == f))
                if len(mine):
                    honest[where[mine]] = X[mine] @ folds[f][0] + folds[f][1]
        empty = self._counts.sum(axis=0) == 0
        scores[:, empty] = honest[:, empty] = -np.inf
        return scores, honest

    def _of_raw(self, W: Floats, b: Floats) -> tuple[Floats, Floats]:
        """Return weights and intercepts that give the same scores of rows as they are."""
        W = W * self._scale[:, None]
        return W, b - self._mean @ W


def _softmax(scores: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        grown = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(grown / grown.sum(axis=1, keepdims=True), np.float32)


def _loss(probabilities: Floats, y: Labels) -> float:
    return float(-np.log(np.maximum(probabilities[np.arange(len(y)), y], 1e-6)).mean())
