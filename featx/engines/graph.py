"""The truncated network as a graph: what compilers and converters take, with nothing in it that no output needs.

The batch size is fixed in it: engines pad the last batch anyway, and many networks cannot be exported otherwise.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from featx.backbones.trace import structural_copy
from featx.engines.pixels import FromPixels, blank

if TYPE_CHECKING:
    from featx.backbones import Backbone
    from featx.recipe import Recipe


def export(backbone: Backbone, recipes: list[Recipe], batch_size: int) -> Any:
    """Return `backbone`, truncated for `recipes`, as a `torch.export.ExportedProgram` of uint8 images."""
    with torch.no_grad():
        program = torch.export.export(_module(backbone, recipes), (blank(recipes, batch_size),), strict=False)
    program.graph_module.graph.eliminate_dead_code()
    return program


def trace(backbone: Backbone, recipes: list[Recipe], batch_size: int) -> Any:
    """Return the same as a `torch.jit.ScriptFunction`: in a fifth of the time, while PyTorch still has it.

    OpenVINO turns either into the same network; it reads this one's operators as they are, and takes an exported
    program's apart first.
    """
    # Of a function, where weights that want no gradient are constants: of a module each part becomes a script.
    module = structural_copy(_module(backbone, recipes))

    def function(pixels: Tensor) -> Any:
        return module(pixels)

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is deprecated, and that shapes are constants: they are meant to be
        return torch.jit.trace(function, blank(recipes, batch_size), check_trace=False)  # type: ignore[no-untyped-call]


def _module(backbone: Backbone, recipes: list[Recipe]) -> FromPixels:
    network = backbone.network(recipes)
    network.stops_early = False
    return FromPixels(network, backbone.mean, backbone.std).eval()
