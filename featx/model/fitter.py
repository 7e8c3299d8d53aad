"""One head on one table: scaling learned on train, rows handed over whole or streamed, scores in blocks."""

from __future__ import annotations

import dataclasses
import inspect
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import featx.heads  # noqa: F401 - before anything else imports scikit-learn, see there

# isort: split
import numpy as np
from sklearn.base import clone

from featx.errors import DataError, OptionError
from featx.heads.dense import MapClassifier
from featx.heads.neighbors import KNNHead
from featx.metrics import metric_of
from featx.model.items import taught as taught_items
from featx.model.model import BLOCK_BYTES
from featx.model.report import Accuracy, Alternative
from featx.model.rows import given_groups, row_groups, with_views
from featx.model.scaling import FeatureScaler, ScaledTable
from featx.model.scores import Calibration, relative_scores
from featx.model.search import grid_search, parse_search

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from featx.features import Features
    from featx.metrics import Metric
    from featx.model.rows import Parts

    Positions = NDArray[np.intp]

#: Training rows that a nearest-neighbour head is asked about, at most.
LEFT_OUT = 2000


@dataclass(frozen=True)
class Tried:
    """What came of trying settings: the best of them, the alternatives of the search, and the folds of the best."""

    best: dict[str, Any] = field(default_factory=dict)
    search: tuple[Alternative, ...] | None = None
    cv: Alternative | None = None


@dataclass(frozen=True)
class Fitted:
    """A fitted head behind its scaling, and the table they were fitted on."""

    table: Features
    scaler: FeatureScaler
    head: Any
    block_bytes: int = BLOCK_BYTES
    origin: Positions | None = None

    def calibration(self, positions: Positions) -> Calibration:
        """Return what calibrates on some rows."""
        # What the head has never seen says nothing about how sure it may be of the rest.
        known = positions[np.isin(self.table.y[positions], self.head.classes_)]
        if not len(known):
            return Calibration()
        scores = np.concatenate([scores for _, scores in self._blocks(known)])
        codes = np.searchsorted(self.head.classes_, self.table.y[known])
        return Calibration.fit(scores, codes, votes=not hasattr(self.head, "decision_function"))

    def probabilities(self, positions: Positions) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Return codes of the classes that the head knows (m,), and their uncalibrated probabilities (n, m) of rows."""
        found = np.empty((len(positions), len(self.head.classes_)))
        for where, scores in self._blocks(positions):
            found[where] = Calibration().probabilities(scores)
        return np.asarray(self.head.classes_), found

    def outputs(self, positions: Positions) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Return the class (n,) of some rows, and uncalibrated probabilities (n, k), 0 for classes not learned."""
        codes, found = self.probabilities(positions)
        wide = np.zeros((len(positions), len(self.table.classes)))
        wide[:, codes] = found
        return self.table.y[positions], wide

    def accuracy(self, positions: Positions, beside: Metric | None = None) -> Accuracy | None:
        """Return the accuracy on some rows, and another metric beside it; None for no rows."""
        y, known = self.table.y[positions], np.asarray(self.head.classes_)
        right = np.zeros(len(y), bool)
        for where, scores in self._blocks(positions):
            right[where] = known[scores.argmax(axis=1)] == y[where]
        if not len(y):
            return None
        found = Accuracy.of(right, given_groups(self.table, positions))
        if beside is None or beside.name == "accuracy":
            return found
        value = beside.of(*self.outputs(positions))
        return dataclasses.replace(found, metrics={beside.name: None if math.isnan(value) else value})

    def train_accuracy(self, positions: Positions, seed: int) -> Accuracy | None:
        """Return the accuracy on the very rows that were fitted, all of them ascending.

        The nearest neighbour of a training row is that row. A nearest-neighbour head is therefore asked about a
        sample of rows, with each left out of its own vote, its augmented views too, and the report says so.
        """
        if not isinstance(self.head, KNNHead):
            return self.accuracy(positions)
        sample = np.arange(len(positions))
        if len(sample) > LEFT_OUT:
            sample = np.sort(np.random.default_rng(seed).choice(sample, LEFT_OUT, replace=False))
        groups = None if self.origin is None else self.origin[with_views(positions, self.origin)]
        labels = self.head.predict_left_out(self.scaler.transform(self.table[positions[sample]]), sample, groups)
        asked = positions[sample]
        return Accuracy.of(labels == self.table.y[asked], given_groups(self.table, asked), left_out=True)

    def _blocks(self, positions: Positions) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float64]]]:
        for where, X in self.table.select(positions).blocks(self.block_bytes):
            yield where, relative_scores(self.head, self.scaler.transform(X))


