"""From a trained network to a `Model`: an ordinary one, whose backbone travels with it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from featx import backbones
from featx.engines import open_engine
from featx.features import Features
from featx.images import prepare
from featx.model import Accuracy, FitReport, Model
from featx.model.network import network_of
from featx.model.scaling import FeatureScaler
from featx.model.scores import MOST_REFERENCES, MOST_ROWS, Calibration, OODScore
from featx.probe import measure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featx.backbones import Backbone
    from featx.finetuning.sources import Source
    from featx.finetuning.training import Training
    from featx.heads import ConvHead, DenseHead
    from featx.model.rows import Rows
    from featx.recipe import Request

#: Points that curves over iterations keep; of more, neighbours are averaged.
MOST_POINTS = 2000


def make_model(
    training: Training,
    backbone: Backbone,
    request: Request,
    head: DenseHead | ConvHead,
    source: Source,
    rows: Rows,
) -> Model:
    """Return the model of a finished training; its report holds accuracies and curves.

    Parameters
    ----------
    training : Training
        At its end.
    backbone : Backbone
        Its module is the one that was trained; it comes back to the CPU.
    request : Request
        Of the backbone as it was.
    head : DenseHead or ConvHead
        To be filled with the trained weights.
    source : Source
    rows : Rows
    """
    parts = {"train": rows.train, "val": rows.val, "test": rows.test}
    scores = {name: training.scores(positions) for name, positions in parts.items()}
    ood = _ood(training, rows)
    training.network.to("cpu").to(memory_format=torch.contiguous_format)
    head.keep(training.network.head)
    head.history_ = training.state.history
    head.n_iter_ = training.state.epoch
    layers = str(head.layers) or "linear"
    model = Model(
        head=head,
        head_name=layers,
        classes=source.classes,
        scaler=FeatureScaler("none"),
        calibration=_calibration(scores["val"], source.y[rows.val], training.known),
        ood=ood,
        request=request,
        trained_on=source.item_ids[rows.train],
        chosen_on=source.item_ids[rows.val],
        network=network_of(backbone, training.trainable.used()),
    )
    accuracies: dict[str, Any] = {
        name: _accuracy(scores[name], source.y[part], training.known) for name, part in parts.items()
    }
    report = FitReport(
        head=layers,
        temperature=model.calibration.temperature,
        **accuracies,
        chosen={"epoch": _best_epoch(training)},
        history=training.state.history,
        iterations=thinned(training.state.iterations),
    )
    return dataclasses.replace(_with_recipe(model), report=report)


def _with_recipe(model: Model) -> Model:
    """Return `model` with what its own network comes to when it is loaded, and computes for the probe images."""
    with model.loadable_request() as request:
        saved, (recipe,) = backbones.resolve(request)
    (probe,) = measure(prepare, open_engine(saved, [recipe], engine="eager", n_images=1), recipe.frame)
    contiguous = {name: np.ascontiguousarray(array) for name, array in probe.items()}  # a file holds no strides
    return dataclasses.replace(model, recipe=recipe, probe=contiguous)


def _accuracy(scores: NDArray[Any], y: NDArray[np.int64], known: NDArray[np.int64]) -> Accuracy | None:
    if not len(y):
        return None
    return Accuracy(len(y), int((known[scores.argmax(axis=1)] == y).sum()))


def _calibration(scores: NDArray[Any], y: NDArray[np.int64], known: NDArray[np.int64]) -> Calibration:
    seen = np.isin(y, known)
    if not seen.any():
        return Calibration()
    relative = scores[seen].astype(np.float64)
    return Calibration.fit(relative - relative.max(axis=1, keepdims=True), np.searchsorted(known, y[seen]))


def _ood(training: Training, rows: Rows) -> OODScore | None:
    """Learn what training rows look like to the head, from as many as a model carries."""
    rng = np.random.default_rng(0)
    train = np.sort(rng.permutation(rows.train)[: 2 * MOST_ROWS])
    val = np.sort(rng.permutation(rows.val)[:MOST_REFERENCES])
    table = Features.from_arrays(training.features(np.concatenate([train, val])))
    order = np.arange(len(table))
    return OODScore.learn(table, FeatureScaler("none"), order[: len(train)], order[len(train) :], seed=0)


def _best_epoch(training: Training) -> int:
    """Return the epoch, from 1, whose weights the model has."""
    return training.state.epoch - int(training.state.best[1]) if training.best else training.state.epoch


def thinned(iterations: dict[str, list[float]]) -> dict[str, list[float]]:
    """Return curves over steps of at most `MOST_POINTS` points, each the mean of neighbours.

    Examples
    --------
    >>> len(thinned({"step": list(range(1, 10001)), "loss": [1.0] * 10000})["loss"])
    2000
    """
    every_step = [name for name in iterations if not name.startswith("val_")]
    n = min(MOST_POINTS, len(iterations["step"]))
    if not n:
        return iterations
    means = {name: [float(part.mean()) for part in np.array_split(iterations[name], n)] for name in every_step}
    return iterations | means
