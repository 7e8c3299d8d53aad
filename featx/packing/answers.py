"""What a model does with rows, as a module of PyTorch: scaling, head, calibration, familiarity; the mean of several."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from featx.model.scores import NEIGHBOUR, OODScore
from featx.model.vote import Vote
from featx.packing.heads import labels_of, numbers_of, scores_of, units

if TYPE_CHECKING:
    from featx.model import Model
    from featx.model.scaling import FeatureScaler
    from featx.model.scores import Calibration


class Answers(nn.Module):
    """From rows to probabilities or numbers, and to familiarity where the model knows it.

    Parameters
    ----------
    model : Model

    Raises
    ------
    OptionError
        If its head is none of those that can be packed.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        if isinstance(model.head, Vote):
            self.says: nn.Module = _Mean(model.head)
            return
        said: nn.Module
        if model.outputs is None:
            scores = scores_of(model.head, model.head_name)
            codes = np.asarray(model.head.classes_, dtype=np.intp)
            said = nn.Sequential(scores, _Calibrated(model.calibration, codes, len(model.classes)))
        elif model.outputs.task == "multilabel":
            said = labels_of(model.head, model.head_name)
        else:
            said = numbers_of(model.head, model.head_name)
        ood = _Familiarity(model.ood) if isinstance(model.ood, OODScore) else None
        self.says = _Said(Scaling(model.scaler), said, ood)

    def forward(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Return probabilities or numbers (n, k), and familiarity (n,), of rows (n, …), all float32."""
        return tuple(found.float() for found in self.says(rows))


class _Said(nn.Module):
    def __init__(self, scaling: nn.Module, said: nn.Module, familiarity: nn.Module | None) -> None:
        super().__init__()
        self.scaling, self.said, self.familiarity = scaling, said, familiarity

    def forward(self, rows: Tensor) -> tuple[Tensor, ...]:
        scaled = self.scaling(rows)
        found = self.said(scaled.flatten(1))
        return (found,) if self.familiarity is None else (found, self.familiarity(scaled))


class _Mean(nn.Module):
    """What several models say, averaged: `featx.model.vote.Vote`."""

    def __init__(self, vote: Vote) -> None:
        super().__init__()
        self.models = nn.ModuleList(Answers(voter.model) for voter in vote.voters)
        self.weights = [voter.weight for voter in vote.voters]
        self.knows_familiarity = vote.knows_familiarity
        for number, voter in enumerate(vote.voters):
            columns = None if voter.columns is None else torch.from_numpy(np.asarray(voter.columns, np.int64))
            self.register_buffer(f"columns_{number}", columns)

    def forward(self, rows: Tensor) -> tuple[Tensor, ...]:
        sums: list[Any] = [0.0, 0.0]
        for number, (model, weight) in enumerate(zip(self.models, self.weights, strict=True)):
            columns: Tensor | None = getattr(self, f"columns_{number}")
            said = model(rows if columns is None else rows[:, columns])
            for place, found in enumerate(said):
                sums[place] = sums[place] + weight * found.double()
        return tuple(sums if self.knows_familiarity else sums[:1])


class Scaling(nn.Module):
    """A fitted `featx.model.scaling.FeatureScaler`."""

    mean: Tensor
    scale: Tensor

    def __init__(self, scaler: FeatureScaler) -> None:
        super().__init__()
        self.kind = scaler.kind
        self.widths: list[int] = []
        if self.kind == "standard":
            self.register_buffer("mean", torch.from_numpy(np.asarray(scaler.mean_, np.float32)))
            self.register_buffer("scale", torch.from_numpy(np.asarray(scaler.scale_, np.float32)))
        elif hasattr(scaler, "widths_"):
            self.widths, self.weights = scaler.widths_.tolist(), scaler.weights_.tolist()

    def forward(self, rows: Tensor) -> Tensor:
        """Return rows (n, …) scaled."""
        if self.kind == "standard":
            return (rows - self.mean) / self.scale
        if self.widths:
            parts = zip(self.weights, rows.split_with_sizes(self.widths, 1), strict=True)
            return torch.cat([weight * units(part) for weight, part in parts], 1)
        return units(rows.flatten(1)).reshape(rows.shape) if self.kind == "l2" else rows


class _Calibrated(nn.Module):
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
        scores = scores.double()
        scores = scores - scores.amax(1, keepdim=True)
        if self.floor >= sys.float_info.min:  # the smallest number there is stands for none
            scores = torch.log(torch.exp(scores) + self.floor)  # no score is above 0
        found = torch.softmax(scores / self.temperature, 1)
        return torch.cat([found, torch.zeros_like(found[:, :1])], 1)[:, self.columns]


class _Familiarity(nn.Module):
    """Which share of known rows is as far from the training rows, or farther: `featx.model.scores.OODScore`."""

    units: Tensor
    distances: Tensor

    def __init__(self, ood: OODScore) -> None:
        super().__init__()
        self.register_buffer("units", torch.from_numpy(ood.units))
        self.register_buffer("distances", torch.from_numpy(np.asarray(ood.distances, np.float32)))

    def forward(self, rows: Tensor) -> Tensor:
        similarities = units(rows.flatten(1)) @ self.units.float().T
        own = 1 - similarities.topk(NEIGHBOUR).values[:, -1:]
        return 1 - (self.distances < own).float().mean(1)
