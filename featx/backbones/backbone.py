"""A `Backbone`: a frozen network, the preprocessing that belongs to its weights, and its named layers."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from featx.backbones import weights
from featx.backbones.layer_sets import layer_set, stages
from featx.backbones.layers import (
    Trace,
    has_class_token,
    keras_names,
    last_map,
    n_prefix_tokens,
    size_test,
    smallest_size,
    trace,
)
from featx.backbones.network import PooledTap, Tap, TruncatedNetwork, pooled_shape, resolve_pool
from featx.backbones.registry import load_by_name
from featx.errors import FeatxError, ImageSizeError, OptionError, UnknownLayerError, WeightsError
from featx.recipe import DEFAULT_LAYER, HANDED_OVER, SET, Frame, Recipe, Request

if TYPE_CHECKING:
    from pathlib import Path

    from featx.backbones.registry import Channels, Loaded, Preprocessing


def load(request: Request) -> Backbone:
    """Load the network that `request` names, with its weights and preprocessing.

    Raises
    ------
    UnknownBackboneError
        With the nearest name as a suggestion.
    WeightsUnavailable
        If the weights cannot be downloaded; says what to type instead.
    WeightsError
        If a file does not fit the network.

    Examples
    --------
    >>> backbone = load(Request(backbone="alexnet", weights="none"))
    >>> backbone.name, backbone.frame.height, backbone.default_layer.layer
    ('torchvision/alexnet', 224, 'features')
    """
    return Backbone(load_by_name(request.backbone, request.weights, request.seed, request.image_size), request)


def resolve(request: Request) -> tuple[Backbone, list[Recipe]]:
    """Load the backbone of `request` and say, for each of its layers, exactly what will be computed.

    Raises
    ------
    UnknownLayerError
        With the nearest name as a suggestion.
    ImageSizeError
        If the network, up to its deepest layer, cannot take images of that size.
    OptionError
        If the pooling does not fit a layer, and all that `load` raises.
    """
    backbone = load(request)
    return backbone, backbone.recipes(request)


@dataclass(frozen=True, kw_only=True)
class LayerInfo:
    """One line of ``featx layers``.

    Attributes
    ----------
    name : str
        Native module path; empty for the network's own output.
    keras : str or None
        The name that Keras users type for it.
    shape : tuple of int
        Of the output for one image, channels first for maps; of the pooled vector where the Keras name pools.
    parameters : int
        Of everything that runs up to there.
    share : float
        Of the whole forward's floating-point operations up to there, 0–1. Convolutions, matrix products and
        attention count, as in `torch.utils.flop_counter`; the rest is memory traffic.
    """

    name: str
    keras: str | None
    shape: tuple[int, ...]
    parameters: int
    share: float


class Backbone:
    """A frozen network and what belongs to it.

    Attributes
    ----------
    name : str
        Full name with the library, ``torchvision/vgg16``.
    weights : str
        Tag of the weights.
    module : torch.nn.Module
        The whole network, in evaluation mode.
    frame : Frame
    mean, std : tuple of float
        Per channel, in units of pixels scaled to 0–1.
    files : tuple of Path
        Weight files that were read.
    """

    def __init__(self, loaded: Loaded, request: Request) -> None:
        self.name = loaded.name
        self.weights = loaded.weights
        self.module: nn.Module = loaded.module
        self.files: tuple[Path, ...] = loaded.files
        self._asked = request.backbone
        self._default = loaded.default
        self._native = loaded.preprocessing
        self._native_trace = loaded.traced
        self._unweighted = loaded.unweighted
        self.preprocessing: Preprocessing = loaded.preprocessing.changed_by(request)

    @property
    def frame(self) -> Frame:
        """How images become the network's input."""
        return self.preprocessing.frame

    @property
    def mean(self) -> Channels:
        """Mean of each channel, for pixels scaled to 0–1."""
        return self.preprocessing.mean

    @property
    def std(self) -> Channels:
        """Standard deviation of each channel, for pixels scaled to 0–1."""
        return self.preprocessing.std

    @functools.cached_property
    def weights_digest(self) -> str:
        """SHA-256 (hex) of the whole network's state."""
        return weights.digest(self.module)

    @property
    def n_parameters(self) -> int:
        """Number of trainable parameters of the whole network; batch-norm statistics are not among them."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    @functools.cached_property
    def default_layer(self) -> Tap:
        """What features are when no layer is named."""
        if self._default is None and has_class_token(self.module):
            return Tap("")  # what looks like a map may be an attention matrix
        return self._default or last_map(self._trace_at(self._native.frame))

    def layers(self) -> list[LayerInfo]:
        """Return every layer that runs at this backbone's image size, in order, Keras names included.

        Raises
        ------
        ImageSizeError
            If the network cannot take images of that size at all.
        """
        if self._trace.error is not None:
            raise self._size_error(("",))
        pooled = [(keras, tap) for keras, tap in self._keras.items() if tap.pool != "auto"]
        plain = {tap.layer: keras for keras, tap in self._keras.items() if tap.pool == "auto"}
        rows = []
        for name in self._trace.calls:
            rows.append(self._info(name, plain.get(name), "none"))
            rows += [self._info(name, keras, tap.pool) for keras, tap in pooled if tap.layer == name]
        return rows

    def network(self, recipes: list[Recipe]) -> TruncatedNetwork:
        """Return the network truncated after the deepest layer of `recipes`, one output for each of them.

        It takes normalised float images (n, 3, height, width) and gives pooled rows in float32.
        """
        taps = [PooledTap(recipe.layer, self._trace.calls[recipe.layer].n_calls, recipe.pool) for recipe in recipes]
        return TruncatedNetwork(self.module, taps, n_prefix=n_prefix_tokens(self.module))

    def output_shape(self, layer: str) -> tuple[int, ...]:
        """Return the shape of what a module gives for one image, as the network itself lays it out."""
        return self._trace.calls[layer].shape

    def recipes(self, request: Request) -> list[Recipe]:
        """Return one recipe for each layer and pooling of `request`; the default layer's where it names none."""
        asked = [layer for name in request.layers or (DEFAULT_LAYER,) for layer in self._named(name)]
        taps = [(layer, self._tap(layer, pool)) for layer in asked for pool in request.pools]
        layers = tuple(tap.layer for _, tap in taps)
        if not self._trace.gives(layers):
            raise self._size_error(layers)
        self._check_weighted(layers)
        # Two names of one thing are one table.
        return list(dict.fromkeys(self._recipe(name, tap, request) for name, tap in taps))

    def _named(self, name: str) -> list[str]:
        """Return the layers of a set, or the layer itself."""
        if not name.startswith(SET):
            return [name]
        if self._trace.error is not None:
            raise self._size_error((self.default_layer.layer,))
        return layer_set(name.removeprefix(SET), self.module, self._trace, self.default_layer.layer)

    def _check_weighted(self, layers: tuple[str, ...]) -> None:
        """Refuse layers that need a classifier for which the file had no weights."""
        calls = list(self._trace.calls)
        for path in self._unweighted:
            first = next((i for i, call in enumerate(calls) if call == path or call.startswith(f"{path}.")), len(calls))
            for layer in layers:
                if calls.index(layer) >= first:
                    raise WeightsError(
                        f"{self.files[0]} has no weights that fit the classifier {path!r} of {self.name}, and layer "
                        f"{layer or 'output'!r} needs it. Name a layer before it: featx layers {self._asked}"
                    )

    @functools.cached_property
    def _trace(self) -> Trace:
        return self._trace_at(self.frame)

    def _trace_at(self, frame: Frame) -> Trace:
        own = self._native.frame
        if self._native_trace is not None and (frame.height, frame.width) == (own.height, own.width):
            return self._native_trace
        return trace(self.module, frame.height, frame.width)

    @functools.cached_property
    def _keras(self) -> dict[str, Tap]:
        return keras_names(self.module)

    def _recipe(self, name: str, tap: Tap, request: Request) -> Recipe:
        shape = self._trace.calls[tap.layer].shape
        pool = resolve_pool(tap.pool, shape, has_cls=has_class_token(self.module), layer=name or "output")
        return Recipe(
            backbone=self.name,
            weights=self.weights,
            weights_digest=self.weights_digest,
            layer=tap.layer,
            pool=pool,
            shape=pooled_shape(shape, pool),
            dtype=request.dtype,
            precision=request.precision,
            frame=self.frame,
            mean=self.mean,
            std=self.std,
            version=request.version,
        )

    def _tap(self, name: str, pool: str) -> Tap:
        """Resolve a Keras name or a module path; a Keras name that pools (``max_pool``) is a vector already."""
        if name in self._keras:
            layer, own_pool = self._keras[name]
            if own_pool == "auto":
                return Tap(layer, pool)
            if pool not in {"auto", "none", "flatten", own_pool}:
                raise OptionError(
                    f"Layer {name!r} is already pooled by {own_pool}. Drop --pool {pool}, or name {layer!r}."
                )
            return Tap(layer, own_pool)
        modules = dict(self.module.named_modules(remove_duplicate=False))
        if name == "output" and name not in modules:
            return Tap("", pool)
        if name == DEFAULT_LAYER and name not in modules:
            return self._default_with(pool)
        if name not in modules or name == "":
            raise self._unknown_layer(name)
        # One module may have several paths; it ran under the first.
        path = next(path for path, module in self.module.named_modules() if module is modules[name])
        if self._trace.error is None and path not in self._trace.calls:
            raise OptionError(f"Layer {name!r} gives no tensor in evaluation. All that do: featx layers {self._asked}")
        return Tap(path, pool)

    def _unknown_layer(self, name: str) -> UnknownLayerError:
        known = [*self._keras, *self._trace.calls]
        held = self._asked.startswith(HANDED_OVER)
        listing = "network.named_modules()" if held else f"featx layers {self._asked}"
        error = UnknownLayerError.among("layer", name, filter(None, known), listing)
        smaller = ", ".join(stages({path: call.shape for path, call in self._trace.calls.items()}))
        return UnknownLayerError(f"{error}." + (f" Where its maps become smaller: {smaller}" if smaller else ""))

    def _default_with(self, pool: str) -> Tap:
        layer, own_pool = self.default_layer
        return Tap(layer, own_pool if pool == "auto" else pool)

    def _info(self, name: str, keras: str | None, pool: str) -> LayerInfo:
        call = self._trace.calls[name]
        return LayerInfo(
            name=name,
            keras=keras,
            shape=pooled_shape(call.shape, pool),
            parameters=call.parameters,
            share=call.flops / self._trace.flops if self._trace.flops else 1.0,
        )

    def _size_error(self, layers: tuple[str, ...]) -> FeatxError:
        """Explain why `layers` give nothing at this frame's size, and what to type."""
        own, got = self._native.frame, self.frame
        works = size_test(self.module, layers, own)
        if works is None:
            first = next((m for m in self.module.modules() if isinstance(m, nn.Conv2d)), None)
            if first is not None and first.in_channels != 3:
                return OptionError(
                    f"{self._asked} takes images of {first.in_channels} channel(s); featx gives it colour. "
                    "Put a layer in front of it that makes one of the three, such as their mean."
                )
            return OptionError(f"{self._asked} fails on a blank image of {_size(got)}: {self._trace.error!r}")
        native = f"Drop --image-size to resize to its native {_size(own)}."
        if not works(2 * max(own.height, own.width)):
            return ImageSizeError(f"{self._asked} takes images of {_size(own)} only, got {_size(got)}. {native}")
        if got.height >= own.height:
            return ImageSizeError(f"{self._asked} cannot take images of {_size(got)}: {self._trace.error}. {native}")
        least = smallest_size(works, got.height, own.height)
        return ImageSizeError(f"{self._asked} needs images of at least {least}×{least}, got {_size(got)}. {native}")


def _size(frame: Frame) -> str:
    return f"{frame.height}×{frame.width}"
