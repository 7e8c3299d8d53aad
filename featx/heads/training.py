"""How dense and convolutional heads are trained: the loop between a table and a network."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import OptionError
from featx.heads.settings import check_choice, check_number
from featx.heads.solver import as_tensor

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from featx.heads.inputs import Training

OPTIMIZERS = ("adamw", "adam", "adamax", "sgd")
SCHEDULES = ("one-cycle", "cosine", "plateau", "none")
MONITORS = ("val_loss", "val_accuracy", "loss", "accuracy")

#: Updates that a fit with ``epochs="auto"`` makes at least, and epochs at least.
AUTO_UPDATES, AUTO_EPOCHS = 1000, 4

#: Share of a one-cycle schedule in which the rate rises.
WARM_UP = 0.3


@dataclass(frozen=True, kw_only=True)
class Regimen:
    """Settings of a training run; `featx.heads.DenseHead` documents them."""

    optimizer: str
    lr: float
    weight_decay: float
    momentum: float
    eps: float | None
    epochs: int | str
    batch_size: int
    schedule: str
    factor: float
    plateau_patience: int
    min_lr: float
    early_stopping: bool
    patience: int
    min_delta: float
    monitor: str
    label_smoothing: float
    precision: str

    def __post_init__(self) -> None:
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("monitor", self.monitor, MONITORS)
        check_choice("precision", self.precision, ("fp32", "bf16"))
        check_number("lr", self.lr, above=0)
        check_number("weight_decay", self.weight_decay, least=0)
        check_number("momentum", self.momentum, least=0, most=1)
        check_number("batch_size", self.batch_size, least=2, whole=True)
        check_number("label_smoothing", self.label_smoothing, least=0, most=1)
        check_number("patience", self.patience, least=1, whole=True)
        check_number("plateau_patience", self.plateau_patience, least=1, whole=True)
        check_number("factor", self.factor, above=0, most=1)
        if self.epochs != "auto":
            check_number("epochs", self.epochs, least=1, whole=True)

    @property
    def watches_validation(self) -> bool:
        """Whether rows that the network does not train on decide something."""
        return self.monitor.startswith("val_") and (self.early_stopping or self.schedule == "plateau")

    def n_epochs(self, n_rows: int) -> int:
        """Return the epochs to run at most; ``auto`` gives small tables more of them."""
        if self.epochs == "auto":
            return max(AUTO_EPOCHS, math.ceil(AUTO_UPDATES / math.ceil(n_rows / self.batch_size)))
        return int(self.epochs)

    def rate(self, progress: float) -> float:
        """Return the learning rate after a share of the run, 0–1 (Smith and Topin 2018 for one-cycle)."""
        if self.schedule == "one-cycle" and progress < WARM_UP:
            return self.lr * (0.04 + 0.96 * progress / WARM_UP)
        if self.schedule in ("one-cycle", "cosine"):
            start = WARM_UP if self.schedule == "one-cycle" else 0.0
            done = (progress - start) / (1 - start)
            return self.min_lr + (self.lr - self.min_lr) * (1 + math.cos(math.pi * done)) / 2
        return self.lr


@dataclass
class Monitor:
    """Follows one column of the history: the best epoch, its weights, and how long ago it was."""

    regimen: Regimen
    best: float = -math.inf
    stale: int = 0
    weights: dict[str, Any] = field(default_factory=dict)

    def better(self, history: dict[str, list[float]]) -> bool:
        """Whether the last epoch is the best so far by more than ``min_delta``."""
        name = self.regimen.monitor if self.regimen.monitor in history else self.regimen.monitor.removeprefix("val_")
        value = history[name][-1] if name.endswith("accuracy") else -history[name][-1]
        if value > self.best + self.regimen.min_delta:
            self.best, self.stale = value, 0
            return True
        self.stale += 1
        return False


def train(
    network: nn.Sequential, training: Training, validation: Training | None, regimen: Regimen, *, seed: int, device: str
) -> dict[str, list[float]]:
    """Train `network` in place and return its history.

    Parameters
    ----------
    network : Sequential
        On `device`, float32.
    training, validation : Training
        Rows learned from, and rows only looked at.
    regimen : Regimen
    seed : int
        Decides the order of rows; the caller seeds torch for dropout.
    device : str

    Returns
    -------
    dict of str to list of float
        ``loss``, ``accuracy`` (running means over the epoch, as Keras shows them), ``lr``, and with
        `validation` also ``val_loss``, ``val_accuracy``; one entry an epoch.
    """
    optimizer = make_optimizer(network, regimen)
    epochs = regimen.n_epochs(len(training.rows))
    columns = ["loss", "accuracy", "lr"] + (["val_loss", "val_accuracy"] if validation else [])
    history: dict[str, list[float]] = {name: [] for name in columns}
    monitor, plateau = Monitor(regimen), Monitor(regimen)
    scale = 1.0
    source = Batches(training, device)
    for epoch in range(epochs):
        means = run_epoch(
            network, source, optimizer, regimen, seed=seed + epoch, span=(epoch / epochs, 1 / epochs), scale=scale
        )
        if not math.isfinite(means[0]):
            raise OptionError(
                f"The loss is no longer a number after {epoch + 1} epochs. Lower lr, it is {regimen.lr:g}."
            )
        if validation:
            means += evaluate(network, validation, regimen, device)
        history["lr"].append(optimizer.param_groups[0]["lr"])
        for name, value in zip([c for c in columns if c != "lr"], means, strict=True):
            history[name].append(value)
        if regimen.early_stopping and monitor.better(history):
            monitor.weights = copy.deepcopy(network.state_dict())
        if regimen.early_stopping and monitor.stale >= regimen.patience:
            break
        if regimen.schedule == "plateau" and not plateau.better(history) and plateau.stale >= regimen.plateau_patience:
            scale, plateau.stale = scale * regimen.factor, 0
    if monitor.weights:
        network.load_state_dict(monitor.weights)
    return history


def make_optimizer(network: nn.Sequential, regimen: Regimen) -> torch.optim.Optimizer:
    """Return the optimiser of a head; weight decay holds for matrices and filters, not for biases and normalisation."""
    matrices = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": regimen.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return optimizer_of(groups, regimen, nesterov=regimen.momentum > 0)


def optimizer_of(groups: list[dict[str, Any]], regimen: Regimen, *, nesterov: bool) -> torch.optim.Optimizer:
    """Return the optimiser that `regimen` names over groups of parameters, which bring their own weight decay."""
    import torch

    options: dict[str, Any] = {"lr": regimen.lr}
    if regimen.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=regimen.momentum, nesterov=nesterov, fused=True, **options)
    if regimen.eps is not None:
        options["eps"] = regimen.eps
    if regimen.optimizer == "adamax":
        return torch.optim.Adamax(groups, foreach=True, **options)
    kind = torch.optim.Adam if regimen.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, fused=True, **options)


def run_epoch(
    network: nn.Sequential,
    source: Batches,
    optimizer: torch.optim.Optimizer,
    regimen: Regimen,
    *,
    seed: int,
    span: tuple[float, float] = (0.0, 0.0),
    scale: float = 1.0,
) -> list[float]:
    """Pass over the rows once and return the mean loss and the accuracy, weighted as the rows are.

    `span` is where in the whole run (0–1) the epoch begins, and its length; `scale` multiplies the rate.
    """
    import torch

    network.train()
    sums, seen = torch.zeros(3, device=source.device), 0  # of losses, of right rows, of weights
    for X, codes, weights in source.batches(regimen.batch_size, seed):
        rate = max(regimen.rate(span[0] + span[1] * seen / len(source)) * scale, min(regimen.min_lr, regimen.lr))
        for group in optimizer.param_groups:
            group["lr"] = rate
        with _autocast(regimen, X):
            scores = network(X)
        losses = torch.nn.functional.cross_entropy(
            scores.float(), codes, reduction="none", label_smoothing=regimen.label_smoothing
        )
        optimizer.zero_grad(set_to_none=True)
        (losses * weights).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            sums += torch.stack([losses, scores.argmax(1) == codes, torch.ones_like(weights)]) @ weights
        seen += len(X)
    loss, correct, total = sums.tolist()
    return [loss / total, correct / total]


def evaluate(network: nn.Sequential, validation: Training, regimen: Regimen, device: str) -> list[float]:
    """Return the mean loss and the accuracy on rows that are not trained on."""
    import torch

    network.eval()
    sums = torch.zeros(3, device=device, dtype=torch.float64)
    with torch.inference_mode():
        for X, codes, weights in Batches(validation, device).in_order():
            with _autocast(regimen, X):
                scores = network(X)
            losses = torch.nn.functional.cross_entropy(scores.float(), codes, reduction="none")
            sums += torch.stack([losses, scores.argmax(1) == codes, torch.ones_like(weights)]) @ weights
    loss, correct, total = sums.tolist()
    return [loss / total, correct / total]


def _autocast(regimen: Regimen, X: Tensor) -> Any:
    import torch

    return torch.autocast(X.device.type, torch.bfloat16) if regimen.precision == "bf16" else nullcontext()


class Batches:
    """Batches (rows, class indices, weights with mean 1) straight from a table, without workers between."""

    def __init__(self, training: Training, device: str) -> None:
        import torch

        self.rows, self.device = training.rows, device
        self.codes = torch.from_numpy(training.codes).to(device)
        self.weights = torch.from_numpy(training.weights / training.weights.mean()).to(device, torch.float32)
        self.resident = (
            as_tensor(self.rows.source, device).float() if isinstance(self.rows.source, np.ndarray) else None
        )

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield all rows in an order that `seed` decides, in batches of nearly equal size.

        A block of a single row, the last of a streamed table may be one, waits for another seed.
        """
        import torch

        shuffle = np.random.default_rng(seed)
        for indices, X in self._parts(seed):
            if len(X) == 1 < len(self):
                continue  # batch normalisation has no variance of one row
            order = torch.from_numpy(shuffle.permutation(len(X))).to(self.device)
            codes, weights = self.codes[indices], self.weights[indices]
            # Equal parts: a rest of one row would leave batch normalisation without a variance.
            for chosen in torch.tensor_split(order, math.ceil(len(X) / batch_size)):
                yield X.index_select(0, chosen), codes[chosen], weights[chosen]

    def in_order(self, batch_size: int = 4096) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield all rows as they stand."""
        for indices, X in self._parts(None):
            codes, weights = self.codes[indices], self.weights[indices]
            for start in range(0, len(X), batch_size):
                part = slice(start, start + batch_size)
                yield X[part], codes[part], weights[part]

    def _parts(self, seed: int | None) -> Iterator[tuple[Any, Tensor]]:
        if self.resident is not None:
            yield slice(None), self.resident
            return
        for indices, block in self.rows.blocks(shuffle=seed is not None, seed=seed or 0):
            yield indices, as_tensor(block, self.device).float()
