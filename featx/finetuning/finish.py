"""From a trained network to a `Model`: an ordinary one, whose backbone travels with it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from featx import backbones
from featx.engines import open_engine
from featx.features import Features
from featx.finetuning.settings import head_name
from featx.finetuning.training import computed
from featx.images import prepare
from featx.model import Accuracy, FitReport, Model
from featx.model.inputs import Input
from featx.model.network import network_of, unpacked
from featx.model.rows import given_groups
from featx.model.scaling import FeatureScaler
from featx.model.scores import MOST_REFERENCES, MOST_ROWS, Calibration, OODScore
from featx.probe import measure

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from featx.finetuning.network import Trainable
    from featx.finetuning.settings import FineTune
    from featx.finetuning.sources import BatchSource
    from featx.heads import ConvHead, DenseHead
    from featx.heads.training import Trainer
    from featx.model.rows import Parts
    from featx.recipe import Request

#: Points that curves over iterations keep; of more, neighbours are averaged.
MOST_POINTS = 2000


def make_model(
    trainer: Trainer,
    trainable: Trainable,
    head: DenseHead | ConvHead,
    asked: FineTune,
    source: BatchSource,
    rows: Parts,
) -> Model:
    """Return the model of a finished training; its report holds accuracies and curves.

    Parameters
    ----------
    trainer : Trainer
        At its end. Its network comes back to the CPU.
    trainable : Trainable
        The backbone that was trained.
    head : DenseHead or ConvHead
        To be filled with the trained weights; it knows its classes.
    asked : FineTune
    source : BatchSource
    rows : Parts
    """
    network: Any = trainer.network

    def computed_of(compute: Callable[[Tensor], Tensor], positions: NDArray[np.intp]) -> NDArray[np.float32]:
        return computed(compute, source, positions, size=2 * asked.batch_size, device=str(trainer.device))

    parts = {"train": rows.train, "val": rows.val, "test": rows.test}
    scores = {name: computed_of(network, part) for name, part in parts.items() if len(part)}
    ood = _ood(lambda positions: computed_of(lambda batch: network.body(batch)[0], positions), rows)
    network.to("cpu").to(memory_format=torch.contiguous_format)
    head.keep(network.head)
    head.history_, head.n_iter_ = trainer.state.history, trainer.state.epoch
    name = head_name(asked.backbone, str(head.layers))
    model = Model(
        head=head,
        head_name=name,
        classes=source.classes,
        scaler=FeatureScaler("none"),
        calibration=_calibration(scores.get("val"), source.y[rows.val], head.classes_),
        ood=ood,
        trained_on=source.item_ids[rows.train],
        chosen_on=source.item_ids[rows.val],
        network=network_of(trainable.backbone, trainable.used()),
    )
    accuracies: dict[str, Any] = {
        name: _accuracy(scores.get(name), source, part, head.classes_) for name, part in parts.items()
    }
    report = FitReport(
        head=name,
        temperature=model.calibration.temperature,
        **accuracies,
        chosen={"epoch": _best_epoch(trainer)},
        history=trainer.state.history,
        iterations=thinned(trainer.state.iterations),
    )
    return dataclasses.replace(_with_input(model, asked.request, str(trainer.device)), report=report)


def _with_input(model: Model, asked: Request, device: str) -> Model:
    """Return `model` with what its own network comes to when it is loaded, and computes for the probe images."""
    with unpacked(asked, model.network) as request:
        saved, (recipe,) = backbones.resolve(request)
    (probe,) = measure(prepare, open_engine(saved, [recipe], engine="eager", device=device, n_images=1), recipe.frame)
    contiguous = {name: np.ascontiguousarray(array) for name, array in probe.items()}  # a file holds no strides
    return dataclasses.replace(model, inputs=(Input(recipe, asked, contiguous),))


def _accuracy(
    scores: NDArray[Any] | None, source: BatchSource, part: NDArray[np.intp], known: NDArray[np.int64]
) -> Accuracy | None:
    if scores is None:
        return None
    return Accuracy.of(known[scores.argmax(axis=1)] == source.y[part], given_groups(source, part))


def _calibration(scores: NDArray[Any] | None, y: NDArray[np.int64], known: NDArray[np.int64]) -> Calibration:
    seen = np.isin(y, known)
    if scores is None or not seen.any():
        return Calibration()
    relative = scores[seen].astype(np.float64)
    return Calibration.fit(relative - relative.max(axis=1, keepdims=True), np.searchsorted(known, y[seen]))


def _ood(features: Callable[[NDArray[np.intp]], NDArray[np.float32]], rows: Parts) -> OODScore | None:
    """Learn what training rows look like to the head, from as many as a model carries."""
    rng = np.random.default_rng(0)
    train = np.sort(rng.permutation(rows.train)[: 2 * MOST_ROWS])
    val = np.sort(rng.permutation(rows.val)[:MOST_REFERENCES])
    table = Features.from_arrays(features(np.concatenate([train, val])))
    order = np.arange(len(table))
    return OODScore.learn(table, FeatureScaler("none"), order[: len(train)], order[len(train) :], seed=0)


def _best_epoch(trainer: Trainer) -> int:
    """Return the epoch, from 1, whose weights the model has."""
    return trainer.state.epoch - int(trainer.state.best[1]) if trainer.best else trainer.state.epoch


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
