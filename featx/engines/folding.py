"""Batch norm folded into the convolution before it: the same function with one pass over memory less."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from featx.backbones.trace import structural_copy

#: Folding rounds otherwise; past this relative L2 it is taken for a mistake and left out.
_TOLERANCE = 1e-5


def fold_batch_norm(network: nn.Module, example: Tensor, *, keep: frozenset[str] = frozenset()) -> nn.Module:
    """Return a copy of `network` in which every batch norm that follows a convolution is folded into it.

    The network itself is returned only where it cannot be copied.

    Which convolution feeds which batch norm is seen in one forward of `example`. That cannot see a function that
    reads the convolution's output as well, so the copy is used only if it computes the same.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode; it and its tensors stay as they are.
    example : Tensor
        A batch that `network` takes.
    keep : frozenset of str
        Paths of modules whose own output is wanted: a convolution at their end is not folded into what follows.
    """
    try:
        folded = structural_copy(network)
    except Exception:  # noqa: BLE001 - a user's module may hold what cannot be copied
        return network
    with torch.no_grad():  # in inference mode the folded weights could be used nowhere else
        expected, pairs = _watched(folded, example)
        for conv_path, norm_path in pairs:
            if any(_is_within(conv_path, path) and not _is_within(norm_path, path) for path in keep):
                continue
            conv: Any = folded.get_submodule(conv_path)
            norm: Any = folded.get_submodule(norm_path)
            folded.set_submodule(conv_path, fuse_conv_bn_eval(conv, norm))
            folded.set_submodule(norm_path, _without_norm(norm))
        found = folded(example)
    same = all(_close(a, b) for a, b in zip(found, expected, strict=True))
    return folded if same else structural_copy(network)


def _is_within(path: str, outer: str) -> bool:
    return path == outer or path.startswith(f"{outer}.")


def _watched(network: nn.Module, example: Tensor) -> tuple[tuple[Tensor, ...], list[tuple[str, str]]]:
    """Return what `network` gives, and the paths of (convolution, batch norm) where one's output is the other's input.

    Only those that run once, each, can be folded.
    """
    made: dict[int, tuple[str, Tensor]] = {}
    pairs: dict[str, str] = {}
    n_calls: dict[str, int] = {}

    def conv_hook(path: str) -> Any:
        def hook(_module: nn.Module, _input: Any, output: Tensor) -> None:
            n_calls[path] = n_calls.get(path, 0) + 1
            made[id(output)] = (path, output)  # held, so that no other tensor gets its id

        return hook

    def norm_hook(path: str) -> Any:
        def hook(_module: nn.Module, arguments: tuple[Any, ...]) -> None:
            n_calls[path] = n_calls.get(path, 0) + 1
            if id(arguments[0]) in made:
                pairs[made[id(arguments[0])][0]] = path

        return hook

    handles = []
    for path, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(conv_hook(path)))
        elif _foldable(module):
            handles.append(module.register_forward_pre_hook(norm_hook(path)))
    rows = network(example)
    for handle in handles:
        handle.remove()
    return rows, [(conv, norm) for conv, norm in pairs.items() if n_calls[conv] == n_calls[norm] == 1]


def _foldable(module: nn.Module) -> bool:
    exact = type(module) is nn.BatchNorm2d or _has_activation(module)
    return exact and isinstance(module, nn.BatchNorm2d) and module.running_var is not None


def _has_activation(module: nn.Module) -> bool:
    """Tell timm's batch norm with an activation inside."""
    return type(module).__name__ == "BatchNormAct2d" and hasattr(module, "act") and hasattr(module, "drop")


def _without_norm(norm: Any) -> nn.Module:
    return nn.Sequential(norm.drop, norm.act) if _has_activation(norm) else nn.Identity()


def _close(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).norm() <= _TOLERANCE * expected.norm())
