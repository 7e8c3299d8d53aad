"""The arithmetic of evaluation: scores of classes, calibration, and whether two classifiers differ by chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Indices = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ClassScores:
    """How one class fares.

    Attributes
    ----------
    label : str
        Name of the class.
    precision : float
        Share of the rows predicted as this class that belong to it; NaN where none was predicted.
    recall : float
        Share of the class's rows that were found, its true-positive rate; NaN where it has no rows.
    f1 : float
        Harmonic mean of the two; NaN where the class neither occurs nor is predicted.
    false_positive_rate : float
        Share of the other classes' rows that were taken for this class; NaN where there are none.
    support : int
        Rows of the class.
    n_predicted : int
        Rows taken for the class.
    """

    label: str
    precision: float
    recall: float
    f1: float
    false_positive_rate: float
    support: int
    n_predicted: int


@dataclass(frozen=True)
class Confusion:
    """`n` rows of class `true` were taken for class `predicted`."""

    true: str
    predicted: str
    n: int


def class_scores(y_true: Indices, y_pred: Indices, classes: tuple[str, ...]) -> tuple[ClassScores, ...]:
    """Score each class on its own.

    Parameters
    ----------
    y_true, y_pred : ndarray of int, shape (n,)
        Indices into `classes`.
    classes : tuple of str, length k
        Names of the classes.

    Examples
    --------
    >>> cat, dog = class_scores(np.array([0, 0, 1]), np.array([0, 1, 1]), ("cat", "dog"))
    >>> cat.precision, cat.recall, dog.precision, dog.false_positive_rate
    (1.0, 0.5, 0.5, 0.5)
    """
    k = len(classes)
    right = y_true == y_pred
    hits, false = np.bincount(y_true[right], minlength=k), np.bincount(y_pred[~right], minlength=k)
    support, predicted = np.bincount(y_true, minlength=k), np.bincount(y_pred, minlength=k)
    precision, recall, f1 = _shares(hits, predicted), _shares(hits, support), _shares(2 * hits, support + predicted)
    columns = (precision, recall, f1, _shares(false, len(y_true) - support), support, predicted)
    return tuple(ClassScores(label, *row) for label, *row in zip(classes, *(c.tolist() for c in columns), strict=True))


def _shares(part: Indices, whole: Indices) -> Floats:
    """Return part over whole, NaN where there is none."""
    shares = np.full(len(part), np.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares


def most_confused(y_true: Indices, y_pred: Indices, classes: tuple[str, ...], limit: int) -> tuple[Confusion, ...]:
    """Return the up to `limit` most frequent mistakes, most frequent first.

    Examples
    --------
    >>> most_confused(np.array([0, 0, 1]), np.array([1, 1, 0]), ("cat", "dog"), limit=1)
    (Confusion(true='cat', predicted='dog', n=2),)
    """
    wrong = y_true != y_pred
    pairs, counts = np.unique(np.column_stack([y_true, y_pred])[wrong], axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:limit]
    return tuple(Confusion(classes[pairs[i, 0]], classes[pairs[i, 1]], int(counts[i])) for i in order)


def top_k_accuracy(y_true: Indices, probabilities: Floats, k: int) -> float:
    """Share of rows whose true class is among the `k` most probable ones.

    The true class loses every tie, so that a classifier which cannot tell classes apart is not rewarded.

    Examples
    --------
    >>> top_k_accuracy(np.array([2, 0]), np.array([[0.5, 0.3, 0.2], [0.4, 0.4, 0.2]]), 2)
    0.5
    """
    right = probabilities[np.arange(len(y_true)), y_true]
    n_at_least_as_good = (probabilities >= right[:, None]).sum(axis=1)
    return float((n_at_least_as_good <= k).mean())


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


@dataclass(frozen=True)
class McNemar:
    """Outcome of McNemar's test.

    Attributes
    ----------
    only_a, only_b : int
        Rows that only the first, or only the second classifier has right. Rows on which both are right
        or both are wrong say nothing about their difference.
    p_value : float
        Two-sided, exact: how often a fair coin would split those rows at least as unevenly.
    """

    only_a: int
    only_b: int
    p_value: float


def mcnemar(y_true: ArrayLike, a: ArrayLike, b: ArrayLike, groups: ArrayLike | None = None) -> McNemar:
    """Test whether predictions `a` and `b` of the same rows are right equally often.

    Parameters
    ----------
    y_true, a, b : array_like, shape (n,)
        True labels and two vectors of predicted ones.
    groups : array_like, shape (n,), optional
        Rows of one group are right or wrong together. The p-value is then that of the sum over groups of how many more
        rows the first has right, when the signs of all groups' sums are thrown anew: exact for up to 12 groups that
        tell, else of 9,999 throws.

    Notes
    -----
    The exact binomial form: Q. McNemar, "Note on the sampling error of the difference between correlated
    proportions", Psychometrika 1947. Over groups a sign-flip test: E. J. G. Pitman, "Significance tests which may be
    applied to samples from any populations", 1937; of single rows it is the same test.

    Examples
    --------
    >>> mcnemar([0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1])
    McNemar(only_a=6, only_b=0, p_value=0.03125)
    """
    truth, first, second = (np.asarray(labels) for labels in (y_true, a, b))
    if not truth.shape == first.shape == second.shape or truth.ndim != 1:
        raise ValueError(f"need three vectors of one length, got {truth.shape}, {first.shape} and {second.shape}")
    a_right, b_right = first == truth, second == truth
    only_a, only_b = int((a_right & ~b_right).sum()), int((b_right & ~a_right).sum())
    if groups is not None:
        more = a_right.astype(np.int64) - b_right
        return McNemar(
            only_a,
            only_b,
            _flipped_signs(np.bincount(np.unique(groups, return_inverse=True)[1], more).astype(np.float64)),
        )
    from scipy.stats import binomtest  # takes as long to import as all else that an evaluation needs

    p_value = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return McNemar(only_a, only_b, p_value)


def _flipped_signs(differences: Floats) -> float:
    """Return how often a sum of numbers with random signs is at least as far from 0 as that of `differences`."""
    told = differences[differences != 0]
    if not len(told):
        return 1.0
    if len(told) <= 12:
        signs = 1 - 2 * (np.arange(1 << len(told))[:, None] >> np.arange(len(told)) & 1)
        return float((np.abs(signs @ told) >= abs(told.sum()) - 1e-9).mean())
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (9999, len(told)))
    return float((1 + (np.abs(signs @ told) >= abs(told.sum()) - 1e-9).sum()) / 10_000)
