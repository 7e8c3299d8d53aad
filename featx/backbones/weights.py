"""Weights: files that hold tensors and nothing else, strict loading, digests, no needless random draws."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from featx.errors import MissingDataError, UnknownNameError, WeightsError, WeightsUnavailable

log = logging.getLogger("featx")

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
#: In-place tensor methods that torch.nn.init draws with, and others that shape the draw.
_DRAWS = frozenset({"uniform_", "normal_"})
_SHAPERS = frozenset({"trunc_normal_", "kaiming_uniform_", "kaiming_normal_", "erfinv_"})
_SHOWN_KEYS = 3


class WeightsFile(NamedTuple):
    """A file of weights, and which of the networks in it is meant: ``FILE#state_dict_ema``; empty where it has one."""

    path: Path
    entry: str = ""

    def __str__(self) -> str:
        return f"{self.path}#{self.entry}" if self.entry else str(self.path)


def as_file(weights: str) -> WeightsFile | None:
    """Return `weights` as the file it names, or None if it is a word (``imagenet``, ``none``, a tag).

    Raises
    ------
    MissingDataError
        If it looks like a path and nothing is there.
    """
    whole = Path(weights).expanduser()
    if whole.is_file():
        return WeightsFile(whole)
    name, hash_sign, entry = weights.rpartition("#")
    if hash_sign and Path(name).expanduser().is_file():
        return WeightsFile(Path(name).expanduser(), entry)
    if Path(name or weights).suffix in SUFFIXES or len(whole.parts) > 1:
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


def read_state(file: WeightsFile) -> dict[str, Tensor]:
    """Read a state dict from a ``.safetensors`` or torch file, without ever running code that the file holds.

    What training programs wrap around it (``{"epoch": 3, "model": …}``) is taken off, however deep.

    Raises
    ------
    WeightsError
        If the file holds anything but tensors by name, or is damaged; or if it holds several networks, which are then
        listed, and `file` names none of them.
    """
    path = file.path
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "TorchScript" not in str(error):
            raise WeightsError(f"{path} cannot be read as weights: {_first_line(error)}") from error
        what = "is a TorchScript program, which" if isinstance(error, RuntimeError) else "holds more than tensors, and"
        raise WeightsError(
            f"{path} {what} code is never loaded. Save the network's state instead: "
            "torch.save(network.state_dict(), 'weights.pth')."
        ) from error
    except Exception as error:
        # torch and safetensors answer damage with a dozen types; each means that this file cannot be used.
        raise WeightsError(f"{path} cannot be read as weights: {_first_line(error)}") from error
    return _chosen(state, file)


def _chosen(state: Any, file: WeightsFile) -> dict[str, Tensor]:
    """Return the network of `file` that is meant: the one there is, or the one that is named."""
    networks = dict(_networks(state))
    if file.entry:
        if file.entry in networks:
            return networks[file.entry]
        for network in networks.values():
            inner = {
                key.removeprefix(f"{file.entry}."): value
                for key, value in network.items()
                if key.startswith(f"{file.entry}.")
            }
            if inner:
                return inner
    largest = max(map(len, networks.values()), default=0)
    # A loss or a normaliser with a tensor or two is no network.
    networks = {name: network for name, network in networks.items() if 10 * len(network) >= largest}
    if len(networks) == 1 and not file.entry:
        ((name, network),) = networks.items()
        if name:
            log.info("%s: the weights are those of its entry %r", file.path, name)
        return network
    if not networks:
        held = ", ".join(map(str, list(state)[:_SHOWN_KEYS])) if isinstance(state, Mapping) else type(state).__name__
        raise WeightsError(
            f"{file.path} holds no state dict (tensors by name), but {held or 'nothing'}. Save one: "
            "torch.save(network.state_dict(), …)."
        )
    found = ", ".join(f"{name or 'the file itself'} ({len(network)} tensors)" for name, network in networks.items())
    wrong = f"has no entry {file.entry!r}, but" if file.entry else "holds several networks:"
    raise WeightsError(f"{file.path} {wrong} {found}. Name one: --weights {file.path}#{list(networks)[-1]}")


