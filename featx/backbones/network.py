"""The truncated network: one forward that stops after the deepest tap and returns pooled rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

from torch import Tensor, nn

from featx.backbones.pooling import apply_pool
from featx.backbones.trace import first_tensor

if TYPE_CHECKING:
    from collections.abc import Callable


class PooledTap(NamedTuple):
    """A module's path, how often it runs in one forward (its last output counts), and the pooling."""

    layer: str
    n_calls: int
    pool: str


class _Finished(Exception):
    """Every tap has fired: what the network would still compute, nobody asked for."""


class Network(nn.Module):
    """A network up to its deepest tap.

    Outputs are pooled inside the hook, when the tapped module returns: what comes next may overwrite its output
    in place. Hooks live for one forward only, so the network itself stays as it was.

    Attributes
    ----------
    stops_early : bool
        False for exporters, which keep a stack of the modules they are in and would lose it; they drop what no
        output needs from their graphs.

    Parameters
    ----------
    module : torch.nn.Module
        In evaluation mode.
    taps : list of PooledTap
    n_prefix : int
        Tokens that precede those of the image.
    """

    def __init__(self, module: nn.Module, taps: list[PooledTap], *, n_prefix: int = 0) -> None:
        super().__init__()
        self.module = module
        self.taps = taps
        self.n_prefix = n_prefix
        self.stops_early = True
        self.eval()

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return one tensor of rows for each tap.

        Parameters
        ----------
        pixels : Tensor of shape (n, 3, height, width)
            Normalised.
        """
        rows: dict[int, Tensor] = {}
        layers = {tap.layer: tap.n_calls for tap in self.taps}

        def fire(layer: str) -> Callable[[nn.Module, Any, Any], None]:
            def hook(_module: nn.Module, _input: Any, output: Any) -> None:
                layers[layer] -= 1
                if layers[layer] == 0:
                    for index, tap in enumerate(self.taps):
                        if tap.layer == layer:
                            tensor = cast("Tensor", first_tensor(output))
                            rows[index] = apply_pool(tensor, tap.pool, n_prefix=self.n_prefix)
                    if self.stops_early and len(rows) == len(self.taps):
                        raise _Finished

            return hook

        handles = [self.module.get_submodule(layer).register_forward_hook(fire(layer)) for layer in layers]
        try:
            self.module(pixels)
        except _Finished:
            pass
        finally:
            for handle in handles:
                handle.remove()
        return tuple(rows[index] for index in range(len(self.taps)))
