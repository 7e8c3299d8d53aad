"""Means and second moments of rows, block by block: what least squares, discriminants and components start from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import linalg

from featx.errors import DataError
from featx.heads.inputs import Samples, like
from featx.heads.losses import to_numpy
from featx.heads.targets import Array


def mean_row(training: Samples) -> Array:
    """Return the weighted mean of the rows, shape (d,), float64."""
    total = np.zeros(training.shape[1])
    for indices, block in training.blocks():
        total += to_numpy(like(training.weights[indices], block) @ block)
    mean: Array = total / training.weights.sum()
    return mean


def class_sums(training: Samples, change: Callable[[Array], Array] = lambda block: block) -> Array:
    """Return the weighted sum of each class's rows, of what `change` makes of their blocks, shape (k, d), float64."""
    k = len(training.classes)
    sums = np.zeros((k, training.shape[1]))
    for indices, block in training.blocks():
        membership = np.zeros((k, len(block)), training.dtype)
        membership[training.targets[indices], np.arange(len(block))] = training.weights[indices]
        sums += to_numpy(training.placed(membership) @ change(block))
    return sums


def centred(training: Samples, indices: Any, block: Array, mean: Array) -> Array:
    """Return √s (x - mean) for each row x of a block with weight s; means (k, d) are those of the classes."""
    means = like(mean, block)
    A: Array = block - (means if mean.ndim == 1 else means[training.placed(training.targets[indices])])
    weights = training.weights[indices]
    if (weights != 1).any():
        A *= like(np.sqrt(weights), block)[:, None]
    return A


def second_moment(training: Samples, mean: Array, targets: Callable[[Any], Array] | None = None) -> tuple[Array, Array]:
    """Return Σ s x̃ x̃ᵀ (d, d), summed in the dtype of the rows, and Σ s x̃ tᵀ (d, k) in float64, with x̃ = x - mean.

    Parameters
    ----------
    training : Samples
    mean : ndarray, shape (d,) or (k, d)
        Of all rows, or of those of each class.
    targets : callable, or None
        From indices to their t, shape (m, k): made by the block, for all of them may be more than the memory
        limit allows. None for no columns.
    """
    d = training.shape[1]
    check_room(training, d)
    gram, cross = training.placed(np.zeros((d, d), training.dtype)), np.zeros((d, 0))
    for indices, block in training.blocks():
        A = centred(training, indices, block, mean)
        gram += A.T @ A
        if targets is not None:
            weighted = targets(indices) * np.sqrt(training.weights[indices])[:, None]
            cross = to_numpy(A.T @ like(weighted, A)) + (cross if cross.size else 0.0)
    return to_numpy(gram), cross


def check_room(training: Samples, side: int) -> None:
    """Raise `DataError` where a factorised square matrix of `side` rows is more than the memory limit allows."""
    # The matrix, the product of a block or what LAPACK works in, and as much for the blocks themselves.
    limit, needed = training.limit, 3 * side**2 * training.dtype.itemsize
    if limit is not None and needed > limit:
        raise DataError(
            f"The second moments of {side} columns take {needed / 2**20:.0f} MiB, and the memory limit is "
            f"{limit / 2**20:.0f} MiB. Raise --memory, or fit --head logreg or --head mlp, which need less."
        )


def eigh(gram: Array, *, frugal: bool = False) -> tuple[Array, Array]:
    """Return eigenvalues (d,), ascending and not negative, and vectors (d, d) of a Gram matrix, which is lost.

    Besides it LAPACK takes the room of two such matrices; `frugal` the room of one, for four times the time.
    """
    # Transposed it is the same, but in LAPACK's order, so that no copy is made.
    values, vectors = linalg.eigh(gram.T, driver="evr" if frugal else "evd", overwrite_a=True, check_finite=False)
    return np.maximum(values, 0), vectors


def leading(gram: Array, n: int) -> tuple[Array, Array]:
    """Return the `n` largest eigenvalues, descending and not negative, and vectors (d, n) of a Gram matrix (lost)."""
    d = len(gram)
    values, vectors = linalg.eigh(gram.T, subset_by_index=(d - n, d - 1), overwrite_a=True, check_finite=False)
    return np.maximum(values[::-1], 0), vectors[:, ::-1]
