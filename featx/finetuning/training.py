"""The training loop: epochs of steps from a source of batches, the best epoch kept, exact from any step on.

Nothing here depends on what ran before but through `Training.state` and the tensors: the order of rows follows
from seed and epoch, dropout from seed and step, augmentation from image and epoch. So a run that goes on from a
checkpoint makes the steps that it would have made.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from featx.devices import arithmetic
from featx.errors import OptionError
from featx.heads.training import Monitor, optimizer_of
from featx.progress import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from featx.finetuning.network import Classifier, Trainable
    from featx.finetuning.settings import Settings
    from featx.finetuning.sources import Source
    from featx.model.rows import Rows
    from featx.progress import OnProgress

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
#: The loss of rows whose class no training row has says nothing.
UNKNOWN = -1


@dataclass
class State:
    """Where a run is, apart from its tensors; all of it is ready for JSON.

    Attributes
    ----------
    epoch, step_in_epoch, step : int
        Finished epochs, and steps made in the current one and in all.
    sums : list of float
        Of the current epoch: summed loss, right answers, rows.
    rate_scale : float
        What a plateau schedule has made of the learning rate.
    best, plateau : list of float
        Best value of the monitored column and epochs since, for the best epoch and for the plateau.
    stopped : bool
        Whether early stopping has ended the run.
    seconds : float
        Of training so far.
    history, iterations : dict of str to list of float
        Columns with an entry an epoch, and an entry a step.
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


