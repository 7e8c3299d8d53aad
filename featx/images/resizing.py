"""How an RGB image of any size becomes the pixels of a network's input: cropped, squashed or padded.

Resizing makes only what the crop shows, by Pillow, or to the bit as Pillow does it and several times as fast: Pillow
resamples across and then down. Each pixel is a sum of its neighbours' bytes by integer weights of 22 binary places,
rounded to a byte after either pass. The same integers in the same order give the same bytes whoever adds them up;
`by_numba` has them added up by vector instructions, which Pillow does not use. (Weights and passes: Pillow's
src/libImaging/Resample.c.)
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featx.errors import ImageError, OptionError
from featx.images.policy import DRAFT_GAP, MAX_PIXELS, POLICIES, decode
from featx.recipe import DECODES, Frame

#: left, top, right, bottom, in pixels of the resized image.
Box = tuple[int, int, int, int]
#: (image of mode RGB, its new size, the box to keep, one of `featx.recipe.INTERPOLATIONS`) → uint8 (height, width, 3).
Resize = Callable[[Image.Image, tuple[int, int], Box, str], np.ndarray]

#: Binary places of the weights; Pillow's sums of 8-bit pixels stay within 32 bits.
PLACES = 22
#: Seconds of Pillow's resizing still to come that are worth numba's start: that takes one, and saves two of three.
_PATIENCE = 1.5
#: Bytes of the image that are turned at once: they stay in the processor's second cache.
_STRIP_BYTES = 2**19


def by_pillow(image: Image.Image, size: tuple[int, int], box: Box, interpolation: str) -> np.ndarray:
    """Resize with Pillow, then crop; what a box has beyond the image is black.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode ``RGB``.
    size : (int, int)
        Width and height of the whole image after resizing.
    box : (int, int, int, int)
        Left, top, right and bottom of what is kept of that.
    interpolation : str
        One of `featx.recipe.INTERPOLATIONS`.

    Returns
    -------
    ndarray of uint8, shape (bottom - top, right - left, 3)
        C-contiguous and writable.
    """
    if image.size != size:
        image = image.resize(size, Image.Resampling[interpolation.upper()])
    return np.array(image if box == (0, 0, *size) else image.crop(box))


def by_numba(image: Image.Image, size: tuple[int, int], box: Box, interpolation: str) -> np.ndarray:
    """Resize as `by_pillow`, to the bit, in compiled code where that has the same arithmetic.

    It has not where the filter takes a sine, whose last bit is a matter of libraries, and where Pillow may turn its
    passes around; those are left to Pillow, as is what lies beyond the image.

    Raises
    ------
    ImportError
        If numba is not installed.
    """
    (width, height), (left, top, right, bottom) = size, box
    inside = 0 <= left < right <= width and 0 <= top < bottom <= height
    if image.size == size or interpolation not in _FILTERS or not inside or not _across_first(image.size, size):
        return by_pillow(image, size, box, interpolation)
    from featx.images.kernel import weigh

    across = _taps(image.width, width, left, right, interpolation)
    down = _taps(image.height, height, top, bottom, interpolation)
    rows = np.empty((down.stop - down.start, right - left), np.uint32)  # a pixel is four bytes, as in Pillow's memory
    n_rows = max(16, _STRIP_BYTES // (4 * (across.stop - across.start)))
    for first in range(down.start, down.stop, n_rows):
        last = min(first + n_rows, down.stop)
        strip = image.crop((across.start, first, across.stop, last)).tobytes("raw", "RGBX")
        # Turned, so that what is added up lies side by side, as it does in the second pass.
        columns = np.ascontiguousarray(np.frombuffer(strip, np.uint32).reshape(last - first, -1).T)
        resized = np.empty((right - left, last - first), np.uint32)
        weigh(columns.view(np.uint8), *across.arrays, resized.view(np.uint8))
        rows[first - down.start : last - down.start] = resized.T
    pixels = np.empty((bottom - top, right - left, 4), np.uint8)
    weigh(rows.view(np.uint8), *down.arrays, pixels.reshape(bottom - top, -1))
    rgb = np.empty((bottom - top, right - left, 3), np.uint8)
    for channel in range(3):  # ten times as fast as the three of one pixel after those of another
        rgb[..., channel] = pixels[..., channel]
    return rgb


class Resizer:
    """`by_pillow`, and `by_numba` where so much is resized that starting it pays.

    Whoever resizes a few hundred images never waits for numba. Before it is used, it is held against the Pillow that is
    installed; where it cannot be started, or gives another pixel, Pillow it remains.

    Parameters
    ----------
    n_images : int, optional
        How many there will be; where that is not known, as many are taken to come as have been.
    patience : float
        Seconds of Pillow's resizing still to come from which on numba is started.

    Examples
    --------
    >>> resize = Resizer()
    >>> resize(Image.new("RGB", (40, 30), (255, 0, 0)), (12, 9), (2, 1, 10, 9), "bicubic").shape
    (8, 8, 3)
    """

    def __init__(self, n_images: int | None = None, patience: float = _PATIENCE) -> None:
        self._resize: Resize = by_pillow
        self._n_images, self._patience = n_images, patience
        self._n, self._spent = 0, 0.0
        self._is_settled = False

    def __call__(self, image: Image.Image, size: tuple[int, int], box: Box, interpolation: str) -> np.ndarray:
        """Resize and crop, as `by_pillow` says."""
        start = time.perf_counter()
        resized = self._resize(image, size, box, interpolation)
        self._spent += time.perf_counter() - start
        self._n += 1
        return resized

    def settle(self) -> None:
        """Start numba if that pays by now; to be called between images, as for once it takes a second or two."""
        if self._is_settled or not self._n:
            return
        n_left = self._n if self._n_images is None else self._n_images - self._n
        if self._spent / self._n * n_left > self._patience:
            self._is_settled = True  # one attempt
            if _is_faithful(by_numba):
                self._resize = by_numba


def _is_faithful(resize: Resize) -> bool:
    """Whether it gives the pixels of the Pillow that is installed, on noise in the shapes that photos come in."""
    rng = np.random.default_rng(0)
    shapes = [
        ((64, 48), (45, 34)),
        ((48, 90), (34, 62)),  # as tall as across goes first
        ((48, 80), (32, 48)),
        ((24, 24), (40, 40)),
        ((300, 200), (24, 16)),
    ]
    try:
        for (width, height), size in shapes:
            image = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
            for name in _FILTERS:
                arguments = (image, size, (2, 1, size[0] - 1, size[1]), name)
                if not np.array_equal(resize(*arguments), by_pillow(*arguments)):
                    return False
    except Exception:  # noqa: BLE001 - no numba, or none for this processor, or nowhere to keep its code: all the same
        return False
    return True


def _across_first(size: tuple[int, int], resized: tuple[int, int]) -> bool:
    """Whether Pillow of any version resamples across and then down; since 13, it begins with what saves most."""
    (width, height), (new_width, new_height) = size, resized
    return height <= new_height or height - new_height <= 2 * (width - new_width)


class _Taps(NamedTuple):
    """What each pixel of one pass is made of: pixels ``start`` to ``stop`` of the image come in at all."""

    start: int
    stop: int
    arrays: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]
    """First pixel, after ``start``, and number of pixels, both of shape (n,); and their weights, (n, most)."""


@functools.lru_cache(maxsize=256)
def _taps(length: int, resized: int, first: int, stop: int, interpolation: str) -> _Taps:
    # Pillow's arithmetic in its order, so that each weight is the same to the last bit.
    support, weight_of = _FILTERS[interpolation]
    scale = length / resized
    stretch = max(scale, 1.0)
    reach = support * stretch
    centre = (np.arange(first, stop) + 0.5) * scale
    low = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    counts = np.minimum((centre + reach + 0.5).astype(np.int64), length) - low
    k = np.arange(counts.max())
    weights = weight_of(((k + low[:, None]) - centre[:, None] + 0.5) * (1.0 / stretch))
    weights[k >= counts[:, None]] = 0.0
    total = np.zeros(len(weights))
    for column in weights.T:  # one after another: numpy's own sum adds in pairs
        total += column
    weights /= np.where(total == 0.0, 1.0, total)[:, None]
    fixed = np.trunc(weights * (1 << PLACES) + np.copysign(0.5, weights)).astype(np.int32)
    return _Taps(int(low[0]), int(low[-1] + counts[-1]), (low - low[0], counts, fixed))


def _box(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where((x > -0.5) & (x <= 0.5), 1.0, 0.0)


def _bilinear(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x = np.abs(x)
    return np.where(x < 1.0, 1.0 - x, 0.0)


def _bicubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1.0, (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


#: Of each filter that is a polynomial in pieces, how far it reaches and what it weighs; Keys's cubic has a = -0.5.
_FILTERS = {"box": (0.5, _box), "bilinear": (1.0, _bilinear), "bicubic": (2.0, _bicubic)}


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
    return fit(decode(data, background=frame.background, draft=least, white=frame.white), frame, resize)


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
        `featx.images.resizing.by_pillow`, or one with the same pixels.

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
