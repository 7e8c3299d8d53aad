"""Whether probabilities mean what they say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows whose confidence, the probability of the predicted class, lies within (`low`, `high`].

    Attributes
    ----------
    low, high : float
        Bounds of the confidence.
    n : int
        Rows; empty bins are left out of a diagram.
    confidence, accuracy : float
        Mean confidence of the rows, and the share of them that is right.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def reliability(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], n_bins: int = 15
) -> tuple[ReliabilityBin, ...]:
    """Return the bins of a reliability diagram, ascending.

    Parameters
    ----------
    confidence : ndarray, shape (n,)
        Probability of the predicted class.
    correct : ndarray of bool, shape (n,)
        Whether it is the true one.
    n_bins : int
        Bins of equal width over 0-1.

    Examples
    --------
    >>> reliability(np.array([0.8, 0.9, 0.9]), np.array([True, True, False]), n_bins=1)
    (ReliabilityBin(low=0.0, high=1.0, n=3, confidence=0.86..., accuracy=0.66...),)
    """
    edges = np.linspace(0, 1, n_bins + 1)
    place = np.clip(np.searchsorted(edges, confidence) - 1, 0, n_bins - 1)
    n = np.bincount(place, minlength=n_bins)
    sums = (np.bincount(place, weights=values, minlength=n_bins) for values in (confidence, correct))
    means = np.column_stack([total / np.maximum(n, 1) for total in sums]).tolist()
    return tuple(ReliabilityBin(float(edges[i]), float(edges[i + 1]), int(n[i]), *means[i]) for i in np.flatnonzero(n))


def calibration_error(bins: tuple[ReliabilityBin, ...]) -> float:
    """Return the expected calibration error (ECE): the mean over rows of their bin's |accuracy - confidence|.

    M. P. Naeini, G. F. Cooper, M. Hauskrecht, "Obtaining well calibrated probabilities using Bayesian
    binning", AAAI 2015.
    """
    return sum(b.n * abs(b.accuracy - b.confidence) for b in bins) / sum(b.n for b in bins)
