"""The layer names that Keras users know, for the networks that Keras and torch share.

A Keras layer's output includes its activation, so ``block1_conv1`` and ``fc1`` of the VGGs are taken after their
ReLU. AlexNet's names are those of Caffe and MATLAB, where ``fc6`` and ``fc7`` are the linear layers *before* their
ReLU and ``relu6`` and ``relu7`` come after it. A native module path always gives the module's own output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from featx.backbones.loaded import Tap

if TYPE_CHECKING:
    from collections.abc import Callable


def keras_names(module: nn.Module) -> dict[str, Tap]:
    """Return the Keras name → tap of every layer of `module` that has one."""
    find = _BY_CLASS.get(type(module).__name__)
    return find(module) if find else {}


def _vgg(module: Any) -> dict[str, Tap]:
    names, block, conv = {}, 1, 0
    for index, layer in enumerate(module.features):
        if isinstance(layer, nn.ReLU):  # with batch norm, too, the ReLU ends the convolution's step
            conv += 1
            names[f"block{block}_conv{conv}"] = Tap(f"features.{index}")
        elif isinstance(layer, nn.MaxPool2d):
            names[f"block{block}_pool"] = Tap(f"features.{index}")
            block, conv = block + 1, 0
    if hasattr(module, "classifier"):  # torchvision's: Linear, ReLU, Dropout, Linear, ReLU, Dropout, Linear
        names |= {"fc1": Tap("classifier.1"), "fc2": Tap("classifier.4"), "predictions": Tap("classifier.6")}
    return names


def _alexnet(module: Any) -> dict[str, Tap]:
    names, place = {}, 0
    for index, layer in enumerate(module.features):
        place += isinstance(layer, nn.Conv2d)
        kind = {nn.Conv2d: "conv", nn.ReLU: "relu", nn.MaxPool2d: "pool"}[type(layer)]
        names[f"{kind}{place}"] = Tap(f"features.{index}")
    heads = {"fc6": 1, "relu6": 2, "fc7": 4, "relu7": 5, "fc8": 6}
    return names | {name: Tap(f"classifier.{index}") for name, index in heads.items()}


def _resnet(module: Any) -> dict[str, Tap]:
    names = {
        f"conv{stage + 1}_block{block + 1}_out": Tap(f"layer{stage}.{block}")
        for stage in range(1, 5)
        for block in range(len(getattr(module, f"layer{stage}")))
    }
    return names | {"avg_pool": Tap("layer4", "avg"), "max_pool": Tap("layer4", "max")}


def _resnet_v2(_: Any) -> dict[str, Tap]:
    return {"post_relu": Tap("norm"), "avg_pool": Tap("norm", "avg"), "max_pool": Tap("norm", "max")}


def _inception_v3(_: Any) -> dict[str, Tap]:
    mixed = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")
    names = {f"mixed{index}": Tap(f"Mixed_{name}") for index, name in enumerate(mixed)}
    return names | {"avg_pool": Tap("Mixed_7c", "avg"), "max_pool": Tap("Mixed_7c", "max")}


def _inception_resnet_v2(module: Any) -> dict[str, Tap]:
    names = {"mixed_5b": Tap("mixed_5b"), "mixed_6a": Tap("mixed_6a"), "mixed_7a": Tap("mixed_7a")}
    for width, path in ((35, "repeat"), (17, "repeat_1"), (8, "repeat_2")):
        for index in range(len(getattr(module, path))):
            names[f"block{width}_{index + 1}_ac"] = Tap(f"{path}.{index}")
    conv = {"conv_7b_ac": Tap("conv2d_7b")}
    return names | conv | {"avg_pool": Tap("conv2d_7b", "avg"), "max_pool": Tap("conv2d_7b", "max")}


_BY_CLASS: dict[str, Callable[[Any], dict[str, Tap]]] = {
    "VGG": _vgg,
    "AlexNet": _alexnet,
    "ResNet": _resnet,
    "ResNetV2": _resnet_v2,
    "Inception3": _inception_v3,
    "InceptionV3": _inception_v3,
    "InceptionResnetV2": _inception_resnet_v2,
}
