"""A network in blocks: which of its modules run one after another, and from which on they train."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from featx.errors import OptionError

if TYPE_CHECKING:
    from featx.backbones import Backbone
    from featx.recipe import Recipe, Request

_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)


@dataclass(frozen=True)
class Blocks:
    """The part of a network up to a layer, in blocks.

    Attributes
    ----------
    place : dict of str to int
        Where in one forward each module, by its path, ends.
    units : list of list of str
        Paths of the modules that hold parameters of their own, in the order in which they run, block by block.

    Notes
    -----
    A block is what the author of the network lists side by side: a stage of a ResNet or EfficientNet, a layer of a
    transformer, an inception module. In plain stacks (VGG, AlexNet) a pooling layer ends a block, and each dense
    layer is one. What runs before the first belongs to the first block, what runs between two to the former.
    """

    place: dict[str, int]
    units: list[list[str]]

    @property
    def flat(self) -> list[str]:
        """All units in order."""
        return [unit for block in self.units for unit in block]

    def position(self, path: str) -> int:
        """Return where module `path` ends, or, if nothing ever calls it, the module around it."""
        while path not in self.place:
            path = path.rpartition(".")[0]
        return self.place[path]

    def start(self, unfreeze: str, layer: str | None) -> str:
        """Return the first unit that trains.

        Parameters
        ----------
        unfreeze : str
            ``all``, or a number of blocks counted from the last; for anything else `layer` is the module meant.
        layer : str or None

        Raises
        ------
        OptionError
            If there are fewer blocks, or nothing from `layer` on has weights.
        """
        if unfreeze == "all":
            return self.flat[0]
        if layer is None:
            n_blocks = int(unfreeze)
            if not 1 <= n_blocks <= len(self.units):
                raise OptionError(
                    f"--unfreeze takes 1 to {len(self.units)} blocks of this network, all, or a layer; got {unfreeze}."
                )
            return self.units[-n_blocks][0]
        inside = [unit for unit in self.flat if unit == layer or unit.startswith(f"{layer}.")]
        after = [unit for unit in self.flat if self.position(unit) > self.position(layer)]
        if not inside + after:
            raise OptionError(f"--unfreeze {unfreeze}: nothing from that layer on has weights. Name an earlier one.")
        return (inside + after)[0]

    def from_unit(self, start: str) -> list[list[str]]:
        """Return the units from `start` on, block by block; blocks below it are empty."""
        place = self.flat.index(start)
        kept = set(self.flat[place:])
        return [[unit for unit in block if unit in kept] for block in self.units]

    def before(self, start: str) -> str | None:
        """Return the module whose output unit `start` continues, None where it sees the images themselves."""
        if start == self.flat[0]:
            return None
        until = self.position(start)
        earlier = [path for path, place in self.place.items() if place < until and not path.startswith(f"{start}.")]
        return max(earlier, key=self.place.__getitem__, default=None)


def find_blocks(backbone: Backbone, tap: str) -> Blocks:
    """Return the blocks of `backbone` up to the module `tap`."""
    place: dict[str, int] = {}
    for info in backbone.layers():
        place.setdefault(info.name, len(place))
    found = Blocks(place, [])
    units = [
        path
        for path, module in backbone.module.named_modules()
        if any(True for _ in module.parameters(recurse=False)) and (path == "" or _runs(path, found, tap))
    ]
    parts = sorted((part for part in _parts(backbone.module, units) if _runs(part, found, tap)), key=found.position)
    blocks = [[unit for unit in units if _within(unit, block)] for block in _cut(backbone.module, parts, units)]
    blocks = [sorted(block, key=found.position) for block in blocks if block]
    inside = {unit for block in blocks for unit in block}
    # Positions, class tokens and the like belong to the whole and act at its beginning.
    blocks[0][:0] = [unit for unit in units if unit not in inside]
    return dataclasses.replace(found, units=blocks)


def layer_meant(backbone: Backbone, blocks: Blocks, request: Request, unfreeze: str) -> str | None:
    """Return the path of the module that ``--unfreeze`` names, None where it names none.

    A layer of Keras includes its activation, and so ``block4_conv1``, which features take behind it, begins before it.
    """
    if unfreeze == "all" or unfreeze.lstrip("-").isdigit():
        return None
    named: list[Recipe] = backbone.recipes(dataclasses.replace(request, layers=(unfreeze,), pool="auto"))
    path = named[0].layer
    if path != unfreeze and "conv" in unfreeze and isinstance(backbone.module.get_submodule(path), nn.ReLU):
        return max((unit for unit in blocks.flat if blocks.position(unit) < blocks.position(path)), key=blocks.position)
    return path


def _parts(module: nn.Module, units: list[str]) -> list[str]:
    """Return paths of the modules side by side that the network consists of."""
    parts = [""]
    while True:
        composite = [part for part in parts if len(_inside(part, units)) > 1]
        plain = [part for part in composite if _is_plain(module.get_submodule(part))]
        if len(composite) == 1:
            plain = composite
        if not plain:
            return parts
        opened = plain[0]
        children = [f"{opened}.{name}".removeprefix(".") for name, _ in module.get_submodule(opened).named_children()]
        place = parts.index(opened)
        parts[place : place + 1] = children


def _cut(module: nn.Module, parts: list[str], units: list[str]) -> list[list[str]]:
    """Return the parts in blocks."""
    composite = {part for part in parts if len(_inside(part, units)) > 1}
    blocks: list[list[str]] = [[]]
    for part in parts:
        layer = module.get_submodule(part)
        if part in composite or (not composite and isinstance(layer, nn.Linear)):
            blocks.append([])
        blocks[-1].append(part)
        if not composite and isinstance(layer, _POOLS):
            blocks.append([])
    return blocks


def _is_plain(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and not any(list(child.children()) for child in module)


def _inside(part: str, units: list[str]) -> list[str]:
    return [unit for unit in units if part == "" or unit.startswith(f"{part}.")]


def _within(unit: str, block: list[str]) -> bool:
    return any(unit == part or unit.startswith(f"{part}.") for part in block)


def _runs(part: str, found: Blocks, tap: str) -> bool:
    """Whether `part` does anything before `tap` is done."""
    return found.position(part) <= found.place[tap] or tap.startswith(f"{part}.")
