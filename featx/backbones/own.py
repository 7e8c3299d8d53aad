"""Networks of the user's own: held in Python, ``package.module:function``, or a plug-in's (``featx.backbones``)."""

from __future__ import annotations

import copy
import hashlib
import importlib
import inspect
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from featx.backbones.registry import IMAGENET_MEAN, IMAGENET_STD, Loaded, Preprocessing
from featx.backbones.weights import as_file, fit_state, read_state, seeded, unknown_tag
from featx.errors import OptionError, UnknownBackboneError
from featx.recipe import HANDED_OVER, Frame

log = logging.getLogger("featx")

_HELD: dict[str, Loaded] = {}
_BY_NAME = "backbone='package.module:function'"
_LIBRARIES = ("torch", "torchvision", "timm")
#: Steps of transforms that make a tensor of an image and change no value.
_AS_IT_IS = {"ToTensor", "MaybeToTensor", "PILToTensor", "MaybePILToTensor", "ToImage", "ConvertImageDtype", "ToDtype"}
_LITERALS = ("height", "width", "resize", "shorter", "interpolation", "mean", "std")


def hand_over(backbone: Any, transform: Any = None, version: str | None = None) -> tuple[str, str]:
    """Take a network that somebody holds in Python, and return the name and the version to ask for it by.

    The network is copied: what is done to it later, by training for one, changes no features.

    Parameters
    ----------
    backbone : torch.nn.Module or callable
        Of (n, 3, height, width) floats; a callable takes nothing and returns one.
    transform : callable or mapping, optional
        How its images are prepared: a transform of torchvision or timm, or the dictionary of `load`.
    version : str, optional
        What its features are kept under beside its weights; by default a hash of its code and settings.

    Raises
    ------
    OptionError
        If it is no network, if `transform` does what featx cannot, or if it has no version and its code cannot be read.
    """
    if isinstance(backbone, torch.jit.ScriptModule):
        raise OptionError(
            "A TorchScript program shows none of its layers. Hand over the torch.nn.Module that it was made from."
        )
    if not isinstance(backbone, nn.Module) and callable(backbone) and not isinstance(backbone, type):
        try:
            inspect.signature(backbone).bind()
        except (TypeError, ValueError) as error:
            raise OptionError(
                "A function as backbone= takes no arguments and returns a torch.nn.Module. Make one that takes images "
                "the forward of a module."
            ) from error
        with seeded(0):
            backbone = backbone()
    if isinstance(backbone, type) and issubclass(backbone, nn.Module):
        raise OptionError(f"backbone={backbone.__name__} is a class. Hand over a network: {backbone.__name__}(…).")
    if not isinstance(backbone, nn.Module):
        raise OptionError(
            "backbone must be a name from featx backbones, a torch.nn.Module, or a function without arguments that "
            f"returns one; got {type(backbone).__name__}."
        )
    kind = type(backbone).__qualname__.rpartition(".")[2]
    by_code, version = version is None, _version_of(backbone) if version is None else str(version)
    name = f"{HANDED_OVER}{kind}@{version}"
    if by_code and name not in _HELD:
        log.warning('%s is known by its weights and a hash of its code; version="1" is a name of your own.', name)
    if transform is None and name not in _HELD:
        log.warning("%s: images are prepared as for ImageNet, 224×224. Say what it was trained on: transform=", kind)
    literals = transform if isinstance(transform, Mapping) else read_transform(transform)
    try:
        network = copy.deepcopy(backbone).cpu().eval().requires_grad_(requires_grad=False)
    except Exception as error:
        raise OptionError(f"{kind} cannot be copied ({error}). Name a function that makes it: {_BY_NAME}.") from error
    _HELD[name] = Loaded(
        name=name, weights="own", module=network, preprocessing=_preprocessing(f"transform of {kind}", literals)
    )
    return name, version


def load(reference: str, weights: str, seed: int) -> Loaded:
    """Call the function that `reference` names and take its network.

    The function takes nothing and returns an `nn.Module` that sees (n, 3, height, width) floats, or that and a
    dictionary with any of ``height``, ``width``, ``resize``, ``shorter``, ``interpolation``, ``mean`` and ``std``
    (else 224×224 from a shorter side of 256, bilinear, ImageNet's mean and standard deviation).
    Random numbers that it draws come from `seed`. Its weights are as returned, or those of the file `weights`.
    """
    if reference.startswith(HANDED_OVER):
        if reference not in _HELD:
            raise UnknownBackboneError(
                f"{reference} was handed over by a Python program, which this one has not done. Hand it over again "
                f"(featx.extract(backbone=network)), or put what makes it into a file: {_BY_NAME}."
            )
        return _HELD[reference]
    function = _function(reference)
    with seeded(seed):
        result = function()
    module, literals = result if isinstance(result, tuple) and len(result) == 2 else (result, {})
    if not isinstance(module, nn.Module) or not isinstance(literals, Mapping):
        raise OptionError(
            f"{reference} must return a torch.nn.Module, or that and a dictionary; got {type(result).__name__}."
        )
    file, unweighted, label = None, tuple[str, ...](), f"random-{seed}" if weights == "none" else "own"
    if weights not in {"imagenet", "none"}:
        file = as_file(weights)
        if file is None:
            raise unknown_tag(weights, reference, [])
        unweighted = fit_state(module, read_state(file), source=str(file), name=reference)
        label = "file"
    return Loaded(
        name=reference,
        weights=label,
        module=module.eval(),
        preprocessing=_preprocessing(reference, literals),
        files=(file.path,) if file else (),
        unweighted=unweighted,
    )


