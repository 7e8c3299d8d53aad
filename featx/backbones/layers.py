"""Which layers a network has: one forward of one image, watched; what each costs; the names that Keras users know."""

from __future__ import annotations

import copy
import functools
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from featx.backbones.compiler import without_compiler
from featx.backbones.network import MAP, TOKENS, Tap, first_tensor, layout

if TYPE_CHECKING:
    from collections.abc import Callable

    from featx.recipe import Frame


@dataclass(frozen=True)
class Call:
    """The last call of one module in a forward.

    Attributes
    ----------
    shape : tuple of int
        Of its output for one image, without the batch axis.
    n_calls : int
        How often the module ran.
    parameters : int
        Distinct parameters of all that ran up to its end.
    flops : int
        Floating-point operations up to its end: convolutions, matrix products and attention, as torch counts them.
    """

    shape: tuple[int, ...]
    n_calls: int
    parameters: int
    flops: int


@dataclass
class Trace:
    """What ran in one forward, in order of completion, and the error that ended it early, if one did."""

    calls: dict[str, Call] = field(default_factory=dict)
    flops: int = 0
    error: Exception | None = None

    def gives(self, layers: tuple[str, ...]) -> bool:
        """Tell whether every one of `layers` ran and gave a non-empty output."""
        return all(layer in self.calls and all(self.calls[layer].shape) for layer in layers)


def structural_copy(module: nn.Module, *, meta: bool = False) -> nn.Module:
    """Copy the modules, with parameters of their own over the same memory; with `meta`, over no memory at all."""
    tensors = itertools.chain(module.parameters(), module.buffers())
    return copy.deepcopy(module, {id(tensor): _alias(tensor, "meta" if meta else tensor.device) for tensor in tensors})


def _alias(tensor: Tensor, device: torch.device | str) -> Tensor:
    twin = tensor.detach().to(device)
    return nn.Parameter(twin, requires_grad=False) if isinstance(tensor, nn.Parameter) else twin


@without_compiler()
def trace(module: nn.Module, height: int, width: int) -> Trace:
    """Run one blank image through `module` and note every call.

    The forward runs without numbers (on torch's meta device), which costs milliseconds; a network that cannot, or
    an image size that fails there, runs for real.
    """
    watched = _watch(_twin(module), torch.zeros(1, 3, height, width, device="meta"))
    return watched if watched.error is None else _watch(module, torch.zeros(1, 3, height, width))


def _twin(module: nn.Module) -> nn.Module:
    try:
        return structural_copy(module, meta=True)
    except Exception:  # noqa: BLE001 - a user's module may hold what cannot be copied; then it runs for real
        return module


