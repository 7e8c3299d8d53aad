"""The truncated network as a graph: what compilers and converters take, with nothing in it that no output needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from featx.engines.pixels import FromPixels, blank

if TYPE_CHECKING:
    from featx.backbones import Backbone
    from featx.recipe import Recipe


def export(backbone: Backbone, recipes: list[Recipe], batch_size: int) -> Any:
    """Return `backbone`, truncated for `recipes`, as a `torch.export.ExportedProgram` of uint8 images.

    The batch size is fixed: engines pad the last batch anyway, and many networks cannot be exported otherwise.
    """
    network = backbone.network(recipes)
    network.stops_early = False
    module = FromPixels(network, backbone.mean, backbone.std).eval()
    with torch.no_grad():
        program = torch.export.export(module, (blank(recipes, batch_size),), strict=False)
    program.graph_module.graph.eliminate_dead_code()
    return program