class Training:
    """A network in training.

    Attributes
    ----------
    network : Classifier
        On the device.
    state : State
    best : dict of str to Tensor
        What `tensors` were after the best epoch; empty before the first and without validation rows.
    trainable : Trainable

    Parameters
    ----------
    network : Classifier
    trainable : Trainable
    source : Source
    rows : Rows
    settings : Settings
    device : str
    """

    def __init__(
        self, network: Classifier, trainable: Trainable, source: Source, rows: Rows, settings: Settings, device: str
    ) -> None:
        self.network = network.to(device).to(memory_format=source.memory_format)
        self.state = State()
        self.best: dict[str, Tensor] = {}
        self.known = np.unique(source.y[rows.train])
        self.trainable, self._source, self._rows = trainable, source, rows
        self._settings, self._device = settings, device
        self._regimen = settings.regimen
        codes = np.searchsorted(self.known, source.y)
        codes[~np.isin(source.y, self.known)] = UNKNOWN
        self._targets = torch.from_numpy(codes).to(device)
        groups = trainable.groups(network.head, settings)
        self.optimizer = optimizer_of(groups, self._regimen, nesterov=False)
        self.scaler = torch.amp.GradScaler(device, enabled=settings.precision == "fp16")

    @property
    def steps_per_epoch(self) -> int:
        """Updates an epoch."""
        return math.ceil(self._n_batches / self._settings.accumulate)

    @property
    def _n_batches(self) -> int:
        return math.ceil(len(self._rows.train) / self._settings.batch_size)

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor of the network that training changes; writing into them changes the network."""
        own = {f"backbone.{name}": tensor for name, tensor in self.trainable.state().items()}
        return own | {f"head.{name}": tensor for name, tensor in self.network.head.state_dict().items()}

    def run(
        self, on_progress: OnProgress | None = None, checkpoint: Callable[[], None] | None = None, minutes: float = 5.0
    ) -> None:
        """Train to the end and leave the network with the weights of its best epoch, in evaluation mode.

        Parameters
        ----------
        on_progress : callable, optional
            Called with a `Progress` after each step.
        checkpoint : callable, optional
            Called after each epoch, and in an epoch every so many `minutes`.
        """
        exact = "tf32" if self._settings.precision == "tf32" else "fp32"
        with torch.random.fork_rng(), arithmetic(torch.device(self._device), exact):
            while self.state.epoch < self._settings.epochs and not self.state.stopped:
                self._run_epoch(on_progress, checkpoint, 60 * minutes)
                if checkpoint is not None:
                    checkpoint()
        with torch.no_grad():
            for name, tensor in self.tensors().items():
                tensor.copy_(self.best.get(name, tensor))
        self.network.eval()

    def scores(self, positions: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return scores (n, k) of rows, columns in the order of `known`; nothing is augmented or dropped."""
        if not len(positions):  # many networks cannot take no images
            return np.empty((0, len(self.known)), np.float32)
        return self._evaluate(self.network, positions)

    def features(self, positions: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return what the head sees of rows, (n, …)."""
        return self._evaluate(lambda batch: self.network.body(batch)[0], positions)

    @torch.inference_mode()
    def _evaluate(self, compute: Callable[[Tensor], Tensor], positions: NDArray[np.intp]) -> NDArray[np.float32]:
        self.network.eval()
        parts = []
        size = 2 * self._settings.batch_size
        for chosen in np.array_split(positions, max(1, math.ceil(len(positions) / size))):
            batch = self._source.batch(chosen, None).to(self._device)
            with self._autocast():
                parts.append(compute(batch).float().cpu().numpy())
        return np.concatenate(parts)

    def _run_epoch(self, on_progress: OnProgress | None, checkpoint: Callable[[], None] | None, seconds: float) -> None:
        state, settings = self.state, self._settings
        order = np.random.default_rng((settings.seed, state.epoch)).permutation(self._rows.train)
        # Equal parts: a rest of one row would leave batch normalisation without a variance.
        batches = np.array_split(order, self._n_batches)
        self._training_mode()
        started, saved = time.perf_counter() - state.seconds, time.perf_counter()
        total = settings.epochs * self.steps_per_epoch
        while state.step_in_epoch < self.steps_per_epoch:
            first = state.step_in_epoch * settings.accumulate
            self._step(batches[first : first + settings.accumulate])
            state.seconds = time.perf_counter() - started
            if on_progress is not None:
                n_rows = len(self._rows.train) * settings.epochs
                label = f"epoch {state.epoch + 1}/{settings.epochs}"
                on_progress(Progress(label, n_rows * state.step // total, n_rows, state.seconds))
            if checkpoint is not None and time.perf_counter() - saved >= seconds:
                checkpoint()
                saved = time.perf_counter()
        self._end_epoch()
        state.seconds = time.perf_counter() - started

    def _step(self, batches: list[NDArray[np.intp]]) -> None:
        """Make one update from the gradients of `batches` together."""
        state, n_rows = self.state, sum(map(len, batches))
        torch.manual_seed(int(np.random.SeedSequence((self._settings.seed, state.step)).generate_state(1)[0]))
        rate = self._rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["multiplier"]
        sums = torch.zeros(2, device=self._device)
        for positions in batches:
            batch = self._source.batch(positions, state.epoch).to(self._device, non_blocking=True)
            targets = self._targets[torch.from_numpy(positions)]
            with self._autocast():
                scores = self.network(batch)
            loss = cross_entropy(scores.float(), targets, reduction="sum")
            self.scaler.scale(loss / n_rows).backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                sums += torch.stack([loss.detach(), (scores.argmax(1) == targets).sum()])
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        state.step_in_epoch += 1
        state.step += 1
        loss_sum, n_correct = sums.tolist()
        self._note_step(loss_sum, n_correct, n_rows)

    def _note_step(self, loss: float, n_correct: float, n_rows: int) -> None:
        for i, value in enumerate((loss, n_correct, n_rows)):
            self.state.sums[i] += value
        for name, value in (("step", self.state.step), ("loss", loss / n_rows), ("accuracy", n_correct / n_rows)):
            self.state.iterations[name].append(value)

    def _rate(self) -> float:
        """Return the learning rate of the coming step: it rises through the warm-up, then follows the schedule."""
        warmup = round(self._settings.warmup * self.steps_per_epoch)
        if self.state.step < warmup:
            return self._settings.lr * (self.state.step + 1) / (warmup + 1)
        rest = self._settings.epochs * self.steps_per_epoch - warmup
        rate = self._regimen.rate((self.state.step - warmup) / rest) * self.state.rate_scale
        return max(rate, min(self._settings.min_lr, self._settings.lr))

    def _end_epoch(self) -> None:
        """Note the epoch, look at the validation rows, and decide about weights, rate and end."""
        state = self.state
        loss, n_correct, n_rows = state.sums
        if not math.isfinite(loss):
            raise OptionError(
                f"The loss is no longer a number after {state.epoch + 1} epochs. Lower --lr, now {self._settings.lr:g}."
            )
        noted = {"loss": loss / n_rows, "accuracy": n_correct / n_rows, "lr": self._rate_noted()}
        noted |= self._validate()
        for name, value in noted.items():
            state.history.setdefault(name, []).append(value)
        state.epoch, state.step_in_epoch, state.sums = state.epoch + 1, 0, [0.0, 0.0, 0.0]
        if self._is_better(state.best) and "val_loss" in noted:
            self.best = {name: tensor.clone() for name, tensor in self.tensors().items()}
        state.stopped = self._regimen.early_stopping and state.best[1] >= self._regimen.patience
        if self._settings.schedule == "plateau" and not self._is_better(state.plateau):
            self._slow_down()

    def _slow_down(self) -> None:
        if self.state.plateau[1] >= self._regimen.plateau_patience:
            self.state.rate_scale, self.state.plateau[1] = self.state.rate_scale * self._regimen.factor, 0

    def _rate_noted(self) -> float:
        group = self.optimizer.param_groups[-1]
        return float(group["lr"] / group["multiplier"]) if group["multiplier"] else 0.0

    def _validate(self) -> dict[str, float]:
        """Return the columns of the validation rows whose class is known, none without such rows."""
        known = self._rows.val[np.isin(self._source.y[self._rows.val], self.known)]
        if not len(known):
            return {}
        scores = torch.from_numpy(self.scores(known))
        targets = self._targets[torch.from_numpy(known)].cpu()
        loss = float(cross_entropy(scores, targets))
        accuracy = float((scores.argmax(1) == targets).double().mean())
        for name, value in (("val_step", self.state.step), ("val_loss", loss), ("val_accuracy", accuracy)):
            self.state.iterations[name].append(value)
        return {"val_loss": loss, "val_accuracy": accuracy}

    def _is_better(self, kept: list[float]) -> bool:
        """Hold the last epoch against the best so far, as `featx.heads.training.Monitor` does, and keep the outcome."""
        monitor = Monitor(self._regimen, best=kept[0], stale=int(kept[1]))
        better = monitor.better(self.state.history)
        kept[:] = [monitor.best, monitor.stale]
        return better

    def _training_mode(self) -> None:
        self.trainable.train()
        self.network.head.train()

    def _autocast(self) -> torch.autocast:
        dtype = _AUTOCAST.get(self._settings.precision)
        return torch.autocast(torch.device(self._device).type, dtype, enabled=dtype is not None)


def state_from_json(fields: dict[str, Any]) -> State:
    """Rebuild a state from `dataclasses.asdict`."""
    return State(**{f.name: fields[f.name] for f in dataclasses.fields(State)})
