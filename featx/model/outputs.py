"""What a model of labels or numbers says of a row, and how good that was on rows whose truth is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import DataError
from featx.metrics import (
    bootstrap_interval,
    choose_thresholds,
    conformal_margins,
    f1_score,
    mean_absolute_error,
    metric_of,
    root_mean_squared_error,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

#: A label is there from this probability on, where no validation rows say better.
THRESHOLD = 0.5
#: Share of new rows whose truth lies within the margins of a prediction.
COVERAGE = 0.9
#: Metrics of labels and numbers, as JSON has them and as people read them.
METRIC_NAMES = {
    "map": "mAP", "micro_f1": "micro-F1", "macro_f1": "macro-F1", "r2": "R²", "mae": "mean error", "rmse": "RMSE",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Outputs:
    """Names of what a model says, and what validation rows told about it.

    Attributes
    ----------
    task : {"multilabel", "regress"}
    names : tuple of str, length t
    thresholds : tuple of float
        Of labels: the probability from which each is there, 0–1.
    margins : tuple of float or None
        Of numbers: how far the truth of nine in ten new rows lies from a prediction at most; None where validation had
        too few rows to tell.
    """

    task: str
    names: tuple[str, ...]
    thresholds: tuple[float, ...] = ()
    margins: tuple[float | None, ...] = ()

    @classmethod
    def learn(cls, task: str, names: tuple[str, ...], truth: Floats, found: Floats) -> Self:
        """Return what rows (n, t) that the head was not fitted on tell of its outputs; n may be 0."""
        if task == "multilabel":
            return cls(task, names, thresholds=tuple(choose_thresholds(truth, found).tolist()))
        margins = conformal_margins(truth, found, COVERAGE).tolist() if len(truth) else [math.inf] * len(names)
        return cls(task, names, margins=tuple(margin if math.isfinite(margin) else None for margin in margins))

    def of(self, head: Any, rows: NDArray[Any]) -> Floats:
        """Return probabilities of labels, or numbers, of scaled rows (n, …), shape (n, t)."""
        if self.task == "regress":
            found = np.asarray(head.predict(rows), np.float64)
        elif hasattr(head, "predict_proba"):
            said = head.predict_proba(rows)
            if isinstance(said, list):  # as scikit-learn's forests and neighbours do: a pair of columns for each label
                said = np.column_stack([one[:, -1] for one in said])
            found = np.asarray(said, np.float64)
            found = found[:, 1:] if len(self.names) == 1 and found.shape[1:] == (2,) else found
        else:
            found = np.asarray(head.predict(rows), np.float64)
        found = found.reshape(len(rows), -1)
        if found.shape[1] != len(self.names) or not np.isfinite(found).all():
            raise DataError(
                f"{type(head).__name__} gives {found.shape[1]} values a row for {len(self.names)} targets, or "
                "some that are no numbers. Take another head: featx heads"
            )
        return found

    def score(self, truth: Floats, found: Floats, groups: NDArray[np.intp] | None = None) -> TargetScore:
        """Score outputs (n, t) against the truth; rows of one group may be right or wrong together."""
        headline = metric_of(self.task)
        metrics = {headline.name: headline.of(truth, found)}
        if self.task == "multilabel":
            predicted = found >= np.array(self.thresholds)
            metrics |= {f"{average}_f1": f1_score(truth, predicted, average) for average in ("micro", "macro")}
        else:
            metrics |= {"mae": mean_absolute_error(truth, found), "rmse": root_mean_squared_error(truth, found)}
        known = {name: None if math.isnan(value) else value for name, value in metrics.items()}
        return TargetScore(len(truth), known, bootstrap_interval(headline.of, truth, found, groups))


@dataclass(frozen=True)
class TargetScore:
    """How near a model comes on some rows.

    Attributes
    ----------
    n : int
        Rows.
    metrics : dict of str to float or None
        ``map``, ``micro_f1``, ``macro_f1`` of labels, ``r2``, ``mae``, ``rmse`` of numbers: the first is the one that
        chooses where nobody names another. None where it is not defined, as R² of a single row.
    ci95 : (float, float) or None
        Bootstrap interval of the first, over groups where there are any.

    Examples
    --------
    >>> print(TargetScore(200, {"r2": 0.5712, "mae": 0.31, "rmse": 0.4}, (0.52, 0.61)))
    R² 0.571 (0.520–0.610, n = 200), mean error 0.31, RMSE 0.4
    """

    n: int
    metrics: Mapping[str, float | None]
    ci95: tuple[float, float] | None = None

    @cached_property
    def value(self) -> float:
        """The first metric; NaN where it is not defined."""
        first = next(iter(self.metrics.values()))
        return math.nan if first is None else first

    def to_dict(self) -> dict[str, Any]:
        """Return ``{"n", "r2", …, "ci95"}``, ready for JSON."""
        return {"n": self.n, **self.metrics, "ci95": self.ci95 and list(self.ci95)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Rebuild it from `to_dict`."""
        metrics = {name: fields[name] for name in METRIC_NAMES if name in fields}
        return cls(fields["n"], metrics, fields["ci95"] and tuple(fields["ci95"]))

    def __str__(self) -> str:
        (name, _), *others = self.metrics.items()
        interval = f"{self.ci95[0]:.3f}–{self.ci95[1]:.3f}, " if self.ci95 else ""
        said = [f"{METRIC_NAMES[name]} {self.value:.3f} ({interval}n = {self.n:,})"]
        said += [f"{METRIC_NAMES[other]} {value:.3g}" for other, value in others if value is not None]
        return ", ".join(said)