def _networks(state: Any, path: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the state dicts within what a file holds, each with its path."""
    if not isinstance(state, Mapping) or not state or not all(isinstance(key, str) for key in state):
        return
    if all(isinstance(value, Tensor) for value in state.values()):
        yield path, dict(state)
        return
    for key, value in state.items():
        yield from _networks(value, f"{path}.{key}" if path else key)


def fit_state(module: nn.Module, state: Mapping[str, Tensor], *, source: str, name: str) -> tuple[str, ...]:
    """Load `state` into `module`: all of it but the classifier, strictly.

    A prefix that programs put before every name (``module.``, ``_orig_mod.``, ``encoder_q.``) is taken off.

    Parameters
    ----------
    module : torch.nn.Module
    state : mapping
    source, name : str
        Of the file and of the network, for messages.

    Returns
    -------
    tuple of str
        Paths of classifiers that the file lacks or has for other classes; they are filled with zeros, and whoever
        wants their output is to be refused.

    Raises
    ------
    WeightsError
        If other tensors are missing, unexpected or of another shape; the first few of each are named.
    """
    own = module.state_dict()
    state, left_over = _without_prefix(own, state, source)
    heads = _heads(module, own)

    def ours(keys: Iterable[str]) -> list[str]:
        return [key for key in keys if not key.startswith(heads)]

    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    reshaped = [key for key in own if key in state and state[key].shape != own[key].shape]
    # What stands beside the whole network (a projector, a queue) is another thing's; what is inside it is not.
    parts = {key.partition(".")[0] for key in own}
    unexpected = [key for key in state if key not in own]
    strange = [key for key in ours(unexpected) if key.partition(".")[0] in parts or missing]
    if ours(missing) or ours(reshaped) or strange:
        shapes = [f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}" for key in ours(reshaped)]
        wrong = [_count(ours(missing), "missing"), _count(strange, "unexpected"), _count(shapes, "of another shape")]
        raise WeightsError(
            f"{source} does not fit {name}: {'; '.join(part for part in wrong if part)}. Is --backbone the network "
            "that these weights were saved from?"
        )
    # Checkpoints older than batch counters lack them; nothing in evaluation reads them.
    unweighted = {key: torch.zeros_like(own[key]) for key in (*missing, *reshaped) if key.startswith(heads)}
    module.load_state_dict({key: unweighted.get(key, state.get(key, own[key])) for key in own})
    unused = [*(key for key in state if key in unweighted or key not in own), *left_over]
    if unused:
        log.warning("%s: not used, as %s has no place for them: %s", source, name, _count(unused, "tensors"))
    return tuple(sorted({key.rpartition(".")[0] for key in unweighted}))


def _without_prefix(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors under the network's own names, and the names of those that are not under its prefix."""
    first = list(own)[:3]
    prefixes = {key[: -len(name)] for key in state for name in first if key.endswith(f".{name}") or key == name}
    matches = {prefix: sum(prefix + key in state for key in own) for prefix in sorted(prefixes)}
    best = [prefix for prefix, n in matches.items() if n == max(matches.values())]
    if not best or "" in best:
        return dict(state), []
    if len(best) > 1:
        names = ", ".join(prefix.rstrip(".") for prefix in best)
        raise WeightsError(
            f"{source} holds several networks: {names}. Name one: --weights {source.partition('#')[0]}#"
            f"{best[0].rstrip('.')}"
        )
    (prefix,) = best
    log.info("%s: %r before the names is left out", source, prefix)
    inner = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return inner, [key for key in state if not key.startswith(prefix)]


def _heads(module: Any, own: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return what the names of the classifier's tensors begin with: timm says so, else it holds the last tensor."""
    named = getattr(module, "pretrained_cfg", {}).get("classifier") or list(own)[-1].rpartition(".")[0]
    return tuple(f"{path}." for path in ([named] if isinstance(named, str) else named))


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


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _count(items: list[str], what: str) -> str:
    """Say how many, and the first few."""
    more = ", …" if len(items) > _SHOWN_KEYS else ""
    return f"{len(items)} {what} ({', '.join(items[:_SHOWN_KEYS])}{more})" if items else ""
