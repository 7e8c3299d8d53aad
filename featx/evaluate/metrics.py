"""The arithmetic of classification metrics, from class indices and probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    hits = np.bincount(y_true[y_true == y_pred], minlength=k)
    support, predicted = np.bincount(y_true, minlength=k), np.bincount(y_pred, minlength=k)
    columns = (
        _share(hits, predicted),
        _share(hits, support),
        _share(2 * hits, support + predicted),
        _share(predicted - hits, len(y_true) - support),
        support,
        predicted,
    )
    return tuple(ClassScores(label, *row) for label, *row in zip(classes, *(c.tolist() for c in columns), strict=True))


def _share(part: NDArray[Any], whole: NDArray[Any]) -> Floats:
    """Divide, with NaN for 0/0: a class that never occurs has no recall, not a recall of zero."""
    shares = np.full(part.shape, np.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares


def confusion_counts(y_true: Indices, y_pred: Indices, n_classes: int) -> Indices:
    """Count rows by true and predicted class.

    Parameters
    ----------
    y_true, y_pred : ndarray of int, shape (n,)
        Class indices in 0 … `n_classes` - 1.
    n_classes : int
        Number of classes k.

    Returns
    -------
    ndarray of int64, shape (k, k)
        ``counts[i, j]`` rows are of class i and were taken for class j.

    Examples
    --------
    >>> confusion_counts(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    pairs = np.bincount(y_true * n_classes + y_pred, minlength=n_classes**2)
    return pairs.reshape(n_classes, n_classes)


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


def log_loss(y_true: Indices, probabilities: Floats) -> float:
    """Mean of ``-log p(true class)`` in nats.

    Probabilities are clipped at float64's epsilon, so one sure mistake costs 36 nats and not infinity.

    Examples
    --------
    >>> round(log_loss(np.array([0, 1]), np.array([[0.5, 0.5], [0.5, 0.5]])), 4)
    0.6931
    """
    right = probabilities[np.arange(len(y_true)), y_true]
    return float(-np.log(np.clip(right, np.finfo(np.float64).eps, 1.0)).mean())


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
