"""Convex losses of linear classifiers: value, gradient and Hessian in the scores.

Each takes scores Z of shape (p, k, n) for n rows and p problems side by side, and targets: class indices of
shape (n,), or of k labels whether each holds, 0 or 1, of shape (n, k); all numpy's or all torch's. The Hessian
of a row is diag(u) - v vᵀ; `hessian` returns u and v. Rows come last, so that what is done over few classes goes
along memory: three times as fast as the other way round.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featx.heads.inputs import like

#: An array of numpy or a tensor of torch.
Array = Any


def module_of(array: Array) -> Any:
    """Return numpy or torch, whichever `array` is of."""
    return np if isinstance(array, np.ndarray | np.generic) else sys.modules["torch"]


def to_numpy(array: Array) -> NDArray[Any]:
    """Return an array of either kind as numpy's."""
    return np.asarray(array.cpu() if hasattr(array, "cpu") else array)


class Loss(Protocol):
    """A convex loss of scores, which a call may overwrite."""

    def n_outputs(self, n_classes: int) -> int:
        """Return k, the scores that a row of one class has; rows of several labels have one a label."""

    def __call__(self, scores: Array, targets: Array) -> tuple[Array, Array]:
        """Return losses (p, n) and gradients (p, k, n)."""

    def hessian(self, scores: Array, targets: Array) -> tuple[Array, Array]:
        """Return u and v, each (p, k, n)."""


class Multinomial:
    """Cross-entropy of the softmax: log Σ exp z_j - z_y."""

    def n_outputs(self, n_classes: int) -> int:
        """Return one score a class."""
        return n_classes

    def __call__(self, scores: Array, targets: Array) -> tuple[Array, Array]:
        """Return losses and gradients, softmax minus one-hot."""
        rows, own, sums = _softmax(scores, targets)
        losses = module_of(scores).log(sums) - own
        scores[:, targets, rows] -= 1
        return losses, scores

    def hessian(self, scores: Array, targets: Array) -> tuple[Array, Array]:
        """Return the softmax twice: diag(q) - q qᵀ."""
        _softmax(scores, targets)
        return scores, scores


@dataclass(frozen=True)
class _Separate:
    """What losses share whose scores are told apart each by itself: of each class, or of each of several labels.

    Attributes
    ----------
    label_weights : ndarray, shape (2, k), or None
        What 0 and 1 of each of several labels count.
    """

    label_weights: NDArray[np.float64] | None = None

    def _counts(self, scores: Array, labels: Array) -> Array:
        """Return what each score counts, shape (k, n), or 1 throughout."""
        if self.label_weights is None:
            return 1
        zero, one = like(self.label_weights, scores)[:, :, None]
        return module_of(scores).where(labels.T == 1, one, zero)


class Binomial(_Separate):
    """Cross-entropy of the logistic function: on one score, positive for the second class, or on one a label."""

    def n_outputs(self, n_classes: int) -> int:
        """Return one score for both classes."""
        return n_classes - 1

    def __call__(self, scores: Array, targets: Array) -> tuple[Array, Array]:
        """Return losses and gradients, probability minus target."""
        xp = module_of(scores)
        positive, counts = _hits(scores, targets), self._counts(scores, targets)
        smaller = xp.exp(-abs(scores))  # of the odds and their inverse
        losses = counts * (xp.log1p(smaller) + scores.clip(min=0) - positive * scores)
        return losses.sum(1), counts * (xp.where(scores > 0, 1, smaller) / (1 + smaller) - positive)

    def hessian(self, scores: Array, targets: Array) -> tuple[Array, Array]:
        """Return q (1 - q) and zero."""
        xp = module_of(scores)
        smaller = xp.exp(-abs(scores))
        return self._counts(scores, targets) * smaller / (1 + smaller) ** 2, xp.zeros_like(scores)


class SquaredHinge(_Separate):
    """Σ over classes or labels of max(0, 1 - t z)², targets t = ±1, each class against the rest."""

    def n_outputs(self, n_classes: int) -> int:
        """Return one score a class, or one for two classes."""
        return n_classes if n_classes > 2 else 1

    def __call__(self, scores: Array, targets: Array) -> tuple[Array, Array]:
        """Return losses and gradients."""
        signs, counts = 2 * _hits(scores, targets) - 1, self._counts(scores, targets)
        slack = (1 - signs * scores).clip(min=0)
        return (counts * slack * slack).sum(1), -2 * counts * signs * slack

    def hessian(self, scores: Array, targets: Array) -> tuple[Array, Array]:
        """Return 2 where the margin is not kept, and zero."""
        xp, signs = module_of(scores), 2 * _hits(scores, targets) - 1
        kept = xp.asarray(signs * scores < 1, dtype=scores.dtype)
        return 2 * self._counts(scores, targets) * kept, xp.zeros_like(scores)


def _softmax(scores: Array, targets: Array) -> tuple[Array, Array, Array]:
    """Turn scores into their softmax; return row numbers, the own class's score and Σ exp z, both from the largest."""
    xp = module_of(scores)
    rows = xp.ones_like(targets).cumsum(0) - 1
    scores -= xp.amax(scores, 1)[:, None]
    own = scores[:, targets, rows]
    xp.exp(scores, out=scores)
    sums = scores.sum(1)
    scores /= sums[:, None]
    return rows, own, sums


def _hits(scores: Array, targets: Array) -> Array:
    """Return 1 where a score should be positive, else 0, shape (k, n), in the dtype of the scores."""
    xp = module_of(scores)
    if targets.ndim == 2:
        return xp.asarray(targets.T, dtype=scores.dtype)
    k = scores.shape[1]
    labels = range(k) if k > 1 else (1,)
    return xp.stack([xp.asarray(targets == label, dtype=scores.dtype) for label in labels])
