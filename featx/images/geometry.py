"""How an RGB image of any size becomes the pixels of a network's input: crop, squash or pad."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from featx.errors import ImageError, OptionError
from featx.images.policy import DRAFT_GAP, MAX_PIXELS, POLICIES, decode
from featx.recipe import DECODES, Frame

#: Pillow takes coordinates as 32-bit floats, whose integers are exact up to here.
_EXACT_FLOATS = 1 << 24
#: Pixels on each side that the widest of Pillow's filters looks at, lanczos, where nothing is scaled down.
_WIDEST_FILTER = 3


def prepare(data: bytes | np.ndarray, frame: Frame) -> np.ndarray:
    """Decode an image and fit it to a frame.

    Parameters
    ----------
    data : bytes or ndarray of uint8
        As `featx.images.decode` takes it.
    frame : Frame
        The network's input.

    Returns
    -------
    ndarray of uint8, shape (frame.height, frame.width, 3)

    Raises
    ------
    ImageError
        If the image cannot be read; the message is the reason.
    OptionError
        If the frame asks for another decode policy than this featx has.
    """
    if frame.decode not in POLICIES:
        raise OptionError(
            f"The recipe decodes images by {frame.decode!r}, this featx by {' or '.join(POLICIES)}. "
            "Extract again: featx extract"
        )
    least = DRAFT_GAP * max(frame.height, frame.width, frame.shorter) if frame.decode == DECODES["draft"] else None
    return fit(decode(data, background=frame.background, draft=least), frame)


def fit(image: Image.Image, frame: Frame) -> np.ndarray:
    """Resize an RGB image to a frame.

    ``crop`` gives, to the bit, the pixels of torchvision's ``Resize(shorter)`` and ``CenterCrop`` on Pillow
    images, which are also those of timm's evaluation transform: where the crop is larger than the
    resized image, the rest is black. ``squash`` is torchvision's ``Resize((height, width))``. ``pad`` is
    timm's ``border`` with nothing cropped, on the frame's background.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode ``RGB``.
    frame : Frame
        The network's input.

    Returns
    -------
    ndarray of uint8, shape (frame.height, frame.width, 3)
        C-contiguous and writable.

    Raises
    ------
    ImageError
        If the image is so long and thin that the resized one would exceed the pixel limit of the policy.

    Examples
    --------
    >>> frame = Frame(height=4, width=4, resize="crop", shorter=4, interpolation="bilinear")
    >>> fit(Image.new("RGB", (9, 5), (255, 0, 0)), frame).shape
    (4, 4, 3)
    """
    return np.array({"crop": _crop, "squash": _squash, "pad": _pad}[frame.resize](image, frame))


def _resize(image: Image.Image, width: int, height: int, frame: Frame) -> Image.Image:
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling[frame.interpolation.upper()])


def _squash(image: Image.Image, frame: Frame) -> Image.Image:
    return _resize(image, frame.width, frame.height, frame)


def _crop(image: Image.Image, frame: Frame) -> Image.Image:
    # torchvision's arithmetic to the letter: int() of the long side, round() of the crop's corner.
    short, long = sorted(image.size)
    longer = int(frame.shorter * long / short)
    if frame.shorter * longer > MAX_PIXELS:
        raise ImageError(
            f"{image.width:,} × {image.height:,} pixels is too long and thin to crop: use --resize pad or squash"
        )
    width, height = (frame.shorter, longer) if image.width <= image.height else (longer, frame.shorter)
    left, top = _margin(width, frame.width), _margin(height, frame.height)
    if frame.width <= width and frame.height <= height and _is_exact(image.height, height):
        if image.width == image.height and frame.width == frame.height:
            return _resize_inside(image, left, width, frame)
        if image.width >= image.height:
            return _resize_in_passes(image, (left, top), (width, height), frame)
    image = _resize(image, width, height, frame)
    return image.crop((left, top, left + frame.width, top + frame.height))


def _is_exact(length: int, resized: int) -> bool:
    """Whether pixels of the resized side map to the original without rounding: length / resized ends in binary."""
    denominator = resized // math.gcd(length, resized)
    return length != resized and denominator & (denominator - 1) == 0 and length * denominator <= _EXACT_FLOATS


def _resize_inside(image: Image.Image, margin: int, resized: int, frame: Frame) -> Image.Image:
    """Resize only what the crop keeps of a square: of 256 by 256, a quarter is never made.

    Where coordinates round, or the sides differ and Pillow may turn the order of its two passes around, pixels would
    differ from those of resizing first: then it is not done.
    """
    scale = image.width / resized
    low, high = margin * scale, (margin + frame.width) * scale
    size = (frame.width, frame.height)
    return image.resize(size, Image.Resampling[frame.interpolation.upper()], box=(low, low, high, high))


def _resize_in_passes(
    image: Image.Image, corner: tuple[int, int], resized: tuple[int, int], frame: Frame
) -> Image.Image:
    """Resize a landscape as Pillow does, first across and then down, but only where the crop looks.

    Columns map to the original with rounding, so across every one of them is made, though of those rows only that the
    crop depends on; down, where nothing rounds, only the crop is.
    """
    (left, top), (width, height) = corner, resized
    scale = image.height / height
    low, high = top * scale, (top + frame.height) * scale
    reach = math.ceil(_WIDEST_FILTER * max(scale, 1.0)) + 1
    first, last = max(0, math.floor(low) - reach), min(image.height, math.ceil(high) + reach)
    across = _resize(image.crop((0, first, image.width, last)), width, last - first, frame)
    kept = across.crop((left, 0, left + frame.width, last - first))
    box = (0, low - first, frame.width, high - first)
    return kept.resize((frame.width, frame.height), Image.Resampling[frame.interpolation.upper()], box=box)


def _margin(length: int, crop: int) -> int:
    """Where the crop begins, in pixels; negative where it is larger than the image (Pillow then adds black)."""
    return -((crop - length) // 2) if crop > length else round((length - crop) / 2)


def _pad(image: Image.Image, frame: Frame) -> Image.Image:
    ratio = max(image.height / frame.height, image.width / frame.width)
    width, height = max(1, round(image.width / ratio)), max(1, round(image.height / ratio))
    canvas = Image.new("RGB", (frame.width, frame.height), frame.background)
    canvas.paste(_resize(image, width, height, frame), ((frame.width - width) // 2, (frame.height - height) // 2))
    return canvas
