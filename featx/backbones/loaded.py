"""What every loader of this package returns: a network with its weights, and how pixels reach it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import ImageColor

from featx.errors import OptionError
from featx.recipe import DECODES, Frame, Request

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from featx.backbones.layers import Trace
    from featx.backbones.network import Tap

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Channels = tuple[float, float, float]


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
