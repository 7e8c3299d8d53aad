"""Which backbones there are: name → loader, aliases, suggestions."""

from __future__ import annotations

import fnmatch
import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from featx.backbones import own
from featx.errors import UnknownBackboneError

if TYPE_CHECKING:
    from featx.backbones.loaded import Loaded

#: Names that users of Keras know → the same network in timm. timm's ResNetV2-50 lacks the convolution biases that
#: Keras adds (19,008 parameters), which batch norm makes redundant.
ALIASES = {
    "inception_resnet_v2": "timm/inception_resnet_v2",
    "resnet50v2": "timm/resnetv2_50",
    "resnet101v2": "timm/resnetv2_101",
    "resnet152v2": "timm/resnetv2_152",
    "xception": "timm/legacy_xception",
}
_LISTING = "featx backbones"


class _Library(Protocol):
    def names(self) -> list[str]: ...
    def tags(self) -> dict[str, list[str]]: ...
    def load(self, name: str, weights: str, seed: int, **sized: int | None) -> Loaded: ...


@dataclass(frozen=True, kw_only=True)
class BackboneInfo:
    """One line of ``featx backbones``.

    Attributes
    ----------
    name : str
        What to type.
    library : {"installed", "scratch", "torchvision", "timm", "alias", "plug-in"}
    weights : tuple of str
        Tags of its pretrained weights.
    offline : bool
        Whether pretrained weights are on this machine with the installation.
    """

    name: str
    library: str
    weights: tuple[str, ...]
    offline: bool


def list_backbones(pattern: str = "") -> list[BackboneInfo]:
    """Return the backbones whose name contains `pattern`, or matches it where it has ``*`` or ``?``.

    Examples
    --------
    >>> [info.name for info in list_backbones("efficientnet_lite?") if info.offline]
    ['efficientnet_lite0', 'efficientnet_lite1', 'efficientnet_lite2']
    """
    from featx.backbones.timm import INSTALLED, INSTALLED_TAG

    rows = [_row(name, "installed", [INSTALLED_TAG], offline=True) for name in INSTALLED]
    rows += [_row(f"scratch/{name}", "scratch", tags) for name, tags in _library("scratch").tags().items()]
    rows += [_row(name, "torchvision", tags) for name, tags in _library("torchvision").tags().items()]
    rows += [_row(name, "plug-in", []) for name in own.plugins()]
    timm = _library("timm").tags()
    rows += [_row(name, "alias", timm[target.removeprefix("timm/")]) for name, target in ALIASES.items()]
    rows += [_row(f"timm/{name}", "timm", tags) for name, tags in timm.items()]
    wanted = pattern if any(wildcard in pattern for wildcard in "*?") else f"*{pattern}*"
    return [row for row in rows if fnmatch.fnmatchcase(row.name, wanted)]


def _row(name: str, library: str, tags: list[str], *, offline: bool = False) -> BackboneInfo:
    return BackboneInfo(name=name, library=library, weights=tuple(tags), offline=offline)


def load_by_name(name: str, weights: str, seed: int, image_size: int | None = None) -> Loaded:
    """Load the network that `name` means.

    Parameters
    ----------
    name, weights : str
        As in `featx.recipe.Request`.
    seed : int
        For random weights.
    image_size : int, optional
        Side of the input in pixels, for networks that must be built for it.

    Raises
    ------
    UnknownBackboneError
        With the nearest name as a suggestion.
    WeightsError, WeightsUnavailable, MissingDataError
        If the weights do not fit, cannot be had, or are not there.
    """
    if name.startswith(("hf-hub:", "hf_hub:")):
        known = name.partition(":")[2].removeprefix("timm/")
        raise UnknownBackboneError(f"Networks of the hub go by timm's own names. Type --backbone timm/{known}")
    if ":" in name:
        return own.load(name, weights, seed)
    target = ALIASES.get(name, name)
    plugins = own.plugins()
    if target in plugins:
        return own.load(plugins[target], weights, seed)
    library_name, slash, rest = target.partition("/")
    if slash and library_name in {"scratch", "timm", "torchvision"}:
        library = _library(library_name)
        if rest.partition(".")[0] in library.names():
            sized = {"image_size": image_size} if library_name == "timm" else {}
            return library.load(rest, weights, seed, **sized)
    elif target.startswith("efficientnet_lite"):  # the others are not to wait for timm
        from featx.backbones import timm

        if target in timm.INSTALLED:
            return timm.load_installed(target, weights, seed, image_size)
    elif not slash and target in (library := _library("torchvision")).names():
        return library.load(target, weights, seed)
    raise _unknown(name)


def _unknown(name: str) -> UnknownBackboneError:
    known = [info.name for info in list_backbones()]
    if f"timm/{name.partition('.')[0]}" in known:
        return UnknownBackboneError(f"Unknown backbone {name!r}. Did you mean 'timm/{name}'? All names: {_LISTING}")
    return cast("UnknownBackboneError", UnknownBackboneError.among("backbone", name, known, _LISTING))


def _library(name: str) -> _Library:
    """Import a loader when it is needed: torchvision and timm take a second each."""
    return cast("_Library", importlib.import_module(f"featx.backbones.{name}"))
