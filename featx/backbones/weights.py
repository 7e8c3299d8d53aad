"""Weights: files that hold tensors and nothing else, strict loading, digests, no needless random draws."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from featx.errors import MissingDataError, UnknownNameError, WeightsError, WeightsUnavailable

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
#: In-place tensor methods that torch.nn.init draws with, and others that shape the draw.
_DRAWS = frozenset({"uniform_", "normal_"})
_SHAPERS = frozenset({"trunc_normal_", "kaiming_uniform_", "kaiming_normal_", "erfinv_"})
_SHOWN_KEYS = 3


def as_path(weights: str) -> Path | None:
    """Return `weights` as the path it is, or None if it is a word (``imagenet``, ``none``, a tag).

    Raises
    ------
    MissingDataError
        If it looks like a path and nothing is there.
    """
    path = Path(weights).expanduser()
    if path.is_file():
        return path
    if path.suffix in SUFFIXES or len(path.parts) > 1:
        raise MissingDataError(f"No weights file at {weights}. Type --weights imagenet, none, or the path of a file.")
    return None


def unknown_tag(tag: str, name: str, known: list[str]) -> UnknownNameError:
    """Build the error for a tag that the library does not have for network `name`."""
    return UnknownNameError.among(
        "weights", tag, known, f"{', '.join(['imagenet', 'none', *known])}, or the path of a file for {name}"
    )


def unavailable(name: str, tried: str, reason: object) -> WeightsUnavailable:
    """Build the error for weights out of reach, which says what to type instead."""
    return WeightsUnavailable(
        f"The weights of {name} are out of reach: tried {tried} ({' '.join(str(reason).split())[:120]}). Type "
        "--weights PATH for a file you have, --weights none for random ones, or --backbone efficientnet_lite0, whose "
        "weights are installed."
    )


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a ``.safetensors`` or torch file, without ever running code that the file holds.

    A ``{"state_dict": …}`` or ``{"model": …}`` around it, and ``module.`` before every key, are taken off.

    Raises
    ------
    WeightsError
        If the file holds anything but tensors by name, or is damaged.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} holds more than tensors, and code is never loaded. Save the network's state instead: "
            "torch.save(network.state_dict(), 'weights.pth')."
        ) from error
    except Exception as error:
        # torch and safetensors answer damage with a dozen types; each means that this file cannot be used.
        raise WeightsError(f"{path} cannot be read as weights: {_first_line(error)}") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(
            f"{path} holds no state dict (tensors by name). Save one: torch.save(network.state_dict(), …)."
        )
    if all(key.startswith("module.") for key in state):
        return {key.removeprefix("module."): value for key, value in state.items()}
    return dict(state)


def fit_state(module: nn.Module, state: Mapping[str, Tensor], *, source: str, name: str) -> None:
    """Load `state` into `module`, strictly.

    Raises
    ------
    WeightsError
        If keys are missing, unexpected or of another shape; the first few of each are named.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    reshaped = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if missing or unexpected or reshaped:
        parts = [_count(missing, "missing"), _count(unexpected, "unexpected"), _count(reshaped, "of another shape")]
        only_head = not missing and not unexpected and all(text.startswith(_classifier(own) + ".") for text in reshaped)
        hint = (
            "Only the number of classes differs: write a function that builds the network with that many, and name it "
            "(--backbone package.module:function)."
            if only_head
            else "Is --backbone the network that these weights were saved from?"
        )
        raise WeightsError(f"{source} does not fit {name}: {'; '.join(part for part in parts if part)}. {hint}")
    # Checkpoints older than batch counters lack them; nothing in evaluation reads them.
    complete = own | dict(state)
    module.load_state_dict(complete)


def digest(module: nn.Module) -> str:
    """Return the SHA-256 (hex) over name, dtype, shape and bytes of every tensor of the state, sorted by name."""
    sha = hashlib.sha256()
    for key, tensor in sorted(module.state_dict().items()):
        header = [key, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
        sha.update(json.dumps(header, separators=(",", ":")).encode() + b"\n")
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()


class _Uninitialised(TorchFunctionMode):
    """Fills new parameters instead of drawing them: 138 million random numbers that a file replaces take seconds.

    What they are filled with, a mean or a lower bound, lies within the bounds for which `trunc_normal_` draws again
    and again.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in _DRAWS and args:
            with torch.no_grad():
                return args[0].fill_(args[1] if len(args) > 1 else 0.0)
        if name in _SHAPERS and args:
            return args[0]
        return func(*args, **(kwargs or {}))


def uninitialised() -> TorchFunctionMode:
    """Return a context in which networks are built without drawing random weights, for loading all of them next."""
    return _Uninitialised()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw random weights from `seed` on the CPU, and leave torch's own generator where it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _classifier(state: Mapping[str, Tensor]) -> str:
    """Return the path of the module that holds the state's last tensor: in nearly every network, the classifier."""
    return list(state)[-1].rpartition(".")[0]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _count(items: list[str], what: str) -> str:
    """Say how many, and the first few."""
    more = ", …" if len(items) > _SHOWN_KEYS else ""
    return f"{len(items)} {what} ({', '.join(items[:_SHOWN_KEYS])}{more})" if items else ""
