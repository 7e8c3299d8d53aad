"""Stacks of layers written as text: ``256 relu 128 relu drop.3 64 relu bn``.

Words, each one layer:

- ``256``: dense with so many outputs
- ``conv32``: convolution 3×3 with 32 channels, same size; ``conv32x5`` for 5×5
- ``relu leaky gelu silu elu tanh sigmoid``: activations; ``leaky.1`` for its slope
- ``bn``: batch normalisation; ``drop.3``: dropout of 30 %
- ``max``, ``avg``: pooling 2×2 (a side of one pixel stays one); ``gap``: average over the whole map
- ``attend4``: so many learned queries, each an average over the whole map with weights of its own
- ``split12``: a vector of so many parts side by side, such as layers of one width, to a map of so many positions
- ``flat``: map to vector, in (c, h, w) order; put in by itself before a dense layer
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

from featx.errors import OptionError
from featx.heads.targets import Array

if TYPE_CHECKING:
    from torch import nn

#: torch's default.
BATCH_NORM_EPS = 1e-5

#: Words with a number, as patterns whose groups are the number and the kernel's side.
_NUMBERED = {
    "dense": r"([1-9]\d{0,5})()",
    "conv": r"conv([1-9]\d{0,5})(?:x([1-9]\d?))?",
    "drop": r"drop(0?\.\d+)()",
    "attend": r"attend([1-9]\d{0,3})()",
    "split": r"split([1-9]\d{0,4})()",
    "leaky": r"leaky(0?\.\d+)?()",
}
_DEFAULTS = {"leaky": 0.01}

#: Layers that need a map.
FOR_MAPS = ("conv", "max", "avg", "gap", "attend")

_PLAIN = ("bn", "max", "avg", "gap", "flat", "relu", "gelu", "silu", "elu", "tanh", "sigmoid")


@dataclass(frozen=True)
class Layer:
    """One layer: its kind and the number it was given (outputs, share dropped or slope)."""

    kind: str
    number: float = 0.0
    kernel: int = 3


def parse_layers(text: str) -> tuple[Layer, ...]:
    """Return the layers that `text` names, see the module's list of words.

    Raises
    ------
    OptionError
        If a word is not on that list.

    Examples
    --------
    >>> parse_layers("64 relu drop.3")
    (Layer(kind='dense', number=64.0, kernel=3), Layer(kind='relu', number=0.0, kernel=3),
     Layer(kind='drop', number=0.3, kernel=3))
    """
    return tuple(_parse_word(word) for word in str(text).lower().replace(",", " ").split())


def _parse_word(word: str) -> Layer:
    if word in _PLAIN:
        return Layer(word)
    for kind, pattern in _NUMBERED.items():
        if match := re.fullmatch(pattern, word):
            number, kernel = match.groups()
            return Layer(kind, float(number or _DEFAULTS[kind]), int(kernel or 3))
    raise OptionError(
        f"Unknown layer {word!r}. A stack is written like '256 relu drop.3 64 relu bn' or 'conv32 relu max flat 128'."
    )


def dense_stack(hidden: Any, *, activation: str, dropout: float, batch_norm: bool) -> tuple[Layer, ...]:
    """Return dense layers of the widths `hidden`, each with batch normalisation, activation and dropout as asked.

    Examples
    --------
    >>> [layer.kind for layer in dense_stack((8,), activation="relu", dropout=0.5, batch_norm=True)]
    ['dense', 'bn', 'relu', 'drop']
    """
    widths = (hidden,) if isinstance(hidden, int | float) else tuple(hidden)
    words = []
    for width in widths:
        words += [f"{width:g}", "bn" if batch_norm else "", activation, f"drop{dropout:.6f}" if dropout else ""]
    return parse_layers(" ".join(words))


@dataclass(frozen=True)
class Step:
    """One module of a network: its layer, and the shapes of a row before and after it."""

    layer: Layer
    before: tuple[int, ...]
    after: tuple[int, ...]


def trace(layers: tuple[Layer, ...], shape: tuple[int, ...], n_outputs: int) -> list[Step]:
    """Return the modules that the layers and a last dense one with `n_outputs` make, with their shapes.

    Parameters
    ----------
    layers : tuple of Layer
    shape : tuple of int
        Of one row: (c, h, w), tokens (t, c), or (d,), which layers for maps take as a map of one pixel.
    n_outputs : int
        Scores a row.

    Raises
    ------
    OptionError
        If a layer for maps comes after the map was flattened, or a vector has no such parts.

    Examples
    --------
    >>> [(step.layer.kind, step.after) for step in trace(parse_layers("conv8 max 16"), (3, 4, 4), 2)]
    [('conv', (8, 4, 4)), ('max', (8, 2, 2)), ('flat', (32,)), ('dense', (16,)), ('dense', (2,))]
    """
    steps: list[Step] = []

    def add(layer: Layer, after: tuple[int, ...]) -> None:
        steps.append(Step(layer, steps[-1].after if steps else shape, after))

    if len(shape) == 2:
        add(Layer("tokens", shape[0]), (shape[1], shape[0], 1))
    if len(shape) == 1 and {layer.kind for layer in layers} & {*FOR_MAPS} and layers[0].kind != "split":
        add(Layer("unflat"), (*shape, 1, 1))
    for layer in (*layers, Layer("dense", n_outputs)):
        now = steps[-1].after if steps else shape
        if len(now) == 1 and layer.kind in FOR_MAPS:
            raise OptionError(f"Layer {layer.kind!r} needs a map, but comes after the map was flattened.")
        if len(now) == 3 and layer.kind == "dense":
            add(Layer("flat"), (now[0] * now[1] * now[2],))
        match layer.kind:
            case "dense":
                add(layer, (int(layer.number),))
            case "conv":
                add(layer, (int(layer.number), *now[1:]))
            case "max" | "avg":
                add(layer, (now[0], max(1, now[1] // 2), max(1, now[2] // 2)))
            case "gap":
                add(layer, (now[0],))
            case "attend":
                add(layer, (int(layer.number) * now[0],))
            case "split":
                add(layer, _split(now, int(layer.number)))
            case "flat":
                add(layer, (int(np.prod(now)),))
            case _:
                add(layer, now)
    return steps


def _split(shape: tuple[int, ...], n: int) -> tuple[int, int, int]:
    """Return the shape of the map that a vector of n parts becomes."""
    if len(shape) != 1 or shape[0] % n:
        raise OptionError(f"Rows of shape {shape} are not {n} vectors of one width side by side. Set parts=1.")
    return shape[0] // n, n, 1


def state_shapes(steps: list[Step]) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every array in the state dict of `build_network` that prediction needs.

    Examples
    --------
    >>> state_shapes(trace(parse_layers("16 relu"), (4,), 2))
    {'0.weight': (16, 4), '0.bias': (16,), '2.weight': (2, 16), '2.bias': (2,)}
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for i, step in enumerate(steps):
        outputs, inputs = step.after[0], step.before[0]
        if step.layer.kind == "dense":
            shapes |= {f"{i}.weight": (outputs, inputs), f"{i}.bias": (outputs,)}
        elif step.layer.kind == "conv":
            kernel = (step.layer.kernel, step.layer.kernel)
            shapes |= {f"{i}.weight": (outputs, inputs, *kernel), f"{i}.bias": (outputs,)}
        elif step.layer.kind == "attend":
            shapes |= {f"{i}.weight": (int(step.layer.number), inputs)}
        elif step.layer.kind == "bn":
            names = ("weight", "bias", "running_mean", "running_var")
            shapes |= {f"{i}.{name}": (outputs,) for name in names}
    return shapes


def build_network(steps: list[Step], *, init: str = "glorot") -> nn.Sequential:
    """Return the modules of `trace` as a torch network.

    Parameters
    ----------
    steps : list of Step
    init : {"glorot", "he"}
        Distribution of the weights, uniform (Glorot and Bengio 2010; He et al. 2015); biases are zero.
    """
    from torch import nn

    network = nn.Sequential(*map(_module, steps))
    fill = nn.init.xavier_uniform_ if init == "glorot" else nn.init.kaiming_uniform_
    for module in network:
        if isinstance(module, nn.Linear | nn.Conv2d):
            fill(module.weight)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    return network


def _module(step: Step) -> nn.Module:
    from torch import nn

    number, inputs = int(step.layer.number), step.before[0]
    match step.layer.kind:
        case "dense":
            return nn.Linear(inputs, number)
        case "conv":
            return nn.Conv2d(inputs, number, step.layer.kernel, padding="same")
        case "max" | "avg":
            # A side of one pixel stays one.
            size = (min(2, step.before[1]), min(2, step.before[2]))
            return nn.MaxPool2d(size) if step.layer.kind == "max" else nn.AvgPool2d(size)
        case "gap":
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        case "attend" | "split" | "tokens":
            from featx.heads.attention import Attend, Tokens

            return Attend(number, inputs) if step.layer.kind == "attend" else Tokens(number)
        case "flat":
            return nn.Flatten()
        case "unflat":
            return nn.Unflatten(1, step.after)
        case "bn":
            return nn.BatchNorm2d(inputs) if len(step.before) == 3 else nn.BatchNorm1d(inputs)
        case "drop":
            return nn.Dropout(step.layer.number)
        case "leaky":
            return nn.LeakyReLU(step.layer.number)
    plain: dict[str, type[nn.Module]] = {
        "relu": nn.ReLU,
        "gelu": nn.GELU,
        "silu": nn.SiLU,
        "elu": nn.ELU,
        "tanh": nn.Tanh,
        "sigmoid": nn.Sigmoid,
    }
    return plain[step.layer.kind]()


def apply_dense(steps: list[Step], state: dict[str, Array], X: Array) -> Array:
    """Return the scores (n, k) of rows X (n, d) by numpy: `build_network` in evaluation, for stacks without maps.

    `state` is the network's state dict, whose names begin with the number of the module.
    """
    for i, step in enumerate(steps):
        X = apply_layer(i, step.layer, state, X)
    return X


def apply_layer(i: int, layer: Layer, state: dict[str, Array], X: Array) -> Array:
    """Return what the `i`-th layer of such a stack makes of its inputs."""
    if layer.kind == "dense":
        return X @ state[f"{i}.weight"].T + state[f"{i}.bias"]
    if layer.kind == "bn":
        scale = state[f"{i}.weight"] / np.sqrt(state[f"{i}.running_var"] + BATCH_NORM_EPS)
        return (X - state[f"{i}.running_mean"]) * scale + state[f"{i}.bias"]
    return X if layer.kind in ("drop", "flat") else _activate(layer, X)


def _activate(layer: Layer, X: Array) -> Array:
    """Apply an activation as torch defines it."""
    functions: dict[str, Callable[[Array], Array]] = {
        "relu": lambda X: np.maximum(X, 0),
        "leaky": lambda X: np.where(X > 0, X, X * X.dtype.type(layer.number)),
        "gelu": lambda X: X * scipy.special.ndtr(X),
        "silu": lambda X: X * scipy.special.expit(X),
        "elu": lambda X: np.where(X > 0, X, np.expm1(np.minimum(X, 0))),
        "tanh": np.tanh,
        "sigmoid": lambda X: scipy.special.expit(X),  # noqa: PLW0108 - which is imported when it is used
    }
    return functions[layer.kind](X)
