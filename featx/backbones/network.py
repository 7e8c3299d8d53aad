"""Taps, and the network truncated at them: one forward that stops after the deepest tap and returns pooled rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

from torch import Tensor, nn

from featx.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable

#: Exponent of generalised-mean pooling (Radenović, Tolias & Chum, arXiv:1711.02512).
GEM_POWER = 3.0
GEM_FLOOR = 1e-6

#: Layouts: what the axes of one image's output mean.
VECTOR, MAP, MAP_CHANNELS_LAST, TOKENS, OTHER = "vector", "map", "map-channels-last", "tokens", "other"


class Tap(NamedTuple):
    """A place in a network: a module's path (empty for the whole network) and the pooling of its output."""

    layer: str
    pool: str = "auto"


def layout(shape: tuple[int, ...]) -> str:
    """Tell what an output of `shape`, without the batch axis, is.

    Networks see square images nearly always, so the two equal axes of a map are its height and width; where
    that does not decide, channels come first, as torch has it.

    Examples
    --------
    >>> layout((512, 7, 7)), layout((7, 7, 512)), layout((197, 768)), layout((1000,))
    ('map', 'map-channels-last', 'tokens', 'vector')
    """
    if len(shape) == 1:
        return VECTOR
    if len(shape) == 2:
        return TOKENS
    if len(shape) == 3:
        return MAP_CHANNELS_LAST if shape[0] == shape[1] != shape[2] else MAP
    return OTHER


def resolve_pool(pool: str, shape: tuple[int, ...], *, has_cls: bool, layer: str) -> str:
    """Return what ``auto`` means for an output of `shape`, or check that an explicit `pool` fits it.

    Maps go to ``avg``, vectors stay as they are (``none``), tokens go to ``cls`` if the network has a class
    token, else to ``avg``.

    Raises
    ------
    OptionError
        If the pooling needs an axis or a class token that is not there.
    """
    kind = layout(shape)
    if pool == "auto":
        return {VECTOR: "none", TOKENS: "cls" if has_cls else "avg", OTHER: "flatten"}.get(kind, "avg")
    if kind == VECTOR and pool in {"none", "flatten"}:
        return "none"
    if kind in {VECTOR, OTHER} and pool not in {"none", "flatten"}:
        size = "×".join(map(str, shape))
        raise OptionError(f"Layer {layer!r} gives {size} numbers, which --pool {pool} cannot pool. Drop --pool.")
    if pool == "cls" and not (kind == TOKENS and has_cls):
        raise OptionError(f"Layer {layer!r} has no class token for --pool cls. Type --pool avg, or drop --pool.")
    return pool


def apply_pool(output: Tensor, pool: str, *, n_prefix: int = 0) -> Tensor:
    """Pool the output of a layer, batch first, to rows.

    Parameters
    ----------
    output : Tensor of shape (n, d), (n, c, h, w), (n, h, w, c) or (n, tokens, d)
    pool : str
        As `resolve_pool` gives it.
    n_prefix : int
        Tokens before those of the image (class, distillation, register tokens); ``avg``, ``max`` and ``gem``
        leave them out.

    Returns
    -------
    Tensor of shape (n, d), or of the output with channels first for ``none``
        Float32, and never sharing memory with `output`: a later in-place ReLU cannot reach it.
    """
    output = output.float()
    kind = layout(tuple(output.shape[1:]))
    if kind == MAP_CHANNELS_LAST:
        output = output.permute(0, 3, 1, 2)
    if pool == "none":
        return output.clone()
    if pool == "flatten":
        return output.flatten(1).clone()
    if pool == "cls":
        return output[:, 0].clone()
    over = (1,) if kind == TOKENS else (2, 3)
    if kind == TOKENS:
        output = output[:, n_prefix:]
    if pool == "avg":
        return output.mean(over)
    if pool == "max":
        return output.amax(over)
    return output.clamp(min=GEM_FLOOR).pow(GEM_POWER).mean(over).pow(1 / GEM_POWER)


def pooled_shape(shape: tuple[int, ...], pool: str) -> tuple[int, ...]:
    """Return the shape of one row after `apply_pool`.

    Examples
    --------
    >>> pooled_shape((7, 7, 96), "none"), pooled_shape((256, 4, 4), "flatten"), pooled_shape((197, 768), "cls")
    ((96, 7, 7), (4096,), (768,))
    """
    kind = layout(shape)
    if kind == MAP_CHANNELS_LAST:
        shape = (shape[2], shape[0], shape[1])
    if pool == "none":
        return shape
    if pool == "flatten":
        n_values = 1
        for length in shape:
            n_values *= length
        return (n_values,)
    return (shape[-1],) if kind == TOKENS else (shape[0],)


def first_tensor(output: Any) -> Tensor | None:
    """Return the output itself, or the first of a tuple (attention returns its weights second); None for the rest."""
    if isinstance(output, tuple | list) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


class PooledTap(NamedTuple):
    """A module's path, how often it runs in one forward (its last output counts), and the pooling."""

    layer: str
    n_calls: int
    pool: str


class _Finished(Exception):
    """Every tap has fired: what the network would still compute, nobody asked for."""


class TruncatedNetwork(nn.Module):
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