def _watch(module: nn.Module, pixels: Tensor) -> Trace:
    """Note every call of every module while `pixels` run through."""
    watched, seen = Trace(), set[int]()
    n_parameters = 0

    def count(parameters: Any) -> None:
        nonlocal n_parameters
        fresh = {id(parameter): parameter.numel() for parameter in parameters if id(parameter) not in seen}
        seen.update(fresh)
        n_parameters += sum(fresh.values())

    def before(called: nn.Module, _: Any) -> None:
        count(called.parameters(recurse=False))

    def after(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(called: nn.Module, _: Any, output: Any) -> None:
            count(called.parameters())
            tensor = first_tensor(output)
            if tensor is not None:
                earlier = watched.calls.pop(name, None)
                n_calls = earlier.n_calls + 1 if earlier else 1
                watched.calls[name] = Call(tuple(tensor.shape[1:]), n_calls, n_parameters, counter.get_total_flops())

        return hook

    counter = FlopCounterMode(display=False)
    handles = [child.register_forward_pre_hook(before) for child in module.modules()]
    handles += [child.register_forward_hook(after(name)) for name, child in module.named_modules()]
    try:
        with torch.no_grad(), counter:
            module(pixels)
    except Exception as error:  # noqa: BLE001 - whatever a network raises at a size that it cannot take
        watched.error = error
    finally:
        for handle in handles:
            handle.remove()
    watched.flops = counter.get_total_flops()
    return watched


def has_class_token(module: nn.Module) -> bool:
    """Tell whether the first token of the network is a class token (timm's and torchvision's attribute names)."""
    return any(isinstance(getattr(module, name, None), Tensor) for name in ("cls_token", "class_token"))


def n_prefix_tokens(module: nn.Module) -> int:
    """Return how many tokens precede those of the image: class, distillation and register tokens."""
    return int(getattr(module, "num_prefix_tokens", has_class_token(module)))


def last_map(traced: Trace) -> Tap:
    """Return the last feature map of a network that we know nothing of; its output as it is where there is none."""
    maps = [name for name, call in traced.calls.items() if layout(call.shape) == MAP and call.shape[1] > 1]
    return Tap(maps[-1], "avg") if maps else Tap("")


@without_compiler()
def default_tap(module: nn.Module, frame: Frame, traced: Trace) -> Tap | None:
    """Return the features of a timm network: its last map averaged, or the pooled vector that its classifier sees.

    `traced` is its forward at the size of `frame`. None where no module's output is that map or vector.
    """
    twin: Any = structural_copy(module, meta=True)
    pixels = torch.zeros(1, 3, frame.height, frame.width, device="meta")
    produced: list[tuple[Tensor, str]] = []

    def remember(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _module, _input, output: produced.append((output, name))

    def producers(tensor: Tensor) -> list[str]:
        shape = tuple(tensor.shape[1:])
        names = [name for output, name in produced if output is tensor]
        return [name for name in names if name in traced.calls and traced.calls[name].shape == shape]

    for name, child in twin.named_modules():
        child.register_forward_hook(remember(name))
    try:
        with torch.no_grad():
            features = twin.forward_features(pixels)
            kind = layout(tuple(features.shape[1:]))
            if kind == MAP or (kind == TOKENS and getattr(twin, "global_pool", "") == "token"):
                # The last one: an in-place activation returns the very tensor that it was given.
                return Tap(producers(features)[-1], "avg" if kind == MAP else "cls")
            heads = producers(twin.forward_head(features, pre_logits=True))
            if heads:  # the first of the outermost: what follows is dropout
                return Tap(min(heads, key=lambda name: name.count(".")), "none")
            return Tap(producers(features)[-1])
    except Exception:  # noqa: BLE001 - an architecture without this interface, or not on the meta device
        return None


def size_test(module: nn.Module, layers: tuple[str, ...], native: Frame) -> Callable[[int], bool] | None:
    """Return what tells whether ``side x side`` images get `layers` to give something; None if `native` ones do not."""
    for runner, device in ((_twin(module), "meta"), (module, "cpu")):
        if _watch(runner, torch.zeros(1, 3, native.height, native.width, device=device)).gives(layers):
            return functools.partial(_gives, runner, device, layers)
    return None


def _gives(runner: nn.Module, device: str, layers: tuple[str, ...], side: int) -> bool:
    return _watch(runner, torch.zeros(1, 3, side, side, device=device)).gives(layers)


def smallest_size(works: Callable[[int], bool], too_small: int, enough: int) -> int:
    """Return the least side in pixels, above `too_small` and up to `enough`, that works."""
    while enough - too_small > 1:
        middle = (too_small + enough) // 2
        if works(middle):
            enough = middle
        else:
            too_small = middle
    return enough


# Keras names. A Keras layer's output includes its activation, so ``block1_conv1`` and ``fc1`` of the VGGs are taken
# after their ReLU. AlexNet's names are those of Caffe and MATLAB, where ``fc6`` and ``fc7`` are the linear layers
# *before* their ReLU and ``relu6`` and ``relu7`` come after it. A native module path gives the module's own output.


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
