"""The network in training: blocks, of which the upper ones train, with a head; whole, or cut above the frozen ones."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from featx.backbones.layers import n_prefix_tokens
from featx.backbones.network import MAP_CHANNELS_LAST, apply_pool, layout
from featx.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from featx.backbones import Backbone
    from featx.finetuning.settings import Settings
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


# What trains


class Classifier(nn.Module):
    """A backbone up to its pooled layer, and a head.

    Attributes
    ----------
    body : torch.nn.Module
        From a batch to a tuple with one tensor of rows.
    head : torch.nn.Sequential
        From rows to scores (n, k).
    """

    def __init__(self, body: nn.Module, head: nn.Sequential) -> None:
        super().__init__()
        self.body = body
        self.head = head

    def forward(self, batch: Tensor) -> Tensor:
        """Return scores (n, k)."""
        (rows,) = self.body(batch)
        scores: Tensor = self.head(rows)
        return scores


class Trainable:
    """Which tensors of a backbone and a head training changes, and how the modules behave meanwhile.

    Below the first module that trains nothing changes: no gradient is computed there, batch norm uses its running
    statistics and dropout is off, whatever ``freeze_bn`` says. Above it batch norm learns, statistics and all; with
    ``freeze_bn`` it keeps statistics, scale and shift.

    Attributes
    ----------
    backbone : Backbone
    blocks : Blocks
    start : str
        The first module that trains.
    units : list of list of str
        Modules that train, block by block from the image up.
    """

    def __init__(self, backbone: Backbone, recipe: Recipe, request: Request, settings: Settings) -> None:
        self.backbone, self.module = backbone, backbone.module
        self.blocks: Blocks = find_blocks(backbone, recipe.layer)
        self.start = self.blocks.start(
            str(settings.unfreeze), layer_meant(backbone, self.blocks, request, str(settings.unfreeze))
        )
        self.units = self.blocks.from_unit(self.start)
        self._freeze_bn = bool(settings.freeze_bn)
        self.module.requires_grad_(False)
        for parameter in self.parameters():
            parameter.requires_grad_(True)

    def parameters(self) -> list[nn.Parameter]:
        """Return the backbone's parameters that train."""
        return [parameter for block in self.units for parameter in self._of(block)]

    def used(self) -> set[str]:
        """Return the names of the backbone's parameters that the pooled layer depends on, trained or not."""
        units = set(self.blocks.flat)
        names = (name for name, _ in self.module.named_parameters(remove_duplicate=False))
        return {name for name in names if name.rpartition(".")[0] in units}

    def train(self) -> None:
        """Put the modules that train into training mode, and all others into evaluation mode.

        The root stays in evaluation mode: networks with auxiliary classifiers run them in training.
        """
        self.module.eval()
        first = self.blocks.position(self.start)
        for path, module in self.module.named_modules():
            still = self._freeze_bn and isinstance(module, _BatchNorm)
            module.training = path != "" and self.blocks.position(path) >= first and not still

    def state(self) -> dict[str, Tensor]:
        """Return every tensor of the backbone that training changes, by its name in the state dict."""
        units = {unit for block in self.units for unit in block}
        return {name: own for name, own in self.module.state_dict().items() if name.rpartition(".")[0] in units}

    def groups(self, head: nn.Module, settings: Settings) -> list[dict[str, Any]]:
        """Return the optimiser's groups of parameters; ``multiplier`` is of the learning rate.

        A block's rate is that of the block above times ``layer_decay``, and the head's its own multiple. Weight decay
        holds for matrices and filters, not for biases and normalisation.
        """
        depth = len(self.units)
        parts = [(settings.layer_decay ** (depth - i), self._of(block)) for i, block in enumerate(self.units)]
        parts.append((settings.head_lr_mult, list(head.parameters())))
        groups = []
        for multiplier, parameters in parts:
            matrices = [p for p in parameters if p.ndim > 1]
            vectors = [p for p in parameters if p.ndim <= 1]
            for chosen, decay in ((matrices, settings.config.weight_decay), (vectors, 0.0)):
                if chosen:
                    groups.append({"params": chosen, "weight_decay": decay, "multiplier": multiplier})
        return groups

    def _of(self, units: list[str]) -> list[nn.Parameter]:
        modules = [self.module.get_submodule(unit) for unit in units]
        learning = [m for m in modules if not (self._freeze_bn and isinstance(m, _BatchNorm))]
        return list(dict.fromkeys(p for module in learning for p in module.parameters(recurse=False)))


# The upper part on its own, for activations out of the cache


class Upper(nn.Module):
    """From the output of one module of a network to the pooled rows of a later one.

    Parameters
    ----------
    graph : torch.fx.GraphModule
        It holds the network's own modules, so what they learn here the network has learned.
    pool : str
        As in `featx.recipe.Recipe`.
    n_prefix : int
        Tokens that precede those of the image.
    channels_last : bool
        Whether the network lays that output out as (n, h, w, c); tables hold (n, c, h, w).
    """

    def __init__(self, graph: fx.GraphModule, pool: str, *, n_prefix: int, channels_last: bool) -> None:
        super().__init__()
        self.graph = graph
        self._pool, self._n_prefix, self._channels_last = pool, n_prefix, channels_last

    def forward(self, maps: Tensor) -> tuple[Tensor]:
        """Return one tensor of rows for activations as a table has them."""
        output = self.graph(maps.permute(0, 2, 3, 1) if self._channels_last else maps)
        return (apply_pool(output, self._pool, n_prefix=self._n_prefix),)


def cut(backbone: Backbone, recipe: Recipe, trainable: Trainable) -> tuple[str, Upper]:
    """Cut a network below the first module that trains.

    Returns
    -------
    layer : str
        The module whose output crosses the cut.
    upper : Upper
        What comes after it, up to the layer of `recipe`.

    Raises
    ------
    OptionError
        If everything trains, or more than that one tensor crosses: the message names layers to start from.
    """
    layer = trainable.blocks.before(trainable.start)
    if layer is None:
        raise OptionError("--from-cache needs lower blocks that stay as they are. Freeze them: --unfreeze 1")
    graph = _upper_graph(backbone.module, layer, recipe.layer)
    if graph is None:
        clean = [start for start in _starts(trainable) if _is_clean(backbone.module, trainable, start, recipe.layer)]
        raise OptionError(
            f"--from-cache cannot begin at {trainable.start!r}: what it needs is more than the output of {layer!r}. "
            f"Begin at a block: --unfreeze {' or '.join(clean) or 'another layer'}, or leave out --from-cache."
        )
    return layer, Upper(
        graph,
        recipe.pool,
        n_prefix=n_prefix_tokens(backbone.module),
        channels_last=layout(backbone.output_shape(layer)) == MAP_CHANNELS_LAST,
    )


class _Tracer(fx.Tracer):
    """Records what modules compute from one another, looking only into those around the cut and the end."""

    def __init__(self, opened: set[str]) -> None:
        super().__init__()
        self._opened = opened
        self.outputs: dict[str, fx.Node] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002 - torch's signature
        return module_qualified_name not in self._opened

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        output = super().call_module(m, forward, args, kwargs)
        if isinstance(output, fx.Proxy):
            self.outputs[self.path_of_module(m)] = output.node
        return output


def _upper_graph(module: nn.Module, layer: str, end: str) -> fx.GraphModule | None:
    """Return what comes between two modules' outputs; None if `end` needs anything else than the one of `layer`."""
    tracer = _Tracer({*_around(layer), *_around(end)})
    parameters = inspect.signature(module.forward).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}  # networks are given images alone
    try:
        traced = tracer.trace(module, concrete_args=defaults)
    # Whatever a forward raises that looks at its input's values, which tracing does not have.
    except Exception as error:
        raise OptionError(
            f"--from-cache cannot take this network apart: {' '.join(str(error).split())[:120]}. Leave it out."
        ) from error
    first = tracer.outputs.get(layer)
    last = tracer.outputs.get(end) if end else _result(traced)
    if first is None or last is None:
        return None
    needed, edge = {first}, [last]
    while edge:
        node = edge.pop()
        if node.op == "placeholder":
            return None
        if node not in needed:
            needed.add(node)
            edge += node.all_input_nodes
    return fx.GraphModule(module, _copied(traced, needed, first, last))


def _result(traced: fx.Graph) -> fx.Node | None:
    (output,) = (node for node in traced.nodes if node.op == "output")
    return output.args[0] if isinstance(output.args[0], fx.Node) else None


def _copied(traced: fx.Graph, needed: set[fx.Node], first: fx.Node, last: fx.Node) -> fx.Graph:
    graph = fx.Graph()
    copies = {first: graph.placeholder("maps")}
    for node in traced.nodes:
        if node in needed and node is not first:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(copies[last])
    return graph


def _around(path: str) -> Iterator[str]:
    """Yield the paths of the modules that hold `path`, the root's first."""
    return itertools.accumulate(["", *path.split(".")[:-1]], lambda outer, name: f"{outer}.{name}".removeprefix("."))


def _starts(trainable: Trainable) -> list[str]:
    return [units[0] for units in trainable.blocks.units[1:]]


def _is_clean(module: nn.Module, trainable: Trainable, start: str, end: str) -> bool:
    layer = trainable.blocks.before(start)
    return layer is not None and _upper_graph(module, layer, end) is not None
