"""The upper part of a network on its own: cut where one tensor crosses, with the parameters of the whole."""

from __future__ import annotations

import inspect
import itertools
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx, nn

from featx.backbones.layers import n_prefix_tokens
from featx.backbones.network import MAP_CHANNELS_LAST, apply_pool, layout
from featx.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from featx.backbones import Backbone
    from featx.finetuning.network import Trainable
    from featx.recipe import Recipe


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
