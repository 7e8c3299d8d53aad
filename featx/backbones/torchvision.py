"""torchvision's classification networks, by torchvision's own names."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchvision import models

from featx.backbones.network import Tap
from featx.backbones.registry import Loaded, Preprocessing, square
from featx.backbones.weights import as_file, fit_state, read_state, seeded, unavailable, uninitialised, unknown_tag

#: Class of network → its last feature map or, for transformers, the pooled token that its classifier sees.
_DEFAULT_TAPS = {
    "AlexNet": Tap("features", "avg"),
    "VGG": Tap("features", "avg"),
    "ResNet": Tap("layer4", "avg"),
    "SqueezeNet": Tap("features", "avg"),
    "DenseNetWithRelu": Tap("relu", "avg"),
    "Inception3": Tap("Mixed_7c", "avg"),
    "GoogLeNet": Tap("inception5b", "avg"),
    "ShuffleNetV2": Tap("conv5", "avg"),
    "MobileNetV2": Tap("features", "avg"),
    "MobileNetV3": Tap("features", "avg"),
    "MNASNet": Tap("layers", "avg"),
    "EfficientNet": Tap("features", "avg"),
    "RegNet": Tap("trunk_output", "avg"),
    "ConvNeXt": Tap("features", "avg"),
    "VisionTransformer": Tap("encoder", "cls"),
    "SwinTransformer": Tap("flatten", "none"),
    "MaxVit": Tap("blocks.3", "avg"),
}
#: DenseNet checkpoints predate torch's ban on dots in module names; torchvision renames the same way.
_DENSENET_KEY = re.compile(
    r"^(.*denselayer\d+\.(?:norm|relu|conv))\.((?:[12])\.(?:weight|bias|running_mean|running_var))$"
)


class DenseNetWithRelu(models.DenseNet):
    """DenseNet whose last ReLU, which torchvision calls as a function, is a module and so can be tapped."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute what torchvision's DenseNet computes."""
        maps = self.relu(self.features(x))
        logits: Tensor = self.classifier(torch.flatten(nn.functional.adaptive_avg_pool2d(maps, (1, 1)), 1))
        return logits


def names() -> list[str]:
    """Return the names of all classification networks of the installed torchvision."""
    return list(models.list_models(module=models))


def tags() -> dict[str, list[str]]:
    """Return, for each network, the names of the weights that torchvision has for it."""
    return {name: [tag.name for tag in models.get_model_weights(name)] for name in names()}


def load(name: str, weights: str, seed: int) -> Loaded:
    """Build network `name` and load `weights`: ``imagenet`` (the library's default), ``none``, a path or a tag.

    A file that bears the name of one of torchvision's own downloads is taken for exactly that: Inception v3's
    weights, for one, need the input transform that torchvision then switches on.
    """
    known = {tag.name: tag for tag in models.get_model_weights(name)}
    default = models.get_model_weights(name).DEFAULT
    full_name = f"torchvision/{name}"
    path, unweighted = None, tuple[str, ...]()
    if weights == "none":
        with seeded(seed):
            module, label, preprocessing = _build(name), f"random-{seed}", default
    elif (file := as_file(weights)) is not None:
        path, state = file.path, read_state(file)
        tag = next((tag for tag in known.values() if Path(tag.url).name == path.name), None)
        with uninitialised():
            module = _build(name, state, official=tag is not None)
        unweighted = fit_state(
            module,
            {_DENSENET_KEY.sub(r"\1\2", key): value for key, value in state.items()},
            source=str(file),
            name=full_name,
        )
        label, preprocessing = (tag.name, tag) if tag else ("file", default)
    else:
        tag = default if weights == "imagenet" else known.get(weights)
        if tag is None:
            raise unknown_tag(weights, full_name, list(known))
        module, label, preprocessing = _download(name, tag), tag.name, tag
        path = _checkpoint(tag)
    return Loaded(
        name=full_name,
        weights=label,
        module=_with_final_relu(module).eval(),
        preprocessing=_preprocessing(preprocessing),
        default=_DEFAULT_TAPS.get(type(module).__name__),
        files=(path,) if path else (),
        unweighted=unweighted,
    )


def _build(name: str, state: dict[str, Tensor] | None = None, *, official: bool = False) -> nn.Module:
    options: dict[str, Any] = {}
    if name in {"inception_v3", "googlenet"}:  # the two whose builders change with the weights
        options = {"init_weights": state is None, "transform_input": official}
        if state is not None:
            options["aux_logits"] = any(key.lower().startswith("aux") for key in state)
    return cast("nn.Module", models.get_model(name, weights=None, **options))


def _download(name: str, tag: Any) -> nn.Module:
    try:
        # torch.hub announces a download on stdout, which belongs to results.
        with uninitialised(), contextlib.redirect_stdout(sys.stderr):
            return cast("nn.Module", models.get_model(name, weights=tag, progress=sys.stderr.isatty()))
    except (OSError, RuntimeError) as error:  # RuntimeError: the file's hash is not the published one
        raise unavailable(f"torchvision/{name}", tag.url, error) from error


def _checkpoint(tag: Any) -> Path:
    return Path(torch.hub.get_dir(), "checkpoints", Path(tag.url).name)


def _preprocessing(tag: Any) -> Preprocessing:
    preset = tag.transforms()
    frame = square(preset.crop_size[0], shorter=preset.resize_size[0], interpolation=preset.interpolation.value)
    return Preprocessing(frame=frame, mean=tuple(preset.mean), std=tuple(preset.std))


def _with_final_relu(module: nn.Module) -> nn.Module:
    if type(module).__name__ == "DenseNet":
        module.add_module("relu", nn.ReLU())
        module.__class__ = DenseNetWithRelu
    return module
