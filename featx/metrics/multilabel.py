"""How well several labels an image are found, each by itself and all together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LabelScores:
    """How one label fares.

    Attributes
    ----------
    label : str
        Its name.
    support : int
        Rows that have it.
    n_predicted : int
        Rows that it was predicted for.
    threshold : float
        Probability from which it is.
    precision, recall, f1 : float
        Shares of the predicted rows that have it and of its rows that were found, and their harmonic mean; NaN where
        there are none.
    average_precision : float
        Mean precision over its rows, each at the threshold that finds it; NaN where no row has it.
    """

    label: str
    support: int
    n_predicted: int
    threshold: float
    precision: float
    recall: float
    f1: float
    average_precision: float


def average_precisions(truth: ArrayLike, probabilities: ArrayLike) -> Floats:
    """Return the average precision of each label, shape (t,); NaN for a label that no row has.

    As `sklearn.metrics.average_precision_score` without its checks: Σ (R_k - R_{k-1}) P_k over thresholds k, rows of
    one probability together.

    Parameters
    ----------
    truth : array_like of 0 and 1, shape (n, t)
    probabilities : array_like, shape (n, t)

    Examples
    --------
    >>> average_precisions([[1, 0], [0, 0], [1, 0]], [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]).round(3).tolist()
    [0.833, nan]
    """
    y, p = np.asarray(truth, np.float64), np.asarray(probabilities, np.float64)
    return np.array([_average_precision(y[:, k], p[:, k]) for k in range(y.shape[1])])


def _average_precision(y: Floats, p: Floats) -> float:
    if not y.any():
        return float("nan")
    _, n_found, hits = _thresholds(y, p)
    return float((np.diff(hits, prepend=0) * hits / n_found).sum() / hits[-1])


def _thresholds(y: Floats, p: Floats) -> tuple[Floats, NDArray[np.intp], Floats]:
    """Return the probabilities of one label, each once and the highest first, and how many rows reach and deserve it.

    Returns
    -------
    probabilities : ndarray of float64, shape (m,)
    n_found : ndarray of int, shape (m,)
        Rows that are at least as probable.
    hits : ndarray of float64, shape (m,)
        Those of them that have the label.
    """
    order = np.argsort(-p, kind="stable")
    last = np.append(np.flatnonzero(np.diff(p[order])), len(p) - 1)
    return p[order][last], last + 1, np.cumsum(y[order])[last]


def mean_average_precision(truth: ArrayLike, probabilities: ArrayLike) -> float:
    """Return the mean of `average_precisions` over the labels that occur; NaN where none does.

    Examples
    --------
    >>> mean_average_precision([[1, 0], [0, 0]], [[0.9, 0.1], [0.8, 0.2]])
    1.0
    """
    found = average_precisions(truth, probabilities)
    return float(np.nanmean(found)) if not np.isnan(found).all() else float("nan")


def f1_score(truth: ArrayLike, predicted: ArrayLike, average: str = "macro") -> float:
    """Return F1 of predicted labels: of all together (``micro``), or the mean over labels that occur (``macro``).

    Parameters
    ----------
    truth, predicted : array_like of 0 and 1, shape (n, t)
    average : {"micro", "macro"}

    Examples
    --------
    >>> f1_score([[1, 0], [1, 1]], [[1, 0], [0, 1]], "micro")
    0.8
    """
    y, found = np.asarray(truth) == 1, np.asarray(predicted) == 1
    hits, both = (y & found).sum(axis=0), y.sum(axis=0) + found.sum(axis=0)
    if average == "micro":
        hits, both = hits.sum(keepdims=True), both.sum(keepdims=True)
    occurs = both > 0
    return float((2 * hits[occurs] / both[occurs]).mean()) if occurs.any() else float("nan")


def choose_thresholds(truth: ArrayLike, probabilities: ArrayLike) -> Floats:
    """Return for each label the probability from which predicting it gives the highest F1, shape (t,).

    The threshold lies half way to the next row below. A label that no row has, or all have, keeps 0.5.

    Parameters
    ----------
    truth : array_like of 0 and 1, shape (n, t)
        Of rows that what predicts was not fitted on.
    probabilities : array_like, shape (n, t)

    Examples
    --------
    >>> choose_thresholds([[1], [1], [0], [0]], [[0.4], [0.3], [0.2], [0.1]]).tolist()
    [0.25]
    """
    y, p = np.asarray(truth, np.float64), np.asarray(probabilities, np.float64)
    thresholds = np.full(y.shape[1], 0.5)
    for k in range(y.shape[1]):
        n_has = int(y[:, k].sum())
        if not 0 < n_has < len(y):
            continue
        steps, n_found, hits = _thresholds(y[:, k], p[:, k])
        best = int(np.argmax(2 * hits / (n_found + n_has)))
        thresholds[k] = np.append(steps, 0)[best : best + 2].mean()  # half way to the next row below, or to 0
    return thresholds


def label_scores(
    truth: ArrayLike, probabilities: ArrayLike, thresholds: ArrayLike, names: tuple[str, ...]
) -> tuple[LabelScores, ...]:
    """Score each label on its own.

    Parameters
    ----------
    truth : array_like of 0 and 1, shape (n, t)
    probabilities : array_like, shape (n, t)
    thresholds : array_like, shape (t,)
    names : tuple of str, length t

    Examples
    --------
    >>> (cat,) = label_scores([[1], [0], [1]], [[0.9], [0.6], [0.4]], [0.5], ("cat",))
    >>> cat.precision, cat.recall, cat.support
    (0.5, 0.5, 2)
    """
    y, cuts = np.asarray(truth) == 1, np.asarray(thresholds, np.float64)
    found = np.asarray(probabilities) >= cuts
    hits, support, predicted = (y & found).sum(axis=0), y.sum(axis=0), found.sum(axis=0)
    shares = [_shares(hits, predicted), _shares(hits, support), _shares(2 * hits, support + predicted)]
    columns: list[NDArray[Any]] = [support, predicted, cuts, *shares, average_precisions(y, probabilities)]
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return tuple(LabelScores(name, *row) for name, row in zip(names, rows, strict=True))


def _shares(part: NDArray[np.int64], whole: NDArray[np.int64]) -> Floats:
    """Return part over whole, NaN where there is none."""
    shares = np.full(len(part), np.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares
