"""Convex losses of linear classifiers: value, gradient and Hessian in the scores.

Each takes scores Z of shape (p, k, n) for n rows and p problems side by side, and class indices of
shape (n,), both numpy's or both torch's. The Hessian of a row is diag(u) - v vᵀ; `hessian` returns u and v.
Rows come last, so that what is done over few classes goes along memory: three times as fast as the other way round.
"""

from __future__ import annotations

import sys
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

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
        """Return k, the scores a row has."""

    def __call__(self, scores: Array, codes: Array) -> tuple[Array, Array]:
        """Return losses (p, n) and gradients (p, k, n)."""

    def hessian(self, scores: Array, codes: Array) -> tuple[Array, Array]:
        """Return u and v, each (p, k, n)."""


class Multinomial:
    """Cross-entropy of the softmax: log Σ exp z_j - z_y."""

    def n_outputs(self, n_classes: int) -> int:
        """Return one score a class."""
        return n_classes

    def __call__(self, scores: Array, codes: Array) -> tuple[Array, Array]:
        """Return losses and gradients, softmax minus one-hot."""
        rows, own, sums = _softmax(scores, codes)
        losses = module_of(scores).log(sums) - own
        scores[:, codes, rows] -= 1
        return losses, scores

    def hessian(self, scores: Array, codes: Array) -> tuple[Array, Array]:
        """Return the softmax twice: diag(q) - q qᵀ."""
        _softmax(scores, codes)
        return scores, scores


class Binomial:
    """Cross-entropy of the logistic function on one score, positive for the second class."""

    def n_outputs(self, n_classes: int) -> int:
        """Return one score for both classes."""
        return n_classes - 1

    def __call__(self, scores: Array, codes: Array) -> tuple[Array, Array]:
        """Return losses and gradients, probability minus target."""
        xp = module_of(scores)
        z, positive = scores[:, 0], _targets(scores, codes == 1)
        smaller = xp.exp(-abs(z))  # of the odds and their inverse
        losses = xp.log1p(smaller) + z.clip(min=0) - positive * z
        return losses, (xp.where(z > 0, 1, smaller) / (1 + smaller) - positive)[:, None]

    def hessian(self, scores: Array, codes: Array) -> tuple[Array, Array]:  # noqa: ARG002 - as of all losses
        """Return q (1 - q) and zero."""
        xp = module_of(scores)
        smaller = xp.exp(-abs(scores))
        return smaller / (1 + smaller) ** 2, xp.zeros_like(scores)


class SquaredHinge:
    """Σ over classes of max(0, 1 - t z)², targets t = ±1, each class against the rest."""

    def n_outputs(self, n_classes: int) -> int:
        """Return one score a class, or one for two classes."""
        return n_classes if n_classes > 2 else 1

    def __call__(self, scores: Array, codes: Array) -> tuple[Array, Array]:
        """Return losses and gradients."""
        target = _signs(scores, codes)
        slack = (1 - target * scores).clip(min=0)
        return (slack * slack).sum(1), -2 * target * slack

    def hessian(self, scores: Array, codes: Array) -> tuple[Array, Array]:
        """Return 2 where the margin is not kept, and zero."""
        xp = module_of(scores)
        return 2 * xp.asarray(_signs(scores, codes) * scores < 1, dtype=scores.dtype), xp.zeros_like(scores)


def _softmax(scores: Array, codes: Array) -> tuple[Array, Array, Array]:
    """Turn scores into their softmax; return row numbers, the own class's score and Σ exp z, both from the largest."""
    xp = module_of(scores)
    rows = xp.ones_like(codes).cumsum(0) - 1
    scores -= xp.amax(scores, 1)[:, None]
    own = scores[:, codes, rows]
    xp.exp(scores, out=scores)
    sums = scores.sum(1)
    scores /= sums[:, None]
    return rows, own, sums


def _targets(scores: Array, hits: Array) -> Array:
    """Return 1 where `hits` (n,), else 0, in the dtype of the scores."""
    return module_of(scores).asarray(hits, dtype=scores.dtype)


def _signs(scores: Array, codes: Array) -> Array:
    """Return targets ±1, shape (k, n)."""
    k = scores.shape[1]
    labels = range(k) if k > 1 else (1,)
    return 2 * module_of(scores).stack([_targets(scores, codes == label) for label in labels]) - 1
