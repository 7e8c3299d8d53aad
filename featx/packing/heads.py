"""What a fitted head says of rows, as modules of PyTorch: scores of classes, probabilities of labels, numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from featx.errors import OptionError
from featx.heads.boosted import XGBoostHead, XGBoostRegressor
from featx.heads.dense import DenseRegressor, NetworkClassifier
from featx.heads.linear import LinearClassifier
from featx.heads.neighbors import CentroidHead, KNNHead, KNNRegressor
from featx.heads.ridge import RidgeHead, RidgeRegressor
from featx.model.scores import LEAST


def scores_of(head: Any, name: str) -> nn.Module:
    """Return a module that gives the scores (n, m) of scaled rows (n, d), up to a number that all of a row share.

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
        votes = np.diag(head.class_weights()).astype(np.float32)[head.codes_]
        return nn.Sequential(Neighbours(head, votes), _Log())
    if isinstance(head, XGBoostHead):
        return _TreeScores(head)
    if isinstance(head, NetworkClassifier):
        return _network(head)
    raise _refused(head, name)


def labels_of(head: Any, name: str) -> nn.Module:
    """Return a module that gives the probabilities (n, t) of labels of scaled rows (n, d).

    They are those of `featx.model.outputs.Outputs.of`; parameters and errors as of `scores_of`.
    """
    if not getattr(head, "multilabel_", False):  # a single label: the second of two classes
        factor = 1 / head.temperature if isinstance(head, CentroidHead) else 2.0 if isinstance(head, RidgeHead) else 1.0
        return nn.Sequential(scores_of(head, name), _Second(factor))
    if isinstance(head, KNNHead) and isinstance(head.units_, np.ndarray):
        shares = Neighbours(head, head.codes_)
        return shares if head.class_weight is None else nn.Sequential(shares, _Weighed(head))
    if isinstance(head, LinearClassifier):
        return nn.Sequential(_Linear(head), _Sigmoid(2.0 if isinstance(head, RidgeHead) else 1.0))
    if isinstance(head, XGBoostHead):
        return nn.Sequential(_trees(head), _Sigmoid())
    if isinstance(head, NetworkClassifier):
        return nn.Sequential(_network(head), _Sigmoid())
    raise _refused(head, name)


def numbers_of(head: Any, name: str) -> nn.Module:
    """Return a module that gives the numbers (n, t) of scaled rows (n, d), as ``head.predict`` does.

    Parameters and errors as of `scores_of`.
    """
    if isinstance(head, RidgeRegressor):
        return _Linear(head)
    if isinstance(head, KNNRegressor) and isinstance(head.units_, np.ndarray):
        return Neighbours(head, head.targets_)
    if isinstance(head, XGBoostRegressor):
        return nn.Sequential(_trees(head), _Given(head))
    if isinstance(head, DenseRegressor):
        return nn.Sequential(_network(head), _Given(head))
    raise _refused(head, name)


def _refused(head: Any, name: str) -> OptionError:
    why = " whose rows stayed in their table" if isinstance(head, KNNHead | KNNRegressor) else ""
    return OptionError(
        f"A {name} head{why} cannot be packed. These can: logreg, mlp, conv, ridge, lda, svm, centroid, knn, xgboost. "
        "Fit one of them: featx fit --head ridge"
    )


class _Linear(nn.Module):
    coef: Tensor
    intercept: Tensor

    def __init__(self, head: LinearClassifier | RidgeRegressor) -> None:
        super().__init__()
        coef, intercept = np.asarray(head.coef_), np.asarray(head.intercept_)
        if len(coef) == 1 and isinstance(head, LinearClassifier):
            # The score of the second of two classes; that of the first is 0.
            coef, intercept = (np.concatenate([np.zeros_like(one), one]) for one in (coef, intercept))
        self.register_buffer("coef", _tensor(coef))
        self.register_buffer("intercept", torch.from_numpy(intercept))  # of years and prices it is of float64

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
            return units(rows) @ self.centroids.T
        return 2 * rows @ self.centroids.T - self.centroids.square().sum(1)


