"""One training loop for every network here: dense and convolutional heads, and fine-tuning.

`Training` is the loop; `Trainer` makes its steps by torch, `featx.heads.small.SmallTrainer` in numpy. Who trains brings
a module on its device, its rows as `Batches`, and a `TrainConfig`:

    trainer = Trainer(network, batches, config, seed=0, validation=lambda: held_out.in_order())
    trainer.run(on_progress=show, checkpoint=save)
    trainer.state.history                       # one entry an epoch; the network holds the weights to keep

What else differs is passed in: an ``optimizer`` over groups of parameters whose learning rates have a
``"multiplier"``, ``tensors`` where only a part of the network is trained and worth keeping, ``train_mode`` where
parts stay in evaluation mode, ``every_step`` for curves over steps.

Nothing in a step depends on what ran before but through `TrainState`, the tensors, the optimiser and the scaler: the
order of rows follows from the epoch, dropout from seed and step. So a run that gets these four back from a checkpoint
makes the steps that it would have made.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from featx.errors import OptionError
from featx.heads.criteria import CrossEntropy
from featx.machine import share_cores
from featx.progress import Progress
from featx.settings import check_choice, check_number

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from featx.heads.criteria import Criterion
    from featx.progress import OnProgress

    #: Rows, their targets and their weights (m,), of mean 1 over all rows: tensors on the device, or arrays.
    Batch = tuple[Any, Any, Any]

OPTIMIZERS = ("adamw", "adam", "adamax", "sgd")
SCHEDULES = ("one-cycle", "cosine", "plateau", "none")
MONITORS = ("val_loss", "val_accuracy", "loss", "accuracy")

#: Share of a one-cycle schedule in which the rate rises.
WARM_UP = 0.3


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a network is trained; `featx.heads.DenseHead` documents the settings, ``warmup`` is counted in epochs."""

    optimizer: str
    lr: float
    weight_decay: float
    momentum: float
    eps: float | None
    epochs: int
    batch_size: int
    schedule: str
    factor: float
    plateau_patience: int
    min_lr: float
    early_stopping: bool
    patience: int
    min_delta: float
    monitor: str
    label_smoothing: float = 0.0
    precision: str = "fp32"
    warmup: float = 0.0

    def __post_init__(self) -> None:
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("monitor", self.monitor, MONITORS)
        check_choice("precision", self.precision, ("fp32", "tf32", "bf16", "fp16"))
        check_number("lr", self.lr, above=0)
        check_number("weight_decay", self.weight_decay, least=0)
        check_number("momentum", self.momentum, least=0, most=1)
        check_number("batch_size", self.batch_size, least=2, whole=True)
        check_number("label_smoothing", self.label_smoothing, least=0, most=1)
        check_number("patience", self.patience, least=1, whole=True)
        check_number("plateau_patience", self.plateau_patience, least=1, whole=True)
        check_number("factor", self.factor, above=0, most=1)
        check_number("warmup", self.warmup, least=0)
        check_number("epochs", self.epochs, least=1, whole=True)

    @property
    def watches_validation(self) -> bool:
        """Whether rows that the network does not train on decide something."""
        return self.monitor.startswith("val_") and (self.early_stopping or self.schedule == "plateau")

    def rate(self, progress: float) -> float:
        """Return the learning rate after a share of the run, 0–1 (Smith and Topin 2018 for one-cycle)."""
        if self.schedule == "one-cycle" and progress < WARM_UP:
            return self.lr * (0.04 + 0.96 * progress / WARM_UP)
        if self.schedule in ("one-cycle", "cosine"):
            start = WARM_UP if self.schedule == "one-cycle" else 0.0
            done = (progress - start) / (1 - start)
            return self.min_lr + (self.lr - self.min_lr) * (1 + math.cos(math.pi * done)) / 2
        return self.lr


class Batches(Protocol):
    """The rows that a network learns from.

    Attributes
    ----------
    n_rows : int
    steps_per_epoch : int
        Updates an epoch; the learning rate follows them. An estimate will do where rows come from a stream.
    """

    n_rows: int
    steps_per_epoch: int

    def steps(self, epoch: int, first: int = 0) -> Iterator[tuple[int, Iterable[Batch]]]:
        """Yield, for each update of an epoch from the `first` on, its number of rows and the batches they come in.

        An update of several batches is one of their gradients together, where memory holds no more at a time.
        """