def _version_of(module: nn.Module) -> str:
    """Name a network's code: a hash of the source of its own classes, of their settings, and of libraries' versions."""
    sha, seen = hashlib.sha256(), set[type]()
    for path, child in module.named_modules():
        kind = type(child)
        library = kind.__module__.partition(".")[0]
        sha.update(f"{path} {kind.__module__}.{kind.__qualname__}\n".encode())
        if kind not in seen:
            seen.add(kind)
            sha.update((metadata.version(library) if library in _LIBRARIES else _source(kind)).encode())
        settings = {name: value for name, value in vars(child).items() if name[0] != "_" and name != "training"}
        odd = [name for name, value in settings.items() if not _is_plain(value)]
        hooked = child._forward_hooks or child._forward_pre_hooks or "forward" in settings  # noqa: SLF001 - no other way
        if hooked or (odd and library not in _LIBRARIES):
            raise _nameless(f"What {f'attribute {odd[0]!r}' if odd else 'a hook'} of {kind.__qualname__} does")
        sha.update(repr(sorted((name, value) for name, value in settings.items() if _is_plain(value))).encode())
    return f"code-{sha.hexdigest()[:12]}"


def _source(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError) as error:
        raise _nameless(f"The code of {kind.__qualname__}") from error


def _nameless(what: str) -> OptionError:
    return OptionError(
        f"{what} cannot be read, so its features cannot be named. Say which version of the network this is, "
        'version="1", and raise it when the network changes.'
    )


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list | torch.Size):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str | torch.dtype)


def read_transform(transform: Any) -> dict[str, Any]:
    """Return what a transform of torchvision or timm does, as the dictionary of `load`.

    Raises
    ------
    OptionError
        If it does something else than resize, crop and normalise.
    """
    if transform is None:
        return {}
    if hasattr(transform, "crop_size") and hasattr(transform, "resize_size"):  # torchvision's WEIGHTS.transforms()
        size = {"height": transform.crop_size[0], "shorter": transform.resize_size[0]}
        interpolation = transform.interpolation.value
        return size | {"interpolation": interpolation, "mean": transform.mean, "std": transform.std}
    found: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    resized: Any = None
    for step in getattr(transform, "transforms", [transform]):
        kind = type(step).__name__
        if kind == "Resize":
            resized = step.size
            found["interpolation"] = getattr(step.interpolation, "value", step.interpolation)
        elif kind == "CenterCrop":
            found["height"], found["width"] = step.size if isinstance(step.size, Sequence) else (step.size,) * 2
        elif kind == "Normalize":
            found["mean"], found["std"] = (tuple(float(value) for value in values) for values in (step.mean, step.std))
        elif kind not in _AS_IT_IS or (kind == "ToDtype" and not step.scale):
            raise _beyond(f"the step {kind}")
    if isinstance(resized, Sequence) and len(resized) == 1:
        resized = resized[0]
    if isinstance(resized, Sequence):
        if "height" in found and (found["height"], found["width"]) != tuple(resized):
            raise _beyond("a crop after Resize((h, w))")
        found |= {"height": resized[0], "width": resized[1], "resize": "squash"}
    elif resized is None or "height" not in found:
        raise _beyond("Resize without CenterCrop" if resized else "no Resize")
    else:
        found["shorter"] = resized
    return found


def _beyond(what: str) -> OptionError:
    return OptionError(
        f"featx prepares images by Resize and CenterCrop, or Resize((h, w)), then Normalize; the transform has {what}. "
        'Hand over a dictionary instead: transform={"height": 224, "shorter": 256, "mean": …, "std": …}.'
    )


def _function(reference: str) -> Callable[[], Any]:
    module_name, _, function_name = reference.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:  # a console script does not see the user's own folder otherwise
        sys.path.append(here)
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise UnknownBackboneError(
            f"Cannot import {reference}: {error}. Type --backbone package.module:function with a module in this folder "
            "or installed."
        ) from error
    if not callable(function):
        raise OptionError(f"{reference} is not a function but {type(function).__name__}.")
    return function  # type: ignore[no-any-return]


def _preprocessing(reference: str, literals: Mapping[str, Any]) -> Preprocessing:
    unknown = sorted(set(literals) - set(_LITERALS))
    if unknown:
        raise OptionError(
            f"{reference} gives {', '.join(unknown)}; a network's dictionary may hold {', '.join(_LITERALS)}."
        )
    height = literals.get("height", literals.get("width", 224))
    width = literals.get("width", height)
    resize = literals.get("resize", "crop")
    shorter = literals.get("shorter", min(height, width) * 8 // 7) if resize == "crop" else 0
    frame = Frame(
        height=height,
        width=width,
        resize=resize,
        shorter=shorter,
        interpolation=literals.get("interpolation", "bilinear"),
    )
    mean, std = literals.get("mean", IMAGENET_MEAN), literals.get("std", IMAGENET_STD)
    return Preprocessing(frame=frame, mean=tuple(mean), std=tuple(std))
