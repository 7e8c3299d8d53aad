"""Networks of the user's own: ``package.module:function``, and plug-ins (entry points ``featx.backbones``)."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from featx.backbones.loaded import IMAGENET_MEAN, IMAGENET_STD, Loaded, Preprocessing
from featx.backbones.weights import as_path, fit_state, read_state, seeded, unknown_tag
from featx.errors import OptionError, UnknownBackboneError
from featx.recipe import Frame

GROUP = "featx.backbones"
_LITERALS = ("height", "width", "resize", "shorter", "interpolation", "mean", "std")


def plugins() -> dict[str, str]:
    """Return the networks that installed packages offer, name → ``package.module:function``."""
    return {entry.name: entry.value for entry in importlib.metadata.entry_points(group=GROUP)}


def load(reference: str, weights: str, seed: int) -> Loaded:
    """Call the function that `reference` names and take its network.

    The function takes nothing and returns an `nn.Module` that sees (n, 3, height, width) floats, or that and a
    dictionary with any of ``height``, ``width``, ``resize``, ``shorter``, ``interpolation``, ``mean`` and ``std``
    (else 224×224 from a shorter side of 256, bilinear, ImageNet's mean and standard deviation).
    Random numbers that it draws come from `seed`. Its weights are as returned, or those of the file `weights`.
    """
    function = _function(reference)
    with seeded(seed):
        result = function()
    module, literals = result if isinstance(result, tuple) and len(result) == 2 else (result, {})
    if not isinstance(module, nn.Module) or not isinstance(literals, Mapping):
        raise OptionError(
            f"{reference} must return a torch.nn.Module, or that and a dictionary; got {type(result).__name__}."
        )
    path, label = None, f"random-{seed}" if weights == "none" else "own"
    if weights not in {"imagenet", "none"}:
        path = as_path(weights)
        if path is None:
            raise unknown_tag(weights, reference, [])
        fit_state(module, read_state(path), source=str(path), name=reference)
        label = "file"
    return Loaded(
        name=reference,
        weights=label,
        module=module.eval(),
        preprocessing=_preprocessing(reference, literals),
        files=(path,) if path else (),
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