@dataclass
class TrainState:
    """Where a run is, apart from its tensors; all of it is ready for JSON.

    Attributes
    ----------
    epoch, step_in_epoch, step : int
        Finished epochs, and steps made in the current one and in all.
    sums : list of float
        Of the current epoch: of losses, right rows and weights.
    rate_scale : float
        What a plateau schedule has made of the learning rate.
    best, plateau : list of float
        Best value of the monitored column and epochs since, for the best epoch and for the plateau.
    stopped : bool
        Whether early stopping has ended the run.
    seconds : float
        Of training so far.
    history, iterations : dict of str to list of float
        Columns with an entry an epoch, and an entry a step: ``loss``, ``accuracy`` (running means over the epoch, as
        Keras shows them), ``lr`` and, with validation rows, ``val_loss``, ``val_accuracy``.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    rate_scale: float = 1.0
    best: list[float] = field(default_factory=lambda: [-math.inf, 0])
    plateau: list[float] = field(default_factory=lambda: [-math.inf, 0])
    stopped: bool = False
    seconds: float = 0.0
    history: dict[str, list[float]] = field(default_factory=dict)
    iterations: dict[str, list[float]] = field(
        default_factory=lambda: {
            name: [] for name in ("step", "loss", "accuracy", "val_step", "val_loss", "val_accuracy")
        }
    )

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> TrainState:
        """Rebuild a state from its `dataclasses.asdict`."""
        return cls(**{f.name: fields[f.name] for f in dataclasses.fields(cls)})


class Training:
    """The loop over epochs and steps: rates, history, early stopping. What a step is, a subclass says.

    Parameters
    ----------
    batches, config, criterion, validation, keep_best, every_step
        As in `Trainer`.

    Attributes
    ----------
    state : TrainState
    """

    def __init__(
        self,
        batches: Batches,
        config: TrainConfig,
        *,
        criterion: Criterion | None = None,
        validation: Callable[[], Iterable[Batch]] | None = None,
        keep_best: bool = False,
        every_step: bool = False,
    ) -> None:
        self.batches, self.config, self.criterion = batches, config, criterion or CrossEntropy()
        self.state = TrainState()
        self._validation, self._keep_best, self._every_step = validation, keep_best, every_step

    def run(
        self,
        on_progress: OnProgress | None = None,
        checkpoint: Callable[[], None] | None = None,
        checkpoint_seconds: float = 300.0,
    ) -> None:
        """Train from where `state` is to the end, and leave the network in evaluation mode.

        Parameters
        ----------
        on_progress : callable, optional
            Called with a `Progress` after each step.
        checkpoint : callable, optional
            Called after each epoch, and in an epoch every so many seconds.
        checkpoint_seconds : float

        Raises
        ------
        OptionError
            If the loss is no longer a number.
        """
        with self._alone():
            while self.state.epoch < self.config.epochs and not self.state.stopped:
                self._run_epoch(on_progress, checkpoint, checkpoint_seconds)
                self._end_epoch()
                if checkpoint is not None:
                    checkpoint()
        self._finish()

    def evaluate(self, batches: Iterable[Batch]) -> tuple[float, float]:
        """Return the mean loss and the accuracy on rows that are not trained on, weighted as the rows are."""
        raise NotImplementedError

    def _alone(self) -> AbstractContextManager[None]:
        """Return the context of a run, after which the process is as it was."""
        raise NotImplementedError

    def _start_epoch(self) -> None:
        """Make the network ready for steps."""

    def _array(self, values: list[float]) -> Any:
        """Return float64 numbers where the steps are made."""
        raise NotImplementedError

    def _step(self, n_rows: int, batches: Iterable[Batch]) -> Any:
        """Make one update; return the sums of losses, right rows and weights."""
        raise NotImplementedError

    def _keep(self) -> None:
        """Remember the weights of the best epoch so far."""
        raise NotImplementedError

    def _finish(self) -> None:
        """End with the weights that were kept, if any were."""
        raise NotImplementedError

    def _last_rate(self) -> float:
        """Return the learning rate of the last step."""
        raise NotImplementedError

    def _run_epoch(self, on_progress: OnProgress | None, checkpoint: Callable[[], None] | None, seconds: float) -> None:
        """Make the steps that are left of the current epoch."""
        state = self.state
        self._start_epoch()
        started, saved = time.perf_counter() - state.seconds, time.perf_counter()
        sums = self._array(state.sums)
        for n_rows, batches in self.batches.steps(state.epoch, state.step_in_epoch):
            share_cores()
            step = self._step(n_rows, batches)
            sums += step
            state.step_in_epoch, state.step = state.step_in_epoch + 1, state.step + 1
            if self._every_step:
                loss, correct, total = step.tolist()
                self._note(step=state.step, loss=loss / total, accuracy=correct / total)
            state.seconds = time.perf_counter() - started
            due = checkpoint is not None and time.perf_counter() - saved >= seconds
            if due or self._every_step:
                state.sums = sums.tolist()
            if on_progress is not None:
                on_progress(self._progress())
            if checkpoint is not None and due:
                checkpoint()
                saved = time.perf_counter()
        state.sums = sums.tolist()

    def _rate(self) -> float:
        """Return the learning rate of the coming step: it rises through the warm-up, then follows the schedule."""
        state, config, per_epoch = self.state, self.config, self.batches.steps_per_epoch
        warmup = round(config.warmup * per_epoch)
        if state.step < warmup:
            return config.lr * (state.step + 1) / (warmup + 1)
        done = state.epoch * per_epoch + min(state.step_in_epoch, per_epoch) - warmup
        rate = config.rate(done / (self.config.epochs * per_epoch - warmup)) * state.rate_scale
        return max(rate, min(config.min_lr, config.lr))

    def _end_epoch(self) -> None:
        """Note the epoch, look at the validation rows, and decide about weights, rate and end."""
        state, config = self.state, self.config
        loss, correct, total = state.sums
        if not math.isfinite(loss):
            raise OptionError(
                f"The loss is no longer a number after {state.epoch + 1} epochs. Lower lr, now {config.lr:g}: "
                f"--lr {config.lr / 10:g}, for a head --set lr={config.lr / 10:g}."
            )
        noted = {"loss": loss / total, "accuracy": correct / total, "lr": self._last_rate()}
        if self._validation is not None:
            noted["val_loss"], noted["val_accuracy"] = self.evaluate(self._validation())
            self._note(val_step=state.step, val_loss=noted["val_loss"], val_accuracy=noted["val_accuracy"])
        if not self.criterion.has_accuracy:
            noted = {name: value for name, value in noted.items() if not name.endswith("accuracy")}
        for name, value in noted.items():
            state.history.setdefault(name, []).append(value)
        state.epoch, state.step_in_epoch, state.sums = state.epoch + 1, 0, [0.0, 0.0, 0.0]
        if self._is_better(state.best) and self._keep_best:
            self._keep()
        state.stopped = config.early_stopping and state.best[1] >= config.patience
        if config.schedule == "plateau" and not self._is_better(state.plateau):
            self._slow_down()

    def _slow_down(self) -> None:
        if self.state.plateau[1] >= self.config.plateau_patience:
            self.state.rate_scale, self.state.plateau[1] = self.state.rate_scale * self.config.factor, 0

    def _is_better(self, kept: list[float]) -> bool:
        """Hold the last epoch against the best so far, and keep the outcome: [best, epochs since]."""
        history, name = self.state.history, self.config.monitor
        name = name if name in history else name.removeprefix("val_")
        value = history[name][-1] if name.endswith("accuracy") else -history[name][-1]
        better = value > kept[0] + self.config.min_delta
        kept[:] = [value, 0] if better else [kept[0], kept[1] + 1]
        return better

    def _note(self, **values: float) -> None:
        for name, value in values.items():
            self.state.iterations[name].append(value)

    def _progress(self) -> Progress:
        total = self.batches.n_rows * self.config.epochs
        done = total * self.state.step // max(1, self.config.epochs * self.batches.steps_per_epoch)
        return Progress(
            f"epoch {self.state.epoch + 1}/{self.config.epochs}", min(done, total), total, self.state.seconds
        )


class Trainer(Training):
    """A network in training by torch.

    Parameters
    ----------
    network : torch.nn.Module
        On its device, float32; from rows to scores (m, k).
    batches : Batches
        Rows learned from.
    config : TrainConfig
    seed : int
        Of what the network draws, with the number of the step.
    criterion : Criterion, optional
        What is made small; by default the cross-entropy of classes.
    validation : callable, optional
        Returns the batches of rows that are only looked at, for ``val_loss`` and ``val_accuracy``.
    optimizer : torch.optim.Optimizer, optional
        By default `make_optimizer` of all parameters.
    tensors : callable, optional
        Returns, by name, every tensor that training changes; by default the network's state dict. The best epoch's
        are kept, and a checkpoint holds them.
    train_mode : callable, optional
        Puts the network into training mode; by default ``network.train``.
    keep_best : bool
        Whether to end with the tensors of the best epoch instead of the last.
    every_step : bool
        Whether ``state.iterations`` is filled, which waits for the device in every step.

    Attributes
    ----------
    state : TrainState
    best : dict of str to Tensor
        What `tensors` were after the best epoch; empty before the first.
    optimizer : torch.optim.Optimizer
    scaler : torch.amp.GradScaler
        Of gradients, for ``precision="fp16"``.
    """

    def __init__(
        self,
        network: nn.Module,
        batches: Batches,
        config: TrainConfig,
        *,
        seed: int,
        criterion: Criterion | None = None,
        validation: Callable[[], Iterable[Batch]] | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        tensors: Callable[[], dict[str, Tensor]] | None = None,
        train_mode: Callable[[], object] | None = None,
        keep_best: bool = False,
        every_step: bool = False,
    ) -> None:
        import torch

        super().__init__(
            batches, config, criterion=criterion, validation=validation, keep_best=keep_best, every_step=every_step
        )
        self.network = network
        self.best: dict[str, Tensor] = {}
        self.tensors = tensors or network.state_dict
        self.optimizer = optimizer or make_optimizer(network, config)
        self.device = next(network.parameters()).device
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")
        self._seed, self._train_mode = seed, train_mode or network.train

    def _alone(self) -> AbstractContextManager[None]:
        return forked_seeds(self.device)

    def _start_epoch(self) -> None:
        self._train_mode()

    def _array(self, values: list[float]) -> Tensor:
        import torch

        return torch.tensor(values, dtype=torch.float64, device=self.device)

    def _keep(self) -> None:
        self.best = {name: tensor.clone() for name, tensor in self.tensors().items()}

    def _finish(self) -> None:
        import torch

        with torch.no_grad():
            for name, tensor in self.tensors().items():
                tensor.copy_(self.best.get(name, tensor))
        self.network.eval()

    def evaluate(self, batches: Iterable[Batch]) -> tuple[float, float]:
        """Return loss and accuracy, see `Training.evaluate`."""
        import torch

        self.network.eval()
        sums = torch.zeros(3, device=self.device, dtype=torch.float64)
        with torch.inference_mode():
            for X, targets, weights in batches:
                scores = self.scores(X)
                sums += self._sums(self.criterion.losses(scores, targets), scores, targets, weights)
        loss, correct, total = sums.tolist()
        return loss / total, correct / total

    def scores(self, X: Tensor) -> Tensor:
        """Return the network's scores of a batch, computed in the config's precision, as float32."""
        scores: Tensor
        with self.autocast():
            scores = self.network(X)
        return scores.float()

    def autocast(self) -> Any:
        """Return the context in which the network computes in the config's precision."""
        import torch

        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.config.precision)
        return contextlib.nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)

    def _step(self, n_rows: int, batches: Iterable[Batch]) -> Tensor:
        import torch

        self._seed_step()
        rate = self._rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("multiplier", 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        sums = torch.zeros(3, device=self.device)
        for X, targets, weights in batches:
            scores = self.scores(X)
            losses = self.criterion.losses(scores, targets, self.config.label_smoothing)
            self.scaler.scale((losses @ weights) / n_rows).backward()
            with torch.no_grad():
                sums += self._sums(losses, scores, targets, weights)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return sums

    def _seed_step(self) -> None:
        """Seed what the network draws in this step."""
        seed_draws(self.device, int(np.random.SeedSequence((self._seed, self.state.step)).generate_state(1)[0]))

    def _sums(self, losses: Tensor, scores: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Return the weighted sums of losses and of right rows, and that of the weights."""
        import torch

        return torch.stack([losses, self.criterion.right(scores, targets), torch.ones_like(weights)]) @ weights

    def _last_rate(self) -> float:
        group = self.optimizer.param_groups[-1]
        multiplier = group.get("multiplier", 1.0)
        return float(group["lr"] / multiplier) if multiplier else 0.0


def make_optimizer(
    network: nn.Module | None,
    config: TrainConfig,
    groups: list[dict[str, Any]] | None = None,
    *,
    nesterov: bool | None = None,
) -> torch.optim.Optimizer:
    """Return the optimiser that `config` names.

    Parameters
    ----------
    network : torch.nn.Module
    config : TrainConfig
    groups : list of dict, optional
        Groups of parameters that bring their own weight decay, and perhaps a ``"multiplier"`` of the learning rate.
        By default all of the network's, where weight decay holds for matrices and filters, not for biases and
        normalisation.
    nesterov : bool, optional
        For ``sgd``; by default wherever there is momentum.
    """
    import torch

    if groups is None:
        assert network is not None
        matrices = [p for p in network.parameters() if p.ndim > 1]
        vectors = [p for p in network.parameters() if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    options: dict[str, Any] = {"lr": config.lr}
    if config.optimizer == "sgd":
        nesterov = config.momentum > 0 if nesterov is None else nesterov
        return torch.optim.SGD(groups, momentum=config.momentum, nesterov=nesterov, fused=True, **options)
    if config.eps is not None:
        options["eps"] = config.eps
    if config.optimizer == "adamax":
        return torch.optim.Adamax(groups, foreach=True, **options)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, fused=True, **options)


@contextlib.contextmanager
def forked_seeds(device: torch.device | str, seed: int | None = None) -> Iterator[None]:
    """Leave torch's random state as it was, that of the CPU and of `device`; other devices are not touched."""
    import torch

    with torch.random.fork_rng([device] if torch.device(device).type == "cuda" else []):
        if seed is not None:
            seed_draws(device, seed)
        yield


def seed_draws(device: torch.device | str, seed: int) -> None:
    """Seed what is drawn on the CPU and on `device`."""
    import torch

    torch.default_generator.manual_seed(seed)
    if torch.device(device).type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
