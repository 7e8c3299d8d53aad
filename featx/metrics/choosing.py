"""The metrics that may choose among settings, by the names that `--metric` takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featx.errors import OptionError
from featx.metrics.multilabel import average_precisions, choose_thresholds, f1_score, mean_average_precision
from featx.metrics.regression import mean_absolute_error, r2_score, root_mean_squared_error

Floats = NDArray[np.float64]

#: What the tasks are called in messages.
_OF = {"classify": "one class an image", "multilabel": "several labels an image", "regress": "numbers"}


@dataclass(frozen=True)
class Metric:
    """A number that says how near predictions come.

    Attributes
    ----------
    name : str
        As ``--metric`` takes it, and as JSON has it.
    of : callable
        From the truth and what a head says to the number; NaN where it is not defined. Classes are positions (n,) and
        probabilities (n, k); labels and numbers (n, t).
    sign : {1, -1}
        -1 where less is better.
    """

    name: str
    of: Callable[[Any, Any], float]
    sign: int = 1

    def worth(self, truth: ArrayLike, found: ArrayLike) -> float:
        """Return a number of which more is better; -infinity where the metric is not defined."""
        value = self.of(truth, found)
        return -math.inf if math.isnan(value) else self.sign * value


def accuracy(truth: ArrayLike, probabilities: ArrayLike) -> float:
    """Return the share of rows whose class is the most probable one.

    Examples
    --------
    >>> accuracy([0, 1], [[0.9, 0.1], [0.6, 0.4]])
    0.5
    """
    return float((np.argmax(probabilities, axis=1) == np.asarray(truth)).mean())


def balanced_accuracy(truth: ArrayLike, probabilities: ArrayLike) -> float:
    """Return the mean over the classes that occur of the share of their rows that are found.

    Examples
    --------
    >>> balanced_accuracy([0, 0, 1], [[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]])
    0.5
    """
    y, found = np.asarray(truth), np.argmax(probabilities, axis=1)
    n = np.bincount(y)
    return float((np.bincount(y, found == y)[n > 0] / n[n > 0]).mean())


def class_macro_f1(truth: ArrayLike, probabilities: ArrayLike) -> float:
    """Return the mean of F1 over the classes that occur or are predicted.

    Examples
    --------
    >>> round(class_macro_f1([0, 0, 1], [[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]]), 3)
    0.4
    """
    p = np.asarray(probabilities)
    each = np.arange(p.shape[1])
    return f1_score(np.asarray(truth)[:, None] == each, p.argmax(axis=1)[:, None] == each, "macro")


def auroc(truth: ArrayLike, probabilities: ArrayLike) -> float:
    """Return the area under the ROC curve of each class against all others, averaged over the classes that occur.

    Of two classes it is that of the second. NaN where all rows are of one class.

    Parameters
    ----------
    truth : array_like of int, shape (n,)
    probabilities : array_like, shape (n, k)

    Notes
    -----
    A row of the class stands above a row of another in that share of pairs, ties counting half (Hanley and McNeil,
    "The meaning and use of the area under a ROC curve", 1982); so ranks are enough.

    Examples
    --------
    >>> auroc([0, 1, 1], [[0.7, 0.3], [0.8, 0.2], [0.1, 0.9]])
    0.5
    """
    y, p = np.asarray(truth), np.asarray(probabilities, np.float64)
    occur = np.unique(y).tolist()
    if len(occur) < 2:
        return math.nan
    return float(np.mean([_area(y == k, p[:, k]) for k in ([1] if p.shape[1] == 2 else occur)]))


def _area(has: NDArray[np.bool_], p: Floats) -> float:
    _, place, count = np.unique(p, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]  # equal rows share the mean of their ranks
    n = int(has.sum())
    return float((ranks[has].sum() - n * (n + 1) / 2) / (n * (len(p) - n)))


def average_precision(truth: ArrayLike, probabilities: ArrayLike) -> float:
    """Return the average precision of each class against all others, averaged over the classes that occur.

    Examples
    --------
    >>> average_precision([0, 1], [[0.9, 0.1], [0.6, 0.4]])
    1.0
    """
    p = np.asarray(probabilities, np.float64)
    return float(np.nanmean(average_precisions(np.asarray(truth)[:, None] == np.arange(p.shape[1]), p)))


def _f1(average: str) -> Callable[[Any, Any], float]:
    def score(truth: Floats, probabilities: Floats) -> float:
        return f1_score(truth, probabilities >= choose_thresholds(truth, probabilities), average)

    return score


#: By task, the one that chooses where nobody says first. F1 of labels has the thresholds that suit the rows it is on.
METRICS: dict[str, dict[str, Metric]] = {
    task: {metric.name: metric for metric in metrics}
    for task, metrics in {
        "classify": (
            Metric("accuracy", accuracy),
            Metric("balanced_accuracy", balanced_accuracy),
            Metric("macro_f1", class_macro_f1),
            Metric("auroc", auroc),
            Metric("average_precision", average_precision),
        ),
        "multilabel": (
            Metric("map", mean_average_precision),
            Metric("micro_f1", _f1("micro")),
            Metric("macro_f1", _f1("macro")),
        ),
        "regress": (
            Metric("r2", r2_score),
            Metric("mae", mean_absolute_error, -1),
            Metric("rmse", root_mean_squared_error, -1),
        ),
    }.items()
}
#: All their names.
METRIC_CHOICES = tuple(dict.fromkeys(name for metrics in METRICS.values() for name in metrics))


def metric_of(task: str, name: str | None = None) -> Metric:
    """Return the metric that chooses for a task: the one of that name, or the usual one.

    Raises
    ------
    OptionError
        If it is one of another task.

    Examples
    --------
    >>> metric_of("regress").name
    'r2'
    """
    known = METRICS[task]
    if name is None:
        return next(iter(known.values()))
    if name not in known:
        of = " or ".join(_OF[other] for other, metrics in METRICS.items() if name in metrics)
        raise OptionError(
            f"--metric {name} is of {of}, and these rows have {_OF[task]}. Take one of {', '.join(known)}."
        )
    return known[name]
