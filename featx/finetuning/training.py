"""Fine-tuning's part of the training loop: its batches, its optimiser, its checkpoints and its scores.

The loop is `featx.heads.training.Trainer`. The order of rows follows from seed and epoch, augmentation from image and
epoch, so a run that goes on from a checkpoint makes the steps that it would have made. A checkpoint is one file of
tensors and JSON, written beside its name, synced and renamed: whatever happens it holds a whole state.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from featx.devices import arithmetic
from featx.errors import CorruptFileError, OptionError
from featx.files import write_whole
from featx.files.disk import explained
from featx.heads.training import Trainer, TrainState, make_optimizer

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from featx.finetuning.network import Classifier, Trainable
    from featx.finetuning.settings import Settings
    from featx.finetuning.sources import BatchSource
    from featx.heads.training import Batch
    from featx.model.rows import Parts

#: Version of a checkpoint's form; a reader refuses any other.
FORMAT = 1


class SourceBatches:
    """Training rows of a source, as a `Trainer` takes them.

    Attributes
    ----------
    known : ndarray of int
        Classes that training rows have, ascending: the columns of scores.
    n_rows, steps_per_epoch : int

    Parameters
    ----------
    source : BatchSource
    rows : Parts
    settings : Settings
    device : str
    """

    def __init__(self, source: BatchSource, rows: Parts, settings: Settings, device: str) -> None:
        self._source, self._rows, self._settings, self._device = source, rows, settings, device
        self.known = np.unique(source.y[rows.train])
        self.n_rows = len(rows.train)
        self._n_batches = math.ceil(self.n_rows / settings.batch_size)
        self.steps_per_epoch = math.ceil(self._n_batches / settings.accumulate)

    def steps(self, epoch: int, first: int = 0) -> Iterator[tuple[int, Iterator[Batch]]]:
        """Yield the updates of an epoch, each of `accumulate` batches."""
        order = np.random.default_rng((self._settings.seed, epoch)).permutation(self._rows.train)
        # Equal parts: a rest of one row would leave batch normalisation without a variance.
        batches, size = np.array_split(order, self._n_batches), self._settings.accumulate
        for start in range(first * size, self._n_batches, size):
            together = batches[start : start + size]
            yield sum(map(len, together)), (self._batch(positions, epoch) for positions in together)

    def held_out(self) -> Callable[[], Iterator[Batch]] | None:
        """Return what yields the validation rows whose class is known, None without such rows."""
        positions = self._rows.val[np.isin(self._source.y[self._rows.val], self.known)]
        size = 2 * self._settings.batch_size
        return (lambda: (self._batch(part, None) for part in parts(positions, size))) if len(positions) else None

    def _batch(self, positions: NDArray[np.intp], epoch: int | None) -> Batch:
        X = self._source.batch(positions, epoch).to(self._device, non_blocking=True)
        codes = torch.from_numpy(np.searchsorted(self.known, self._source.y[positions])).to(self._device)
        return X, codes, torch.ones(len(positions), device=self._device)


def make_trainer(network: Classifier, trainable: Trainable, batches: SourceBatches, settings: Settings) -> Trainer:
    """Return the trainer of a network on its device; only what is `trainable` is changed and kept.

    Parameters
    ----------
    network : Classifier
    trainable : Trainable
        Which part of its backbone trains.
    batches : SourceBatches
    settings : Settings
    """
    config, held_out = settings.config, batches.held_out()

    def tensors() -> dict[str, Tensor]:
        own = {f"backbone.{name}": tensor for name, tensor in trainable.state().items()}
        return own | {f"head.{name}": tensor for name, tensor in network.head.state_dict().items()}

    def train_mode() -> None:
        trainable.train()
        network.head.train()

    return Trainer(
        network,
        batches,
        config,
        seed=settings.seed,
        validation=held_out,
        optimizer=make_optimizer(network, config, trainable.groups(network.head, settings), nesterov=False),
        tensors=tensors,
        train_mode=train_mode,
        keep_best=held_out is not None,
        every_step=True,
    )


@torch.inference_mode()
def computed(
    compute: Callable[[Tensor], Tensor], source: BatchSource, positions: NDArray[np.intp], *, size: int, device: str
) -> NDArray[np.float32]:
    """Return what `compute` makes of rows as they are, in fp32 as the model will.

    Parameters
    ----------
    compute : callable
        From a batch to a tensor with a row for each of its rows.
    source : BatchSource
    positions : ndarray of int
        At least one: many networks cannot take no images.
    size : int
        Rows at a time.
    device : str
    """
    with arithmetic(torch.device(device), "fp32"):
        found = [compute(source.batch(part, None).to(device)).float().cpu() for part in parts(positions, size)]
    return torch.cat(found).numpy()


def parts(positions: NDArray[np.intp], size: int) -> list[NDArray[np.intp]]:
    """Cut `positions` into nearly equal parts of at most `size`."""
    return np.array_split(positions, max(1, math.ceil(len(positions) / size)))


def write_checkpoint(path: Path, trainer: Trainer, run: dict[str, Any]) -> None:
    """Write where `trainer` stands.

    Parameters
    ----------
    path : Path
    trainer : Trainer
    run : dict
        What makes this run this run: settings, data and weights, ready for JSON.
    """
    optimizer = trainer.optimizer.state_dict()["state"]
    tensors = {f"now.{name}": tensor for name, tensor in trainer.tensors().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in trainer.best.items()}
    tensors |= {f"optimizer.{i}.{key}": value for i, values in optimizer.items() for key, value in values.items()}
    state, scaler = dataclasses.asdict(trainer.state), trainer.scaler.state_dict()
    words = json.dumps({"format": FORMAT, "run": run, "state": state, "scaler": scaler})
    packed = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items() if tensor is not None}
    with explained("write the checkpoint", path):
        write_whole(path, save(packed, metadata={"featx": words}))


def read_checkpoint(path: Path, trainer: Trainer, run: dict[str, Any]) -> None:
    """Put `trainer` where the checkpoint left it.

    Raises
    ------
    CorruptFileError
        If the file is no checkpoint, or damaged.
    OptionError
        If it is of a run with other settings, data or weights.
    """
    try:
        with safe_open(path, framework="pt") as file:
            words = json.loads(file.metadata()["featx"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
        if words["format"] != FORMAT:
            raise ValueError(f"format {words['format']}")
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        raise CorruptFileError(
            f"{path} is not a checkpoint that this featx reads ({error}). Delete it, and run without --resume."
        ) from error
    before = words["run"]
    for name in sorted(before.keys() | run.keys()):
        if before.get(name) != run.get(name):
            raise OptionError(
                f"The checkpoint {path} is of a run with {name} {before.get(name)!r}, this one has {run.get(name)!r}. "
                "Type the command as it was, or delete the checkpoint to start anew."
            )
    with torch.no_grad():
        for name, tensor in trainer.tensors().items():
            tensor.copy_(tensors[f"now.{name}"])
            if f"best.{name}" in tensors:
                trainer.best[name] = tensors[f"best.{name}"].to(tensor.device)
    _restore_optimizer(trainer.optimizer, tensors)
    trainer.scaler.load_state_dict(words["scaler"])
    trainer.state = TrainState.from_json(words["state"])


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            index, _, key = rest.partition(".")
            own = parameters[int(index)].detach()
            # Fused optimisers go through memory: moments must lie there as their parameters do.
            like = torch.empty_like(own).copy_(tensor) if tensor.shape == own.shape else tensor
            state.setdefault(int(index), {})[key] = like
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
