"""The compile engine: the truncated network as a graph, compiled by torch.compile's Inductor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx.engines.eager import Compute, compute_with
from featx.engines.graph import export
from featx.engines.pixels import blank
from featx.errors import OptionError

if TYPE_CHECKING:
    import torch

    from featx.backbones import Backbone
    from featx.recipe import Recipe


def build(backbone: Backbone, recipes: list[Recipe], batch_size: int, device: torch.device) -> Compute:
    """Return the compiled computation of `recipes` on `device`. The first batch, which compiles, is run here.

    Raises
    ------
    OptionError
        If it cannot be compiled: no C++ compiler, most often.
    """
    network = export(backbone, recipes, batch_size).module()
    # Frozen weights may be folded and laid out for the machine.
    network.compile(options={"freezing": True})
    compute = compute_with(network, device, recipes[0].precision)
    try:
        compute(blank(recipes, batch_size).numpy())
    except Exception as error:
        # Dynamo, Inductor and the C++ compiler each have exceptions of their own.
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise OptionError(
            f"torch.compile cannot compile {backbone.name} ({reason[:120]}). Type --engine eager."
        ) from error
    return compute