@dataclass(frozen=True)
class HeadFitter:
    """How heads are fitted on a table.

    Attributes
    ----------
    table : Features
        The rows.
    scaler : FeatureScaler
        Not fitted; each fit learns a copy on the rows that teach.
    head_name : str
        For messages.
    memory : int or None
        Bytes that a fit may add to the process.
    seed : int
        Of folds.
    origin : ndarray of int or None
        Of which row each row of the table is a view, where it holds augmented views behind the plain rows. Heads
        are fitted on all views of the rows they are given; everything else is done with the plain ones.
    metric : str or None
        What chooses among settings; None for the usual one of the task.
    """

    table: Features
    scaler: FeatureScaler
    head_name: str
    memory: int | None
    seed: int
    origin: Positions | None = None
    metric: str | None = None

    @property
    def task(self) -> str:
        """What heads tell of a row."""
        return "classify"

    @property
    def chooses(self) -> Metric:
        """The metric that chooses among settings."""
        return metric_of(self.task, self.metric)

    def check_metric(self) -> None:
        """Refuse a metric of another task before anything is fitted.

        Raises
        ------
        OptionError
        """
        metric_of(self.task, self.metric)

    @property
    def block_bytes(self) -> int:
        """What is read at a time: with its scaled and double-precision copies, well under the limit."""
        return BLOCK_BYTES if self.memory is None else min(BLOCK_BYTES, max(1 << 16, self.memory // 16))

    def fit(self, estimator: Any, train: Positions, val: Positions) -> Fitted:
        """Fit `estimator` on rows `train`; heads that watch a validation set get rows `val`."""
        table = taught_items(self.table, train, self.labels, self.task, self.seed)
        if table is not self.table:
            return dataclasses.replace(self, table=table).fit(estimator, train, val)
        taught = with_views(train, self.origin)
        part = self.table.select(taught)
        scaler = clone(self.scaler).fit_blocks(block for _, block in part.blocks(self.block_bytes))
        takes = inspect.signature(estimator.fit).parameters
        if "memory" not in takes:
            X = scaler.transform(self._whole(taught, estimator))
            return self.fitted(scaler, estimator.fit(X, self.labels(taught)))
        options: dict[str, Any] = {"memory": self.memory}
        known = self.guiding(val, taught)
        if "X_val" in takes and len(known):
            options["X_val"] = ScaledTable(self.table.select(known), scaler)
            if "y_val" in takes:
                options["y_val"] = self.labels(known)
        elif "groups" in takes:
            groups = row_groups(self.table, taught if self.origin is None else self.origin[taught])
            if len(np.unique(groups)) < len(groups):
                options["groups"] = groups
        return self.fitted(scaler, estimator.fit(ScaledTable(part, scaler), self.labels(taught), **options))

    def labels(self, positions: Positions) -> NDArray[Any]:
        """Return what heads learn of rows: their classes."""
        return self.table.y[positions]

    def strata(self, positions: Positions) -> NDArray[np.int64]:
        """Return what rows count as when they are cut into folds: their classes."""
        return self.table.y[positions]

    def guiding(self, val: Positions, taught: Positions) -> Positions:
        """Return those of the rows `val` that may guide a head: a class without a training row is unknown to it."""
        return val[np.isin(self.table.y[val], self.table.y[taught])]

    def fitted(self, scaler: FeatureScaler, head: Any) -> Fitted:
        """Return a fitted head behind its scaling."""
        return Fitted(self.table, scaler, head, self.block_bytes, self.origin)

    def try_settings(self, estimator: Any, rows: Parts, search: str | None, cv: int | None) -> Tried:
        """Score `estimator` as it is with `cv` folds of train, and the alternatives that `search` names.

        Folds choose among alternatives where they are asked for, else the validation rows do.
        """
        if search is None and cv is None:
            return Tried()
        settings = estimator.get_params()
        grid = {} if search is None else parse_search(search, settings)
        for name in grid.keys() - settings.keys():
            raise OptionError(f"Head {self.head_name!r} has no setting {name!r} to search. Its settings: featx heads")
        if cv is not None:
            folds = self._folds(rows.train, cv)
        elif len(rows.val):
            folds = [(rows.train, rows.val)]
        else:
            raise OptionError("--search chooses on validation rows, and there are none. Give --val 0.1 or --cv 5.")
        trials = grid_search(self.score, estimator, grid, folds, self.chooses.name)
        best = max(trials, key=lambda trial: self.chooses.sign * trial.score)  # of equals the first
        return Tried(
            best.settings,
            search=None if search is None else tuple(trials),
            cv=None if cv is None else best,
        )

    def score(self, estimator: Any, fold: tuple[Positions, Positions]) -> float:
        """Return the metric that chooses on the second rows of `fold`, after a fit on the first and all their views."""
        taught, held = fold
        score = self.chooses.of(*self.fit(estimator, taught, held[:0]).outputs(held))
        if math.isnan(score):
            raise DataError(
                f"{self.chooses.name} is not defined on {len(held):,} rows held out: they have too few different "
                "labels. Hold out more: --val 0.3, or fewer folds"
            )
        return score

    def _folds(self, train: Positions, k: int) -> list[tuple[Positions, Positions]]:
        """Cut plain rows into `k` stratified folds of positions; rows of one group or of one content share a fold."""
        from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

        y = self.strata(train)
        rarest = int(np.bincount(y)[np.unique(y)].min())
        if not 2 <= k <= rarest:
            raise OptionError(
                f"--cv takes 2 to {rarest} folds here, the rows of the rarest class in train; got {k}."
                if rarest > 1
                else "--cv needs two rows of each class in train, and a class has one. Leave out --cv."
            )
        groups = row_groups(self.table, train)
        if self.table.times is not None:
            return _forward(train, self.table.times[train], groups, k)
        if (n_groups := len(np.unique(groups))) < k:
            raise OptionError(f"--cv {k} needs {k} groups of images in train, and there are {n_groups}.")
        if n_groups == len(groups):  # the same folds, without seconds for groups of one row
            folds = StratifiedKFold(k, shuffle=True, random_state=self.seed).split(groups, y)
        else:
            folds = StratifiedGroupKFold(k, shuffle=True, random_state=self.seed).split(groups, y, groups)
        return [(train[fitted], train[held]) for fitted, held in folds]

    def _whole(self, positions: Positions, estimator: Any) -> NDArray[Any]:
        """Read rows at once, for those who cannot stream."""
        if len(self.table.shape) > 2 and not isinstance(estimator, MapClassifier):
            raise DataError(
                f"Head {self.head_name!r} needs one vector an image, got maps of {self.table.shape[1:]}. "
                "Extract with --pool avg or --pool flatten, or fit --head conv."
            )
        # Once as it is and once scaled, in float32.
        n_bytes = len(positions) * math.prod(self.table.shape[1:]) * (self.table.dtype.itemsize + 4)
        if self.memory is not None and n_bytes > self.memory:
            raise OptionError(
                f"This fit reads the table whole and needs {n_bytes / 2**30:.1f} GiB, more than --memory allows. "
                "Raise it, or fit a head of featx, which streams: featx heads"
            )
        return self.table[positions]


def _forward(
    train: Positions, times: NDArray[np.float64], groups: Positions, k: int
) -> list[tuple[Positions, Positions]]:
    """Cut rows into `k` folds that are fitted on earlier rows alone; rows of one moment share a fold.

    Rows whose group began before are held out of no fold: they would be known.
    """
    known = np.where(np.isnan(times), -np.inf, times)
    moments, of = np.unique(known, return_inverse=True)
    if len(moments) <= k:
        raise OptionError(f"--cv {k} needs {k + 1} moments of time in train, and there are {len(moments)}.")
    share = np.cumsum(np.bincount(of)) / len(of)
    ends = np.searchsorted(share, np.arange(1, k + 1) / (k + 1))  # the last moment of each part but the last
    part = np.searchsorted(np.unique(ends), of, side="left")
    folds = []
    for number in range(1, int(part.max()) + 1):
        fitted = part < number
        held = (part == number) & ~np.isin(groups, groups[fitted])
        if held.any():
            folds.append((train[fitted], train[held]))
    if len(folds) < 2:
        raise OptionError(
            f"--cv {k}: nearly every group goes on from the first rows to the last, so none can be held out."
        )
    return folds
