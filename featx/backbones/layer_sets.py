"""Sets of layers by one name: where maps become smaller, the quarters of the way, every block."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from featx.backbones.network import MAP, MAP_CHANNELS_LAST, TOKENS, layout
from featx.errors import OptionError
from featx.recipe import DEFAULT_LAYER, LAYER_SETS

if TYPE_CHECKING:
    from featx.backbones.layers import Trace


def layer_set(name: str, module: nn.Module, traced: Trace, default: str) -> list[str]:
    """Return the layers that one of `LAYER_SETS` stands for, in the order in which they run.

    The last of each set is the network's own choice, by the name of `DEFAULT_LAYER`.

    Parameters
    ----------
    name : str
        ``stages``: the last layer of each size of maps, and of the last size also the last before the maps are
        widened. ``quarters``: the blocks after a quarter, a half and three quarters of all. ``all``: every block.
    module : nn.Module
        The network.
    traced : Trace
        Its forward at the size of the images.
    default : str
        Path of the layer that it has by default: no other comes from behind it.

    Raises
    ------
    OptionError
        For stages, where maps never become smaller, as in plain transformers.
    """
    names = list(traced.calls)
    before = {path: traced.calls[path].shape for path in names[: names.index(default) + 1]}
    if name == "stages":
        found = stages(before)
        if len(found) < 2:
            others = " or ".join(f"--layers {other}" for other in LAYER_SETS if other != "stages")
            raise OptionError(f"A {type(module).__name__} has no stages: its maps never become smaller. Take {others}.")
        return [*found[:-1], *_before_widened(module, before, default), DEFAULT_LAYER]
    blocks = [path for path in _blocks(module, before) if path != default]
    if name == "quarters":
        n = len(blocks)
        blocks = list(dict.fromkeys(blocks[max(0, n * part // 4 - 1)] for part in (1, 2, 3) if n))
    return [*blocks, DEFAULT_LAYER]


def stages(shapes: dict[str, tuple[int, ...]]) -> list[str]:
    """Return the last of the outer modules that gives maps of each size, as ``layer1`` to ``layer4``.

    Parameters
    ----------
    shapes : dict of str to tuple of int
        Of what modules give for one image, by path, in the order in which they end.
    """
    last: dict[tuple[int, ...], str] = {}
    for path, shape in shapes.items():
        if path.count(".") <= 1 and len(shape) == 3 and min(shape) > 1:
            last[_sides(shape)] = path
    return list(last.values())


def _before_widened(module: nn.Module, shapes: dict[str, tuple[int, ...]], default: str) -> list[str]:
    """Return the last outer module whose maps have the sides, but not the channels, of those of `default`, if any."""
    like = shapes[default]
    other = [
        path
        for path, shape in shapes.items()
        if path.count(".") <= 1 and len(shape) == 3 and _sides(shape) == _sides(like) and sorted(shape) != sorted(like)
    ]
    if not other:
        return []
    children = dict(module.named_children())
    inner = [path for path in other if path.rpartition(".")[0] == other[-1]]  # a list gives what its last module gives
    return inner[-1:] if isinstance(children.get(other[-1]), nn.Sequential) and inner else other[-1:]


def _blocks(module: nn.Module, shapes: dict[str, tuple[int, ...]]) -> list[str]:
    """Return the outermost modules that a list of modules holds and that are no list; else all outermost modules."""
    children = dict(module.named_modules())
    lists = {path for path, child in children.items() if path and isinstance(child, nn.Sequential | nn.ModuleList)}
    useful = [path for path, shape in shapes.items() if path and layout(shape) in (MAP, MAP_CHANNELS_LAST, TOKENS)]
    held = {path for path in useful if path.rpartition(".")[0] in lists and path not in lists}
    found = [path for path in useful if path in held and not _parents(path) & held]
    return found or [path for path in useful if "." not in path]


def _parents(path: str) -> set[str]:
    words = path.split(".")
    return {".".join(words[:n]) for n in range(1, len(words))}


def _sides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:2] if layout(shape) == MAP_CHANNELS_LAST else shape[1:]
