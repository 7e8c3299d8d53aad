"""What a model does with a row, as modules of PyTorch: scaling, the head's scores, calibration, familiarity."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from featx.errors import OptionError
from featx.heads.boosted import XGBoostHead
from featx.heads.dense import NetworkClassifier
from featx.heads.linear import LinearClassifier
from featx.heads.neighbors import CentroidHead, KNNHead
from featx.model.scores import LEAST, NEIGHBOUR, OODScore

if TYPE_CHECKING:
    from featx.model import Model
    from featx.model.scaling import FeatureScaler
    from featx.model.scores import Calibration


class Scaling(nn.Module):
    """A fitted `featx.model.scaling.FeatureScaler`."""

    mean: Tensor
    scale: Tensor

    def __init__(self, scaler: FeatureScaler) -> None:
        super().__init__()
        self.kind = scaler.kind
        if self.kind == "standard":
            self.register_buffer("mean", _tensor(scaler.mean_))
            self.register_buffer("scale", _tensor(scaler.scale_))

    def forward(self, rows: Tensor) -> Tensor:
        """Return rows (n, …) scaled."""
        if self.kind == "standard":
            return (rows - self.mean) / self.scale
        return _units(rows.flatten(1)).reshape(rows.shape) if self.kind == "l2" else rows


def scores_of(head: Any, name: str) -> nn.Module:
    """Return a module that gives the scores (n, m) of scaled rows, up to a number that all of a row share.

    They are those of `featx.model.scores.relative_scores`.

    Parameters
    ----------
    head : classifier
        Fitted.
    name : str
        As the user calls it.

    Raises
    ------
    OptionError
        If the head is of another kind, or consists of rows that stayed in their table.
    """
    if isinstance(head, LinearClassifier):
        return _Linear(head)
    if isinstance(head, CentroidHead):
        return _Centroids(head)
    if isinstance(head, KNNHead) and isinstance(head.units_, np.ndarray):
        return _Neighbours(head)
    if isinstance(head, XGBoostHead):
        return _Trees(head)
    if isinstance(head, NetworkClassifier):
        return nn.Sequential(nn.Unflatten(1, head.row_shape_), head.network_module().eval())
    why = " whose rows stayed in their table" if isinstance(head, KNNHead) else ""
    raise OptionError(
        f"A {name} head{why} cannot be packed. These can: logreg, mlp, conv, ridge, svm, centroid, knn, xgboost. "
        "Fit one of them: featx fit --head logreg"
    )


class Calibrated(nn.Module):
    """From scores to probabilities of all classes of a model: `featx.model.scores.Calibration`.

    Parameters
    ----------
    calibration : Calibration
    codes : ndarray of int, shape (m,)
        Which of the model's classes each score is of; the others are never predicted.
    n_classes : int
    """

    columns: Tensor

    def __init__(self, calibration: Calibration, codes: np.ndarray, n_classes: int) -> None:
        super().__init__()
        self.temperature = calibration.temperature
        self.floor = calibration.floor
        columns = np.full(n_classes, len(codes))  # the column behind the last is of zeros
        columns[codes] = np.arange(len(codes))
        self.register_buffer("columns", torch.from_numpy(columns))

    def forward(self, scores: Tensor) -> Tensor:
        """Return probabilities (n, n_classes), float32."""
        scores = scores.double()
        scores = scores - scores.amax(1, keepdim=True)
        if self.floor >= sys.float_info.min:  # the smallest number there is stands for none
            scores = torch.log(torch.exp(scores) + self.floor)  # no score is above 0
        found = torch.softmax(scores / self.temperature, 1)
        return torch.cat([found, torch.zeros_like(found[:, :1])], 1)[:, self.columns].float()


class Familiarity(nn.Module):
    """Which share of known rows is as far from the training rows, or farther: `featx.model.scores.OODScore`."""

    units: Tensor
    distances: Tensor

    def __init__(self, ood: OODScore) -> None:
        super().__init__()
        self.register_buffer("units", torch.from_numpy(ood.units))
        self.register_buffer("distances", _tensor(ood.distances))

    def forward(self, rows: Tensor) -> Tensor:
        """Return the share (n,) for scaled rows (n, …), float32."""
        similarities = _units(rows.flatten(1)) @ self.units.float().T
        own = 1 - similarities.topk(NEIGHBOUR).values[:, -1:]
        return 1 - (self.distances < own).float().mean(1)


class Classifier(nn.Module):
    """From features to probabilities, and to familiarity where the model knows it."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.scaling = Scaling(model.scaler)
        self.scores = scores_of(model.head, model.head_name)
        codes = np.asarray(model.head.classes_, dtype=np.intp)
        self.calibrated = Calibrated(model.calibration, codes, len(model.classes))
        self.familiarity = Familiarity(model.ood) if isinstance(model.ood, OODScore) else None

    def forward(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Return probabilities (n, k), and familiarity (n,), of rows (n, …)."""
        scaled = self.scaling(rows)
        found = self.calibrated(self.scores(scaled.flatten(1)))
        return (found,) if self.familiarity is None else (found, self.familiarity(scaled))


class _Linear(nn.Module):
    coef: Tensor
    intercept: Tensor

    def __init__(self, head: LinearClassifier) -> None:
        super().__init__()
        coef, intercept = _tensor(head.coef_), _tensor(head.intercept_)
        if len(coef) == 1:  # the score of the second of two classes; that of the first is 0
            coef, intercept = (torch.cat([torch.zeros_like(one), one]) for one in (coef, intercept))
        self.register_buffer("coef", coef)
        self.register_buffer("intercept", intercept)

    def forward(self, rows: Tensor) -> Tensor:
        return rows @ self.coef.T + self.intercept


class _Centroids(nn.Module):
    centroids: Tensor

    def __init__(self, head: CentroidHead) -> None:
        super().__init__()
        self.cosine = head.metric == "cosine"
        self.register_buffer("centroids", _tensor(head.centroids_))

    def forward(self, rows: Tensor) -> Tensor:
        if self.cosine:
            return _units(rows) @ self.centroids.T
        return 2 * rows @ self.centroids.T - self.centroids.square().sum(1)


class _Neighbours(nn.Module):
    units: Tensor
    votes: Tensor

    def __init__(self, head: KNNHead) -> None:
        super().__init__()
        assert isinstance(head.units_, np.ndarray)
        self.k = min(head.k, len(head.codes_))
        self.temperature = head.temperature if head.weights == "softmax" else None
        self.register_buffer("units", _tensor(head.units_))
        self.register_buffer("votes", torch.eye(len(head.classes_))[torch.from_numpy(head.codes_)])

    def forward(self, rows: Tensor) -> Tensor:
        similarities, nearest = (_units(rows) @ self.units.T).topk(self.k)
        weights = torch.ones_like(similarities)
        if self.temperature is not None:
            weights = torch.exp((similarities - similarities[:, :1]) / self.temperature)
        shares = (weights[:, :, None] * self.votes[nearest]).sum(1)
        return (shares / shares.sum(1, keepdim=True)).clamp(min=LEAST).log()


class _Trees(nn.Module):
    """Boosted trees, all walked down at once: one step for all rows and trees is three look-ups.

    A leaf is its own two children, so that whoever arrives early waits for the deepest.
    """

    feature: Tensor
    threshold: Tensor
    below: Tensor
    roots: Tensor
    start: Tensor
    mean: Tensor
    axes: Tensor

    def __init__(self, head: XGBoostHead) -> None:
        super().__init__()
        self.n_groups = len(head.classes_) if len(head.classes_) > 2 else 1
        n_trees = (head.best_iteration_ + 1) * self.n_groups
        document = json.loads(bytes(head.booster_.save_raw("json")))
        trees = document["learner"]["gradient_booster"]["model"]["trees"][:n_trees]
        sizes = [len(tree["left_children"]) for tree in trees]
        roots = np.cumsum([0, *sizes[:-1]])
        left, right, feature, threshold = (
            np.concatenate([np.asarray(tree[name]) for tree in trees])
            for name in ("left_children", "right_children", "split_indices", "split_conditions")
        )
        own, shift = np.arange(len(left)), np.repeat(roots, sizes)
        children = np.where(left < 0, own, left + shift), np.where(left < 0, own, right + shift)
        self.depth = _depth(roots, *children)
        self.register_buffer("feature", torch.from_numpy(feature.astype(np.int64)))
        self.register_buffer("threshold", _tensor(threshold))
        self.register_buffer("below", torch.from_numpy(np.stack(children, 1)))
        self.register_buffer("roots", torch.from_numpy(roots))
        if head.mean_ is not None and head.projection_ is not None:
            self.register_buffer("mean", _tensor(head.mean_))
            self.register_buffer("axes", _tensor(head.projection_))
        self.projects = head.projection_ is not None
        self.register_buffer("start", torch.zeros(self.n_groups))
        self.start = _tensor(_start(head, self))

    def forward(self, rows: Tensor) -> Tensor:
        if self.projects:
            rows = torch.round(((rows - self.mean) @ self.axes) * 1e4) / 1e4
        margins = self.margins(rows)
        if self.n_groups == 1:
            margins = torch.cat([torch.zeros_like(margins), margins], 1)
        return torch.log_softmax(margins, 1).clamp(min=math.log(LEAST))

    def margins(self, rows: Tensor) -> Tensor:
        """Return sums of leaves (n, n_groups) of rows as the trees see them."""
        nodes = self.roots + torch.zeros_like(rows[:, :1], dtype=torch.int64)
        for _ in range(self.depth):
            goes_right = rows.gather(1, self.feature[nodes]) >= self.threshold[nodes]
            nodes = torch.where(goes_right, self.below[:, 1][nodes], self.below[:, 0][nodes])
        leaves = self.threshold[nodes].reshape(rows.shape[0], -1, self.n_groups)
        return self.start + leaves.sum(1)


def _depth(roots: np.ndarray, left: np.ndarray, right: np.ndarray) -> int:
    """Return how many steps lead from the roots to the farthest leaf."""
    level, depth = roots, 0
    while len(level := level[left[level] != level]):
        level, depth = np.concatenate([left[level], right[level]]), depth + 1
    return depth


def _start(head: XGBoostHead, trees: _Trees) -> np.ndarray:
    """Return what XGBoost adds to the sums of leaves: its files say that in another way from version to version."""
    columns = head.n_features_in_ if head.projection_ is None else head.projection_.shape[1]
    row = np.zeros((1, columns), np.float32)
    margins = head.booster_.inplace_predict(
        row, iteration_range=(0, head.best_iteration_ + 1), predict_type="margin"
    ).reshape(1, -1)
    with torch.no_grad():
        return np.asarray(margins[0] - trees.margins(torch.from_numpy(row)).numpy()[0])


def _units(rows: Tensor) -> Tensor:
    """Return rows (n, d) at length 1; rows of zeros stay."""
    lengths = rows.square().sum(1, keepdim=True).sqrt()
    return rows / torch.where(lengths > 0, lengths, 1.0)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float32))
