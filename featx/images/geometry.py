"""How an RGB image of any size becomes the pixels of a network's input: crop, squash or pad."""

from __future__ import annotations

import numpy as np
from PIL import Image

from featx.errors import ImageError, OptionError
from featx.images.policy import DRAFT_GAP, MAX_PIXELS, POLICIES, decode
from featx.images.resampling import Resize, by_pillow
from featx.recipe import DECODES, Frame


def prepare(data: bytes | np.ndarray, frame: Frame, resize: Resize = by_pillow) -> np.ndarray:
    """Decode an image and fit it to a frame.

    Parameters
    ----------
    data : bytes or ndarray of uint8
        As `featx.images.decode` takes it.
    frame : Frame
        The network's input.
    resize : callable
        As in `fit`.

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
    return fit(decode(data, background=frame.background, draft=least), frame, resize)


def fit(image: Image.Image, frame: Frame, resize: Resize = by_pillow) -> np.ndarray:
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
    resize : callable
        `featx.images.resampling.by_pillow`, or one with the same pixels.

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
    return {"crop": _crop, "squash": _squash, "pad": _pad}[frame.resize](image, frame, resize)


def _squash(image: Image.Image, frame: Frame, resize: Resize) -> np.ndarray:
    return _whole(image, frame.width, frame.height, frame, resize)


def _whole(image: Image.Image, width: int, height: int, frame: Frame, resize: Resize) -> np.ndarray:
    return resize(image, (width, height), (0, 0, width, height), frame.interpolation)


def _crop(image: Image.Image, frame: Frame, resize: Resize) -> np.ndarray:
    # torchvision's arithmetic to the letter: int() of the long side, round() of the crop's corner.
    short, long = sorted(image.size)
    longer = int(frame.shorter * long / short)
    if frame.shorter * longer > MAX_PIXELS:
        raise ImageError(
            f"{image.width:,} × {image.height:,} pixels is too long and thin to crop: use --resize pad or squash"
        )
    width, height = (frame.shorter, longer) if image.width <= image.height else (longer, frame.shorter)
    left, top = _margin(width, frame.width), _margin(height, frame.height)
    return resize(image, (width, height), (left, top, left + frame.width, top + frame.height), frame.interpolation)


def _margin(length: int, crop: int) -> int:
    """Where the crop begins, in pixels; negative where it is larger than the image (the rest is then black)."""
    return -((crop - length) // 2) if crop > length else round((length - crop) / 2)


def _pad(image: Image.Image, frame: Frame, resize: Resize) -> np.ndarray:
    ratio = max(image.height / frame.height, image.width / frame.width)
    width, height = max(1, round(image.width / ratio)), max(1, round(image.height / ratio))
    left, top = (frame.width - width) // 2, (frame.height - height) // 2
    canvas = np.empty((frame.height, frame.width, 3), np.uint8)
    canvas[:] = frame.background
    canvas[top : top + height, left : left + width] = _whole(image, width, height, frame, resize)
    return canvas
