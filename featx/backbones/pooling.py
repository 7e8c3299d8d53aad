"""What becomes of a tap's output: the layout it has, the pooling that fits it, the row that comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx.errors import OptionError

if TYPE_CHECKING:
    from torch import Tensor

#: Exponent of generalised-mean pooling (Radenović, Tolias & Chum, arXiv:1711.02512).
GEM_POWER = 3.0
GEM_FLOOR = 1e-6

#: Layouts: what the axes of one image's output mean.
VECTOR, MAP, MAP_CHANNELS_LAST, TOKENS, OTHER = "vector", "map", "map-channels-last", "tokens", "other"


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
