"""Checkpoints: all that a killed run needs to go on as if nothing had happened, in one file of tensors and JSON.

The file is written beside its name, synced and renamed, so whatever happens it holds a whole checkpoint.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from featx.errors import CorruptFileError, OptionError
from featx.files import write_whole
from featx.files.disk import explained
from featx.finetuning.training import state_from_json

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from featx.finetuning.training import Training

#: Version of the form below; a reader refuses any other.
FORMAT = 1


def write_checkpoint(path: Path, training: Training, run: dict[str, Any]) -> None:
    """Write where `training` stands.

    Parameters
    ----------
    path : Path
    training : Training
    run : dict
        What makes this run this run: settings, data and weights, ready for JSON.
    """
    optimizer = training.optimizer.state_dict()["state"]
    tensors = {f"now.{name}": tensor for name, tensor in training.tensors().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in training.best.items()}
    tensors |= {f"optimizer.{i}.{key}": value for i, values in optimizer.items() for key, value in values.items()}
    words = {
        "format": FORMAT,
        "run": run,
        "state": dataclasses.asdict(training.state),
        "scaler": training.scaler.state_dict(),
    }
    packed = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items() if tensor is not None}
    content = save(packed, metadata={"featx": json.dumps(words)})
    with explained("write the checkpoint", path):
        write_whole(path, content)


def read_checkpoint(path: Path, training: Training, run: dict[str, Any]) -> None:
    """Put `training` where the checkpoint left it.

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
    _check_run(path, words["run"], run)
    with torch.no_grad():
        for name, tensor in training.tensors().items():
            tensor.copy_(tensors[f"now.{name}"])
    training.best = {
        name: tensors[f"best.{name}"].to(tensor.device)
        for name, tensor in training.tensors().items()
        if f"best.{name}" in tensors
    }
    _restore_optimizer(training.optimizer, tensors)
    training.scaler.load_state_dict(words["scaler"])
    training.state = state_from_json(words["state"])


def _check_run(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise OptionError(
                f"The checkpoint {path} is of a run with {name} {before.get(name)!r}, this one has {now.get(name)!r}. "
                "Type the command as it was, or delete the checkpoint to start anew."
            )


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