class Neighbours(nn.Module):
    """The mean of what is known of the nearest training rows.

    Parameters
    ----------
    head : KNNHead or KNNRegressor
        With its rows in memory.
    known : ndarray, shape (n_train, t)
        Of each training row: 1 at its class, its labels, or its numbers.
    """

    rows: Tensor
    known: Tensor

    def __init__(self, head: KNNHead | KNNRegressor, known: np.ndarray) -> None:
        super().__init__()
        assert isinstance(head.units_, np.ndarray)
        self.k = min(head.k, len(known))
        self.temperature = head.temperature if head.weights == "softmax" else None
        self.register_buffer("rows", _tensor(head.units_))
        kept = np.asarray(known, np.float64 if known.itemsize == 8 else np.float32)
        self.register_buffer("known", torch.from_numpy(kept))

    def forward(self, rows: Tensor) -> Tensor:
        """Return the mean (n, t) for scaled rows (n, d)."""
        similarities, nearest = (units(rows) @ self.rows.T).topk(self.k)
        weights = torch.ones_like(similarities)
        if self.temperature is not None:
            weights = torch.exp((similarities - similarities[:, :1]) / self.temperature)
        shares = (weights / weights.sum(1, keepdim=True))[:, :, None].to(self.known.dtype)
        return (shares * self.known[nearest]).sum(1)


class _TreeScores(nn.Module):
    def __init__(self, head: XGBoostHead) -> None:
        super().__init__()
        self.trees = _trees(head)

    def forward(self, rows: Tensor) -> Tensor:
        margins = self.trees(rows)
        if margins.shape[1] == 1:
            margins = torch.cat([torch.zeros_like(margins), margins], 1)
        return torch.log_softmax(margins, 1).clamp(min=math.log(LEAST))


class _Log(nn.Module):
    def forward(self, shares: Tensor) -> Tensor:
        return (shares / shares.sum(1, keepdim=True)).clamp(min=LEAST).log()


class _Weighed(nn.Module):
    """Shares of votes for labels, with the votes for and against each multiplied by a weight."""

    without: Tensor
    having: Tensor

    def __init__(self, head: KNNHead) -> None:
        super().__init__()
        without, having = head.class_weights()
        self.register_buffer("without", _tensor(without))
        self.register_buffer("having", _tensor(having))

    def forward(self, shares: Tensor) -> Tensor:
        having = shares * self.having
        return having / (having + (1 - shares) * self.without).clamp(min=torch.finfo(having.dtype).tiny)


class _Sigmoid(nn.Module):
    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, scores: Tensor) -> Tensor:
        return torch.sigmoid(self.factor * scores.double())


class _Second(nn.Module):
    """The probability of the second of two classes."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, scores: Tensor) -> Tensor:
        return torch.softmax(self.factor * scores.double(), 1)[:, 1:]


class _Given(nn.Module):
    """Numbers in the units from which a regressor has taken them."""

    mean: Tensor
    scale: Tensor

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(np.asarray(head.target_mean_, np.float64)))
        self.register_buffer("scale", torch.from_numpy(np.asarray(head.target_scale_, np.float64)))

    def forward(self, found: Tensor) -> Tensor:
        return self.mean + found.double() * self.scale


def _network(head: Any) -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, head.row_shape_), head.network_module().eval())


def _trees(head: XGBoostHead | XGBoostRegressor) -> nn.Module:
    from featx.packing.trees import Trees

    return Trees(head)


def units(rows: Tensor) -> Tensor:
    """Return rows (n, d) at length 1; rows of zeros stay."""
    lengths = rows.square().sum(1, keepdim=True).sqrt()
    return rows / torch.where(lengths > 0, lengths, 1.0)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float32))
