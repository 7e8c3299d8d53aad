"""The decode policy: which RGB pixels an image holds.

In every recipe under one of the names in `POLICIES`; whoever changes a pixel here raises them.

===========================  ====================================================================
container                    by content, never by extension; `sniffing.READABLE` only
size                         at most `MAX_PIXELS`, checked before anything is decoded
damage                       an error: a file is read whole or not at all
EXIF orientation 1–8         applied
animation, pages             the first frame
alpha, transparent colour    composited on the background
16 bits a channel            the high byte, so that full scale stays full scale
fewer bits in 16, grey       by `Frame.white`; else as the file's tags say; else by the high byte, with a warning
CMYK, YCbCr, palette, L, 1   converted to RGB by Pillow; colour profiles are ignored
floats, 32-bit integers      refused where white is not known
JPEG, draft policy           at 1/2, 1/4 or 1/8 of its size, straight from its DCT coefficients, if both
                             sides are still at least `DRAFT_GAP` times what the network takes
===========================  ====================================================================
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from PIL import (
    AvifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from featx.errors import ImageError, ImageWarning
from featx.images.sniffing import sniff
from featx.recipe import DECODES

#: The names of this policy in `featx.recipe.Frame.decode`, without and with drafts.
POLICIES = tuple(DECODES.values())

#: The resize that follows a draft takes at least so many pixels into one: what the draft smoothed away, it would have.
DRAFT_GAP = 2

#: How the reason begins why an image of too many pixels is refused.
BOMB = "decompression bomb"
#: Pillow's own limit, past which it warns of a decompression bomb: a quarter of a GiB of RGB.
MAX_PIXELS = 1024**3 // 4 // 3

# Pillow loads every plugin it has, slowly, unless those beyond its first five are there already.
_PLUGINS = (AvifImagePlugin, Jpeg2KImagePlugin, TiffImagePlugin, WebPImagePlugin)

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

#: Larger files are not read into memory: more than an uncompressed 16-bit image of the most pixels that are decoded.
MAX_FILE_BYTES = 2**30
_FULL_SCALE = 0xFFFF
#: Below a quarter of full scale, as data of 8 to 14 bits are.
_DARK = 1 << 14
#: Where `Image.info` keeps what Pillow leaves out of a PNG.
_SIGNIFICANT = "sBIT"
_TIFF_BITS = 258
_TIFF_MOST = (281, 341)
_TIFF_PHOTOMETRIC = 262
_WHITE_IS_ZERO = 0


class File(NamedTuple):
    """An image in a file of its own, to be read by whoever decodes it."""

    path: str

    def read(self) -> bytes:
        """Read the file whole.

        Raises
        ------
        ImageError
            If it is too large for an image, or cannot be read.
        """
        try:
            with open(self.path, "rb", buffering=0) as file:  # noqa: PTH123 - a Path takes as long as a small file
                n_bytes = os.fstat(file.fileno()).st_size
                if n_bytes > MAX_FILE_BYTES:
                    raise ImageError(f"{n_bytes:,} bytes, more than the {MAX_FILE_BYTES:,} that an image file may have")
                return file.read()
        except OSError as error:  # of the disk, the network, the folder: not of the image
            raise ImageError(f"cannot be read ({error.strerror or error})", transient=True) from error


#: An image: a whole file, or uint8 pixels (h, w), (h, w, 1), (h, w, 3), (h, w, 4).
ImageData: TypeAlias = bytes | np.ndarray
#: The same, or where it is to be read.
Unread: TypeAlias = ImageData | File


def item_id(data: ImageData) -> bytes:
    """Return the 32 bytes by which an image is known everywhere: SHA-256 of its content.

    Parameters
    ----------
    data : bytes or ndarray
        An encoded image is known by its bytes, an array by dtype, shape and data.

    Examples
    --------
    >>> item_id(b"abc").hex()[:8]
    'ba7816bf'
    >>> item_id(np.zeros((2, 3), np.uint8)) == item_id(np.zeros((3, 2), np.uint8))
    False
    """
    if isinstance(data, bytes):
        return hashlib.sha256(data).digest()
    digest = hashlib.sha256(f"{data.dtype.str}{data.shape}".encode())
    digest.update(np.ascontiguousarray(data).reshape(-1).data)
    return digest.digest()


def decode(
    data: bytes | np.ndarray,
    *,
    background: tuple[int, int, int] = (255, 255, 255),
    draft: int | None = None,
    white: int | None = None,
) -> Image.Image:
    """Turn an encoded image, or an array of pixels, into RGB.

    Parameters
    ----------
    data : bytes or ndarray of uint8, shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4)
        A whole file, or grey, RGB or RGBA pixels.
    background : tuple of int
        RGB, 0–255, that shows through transparent pixels.
    draft : int, optional
        Let a JPEG be decoded at a fraction of its size, with no side below this.
    white : int, optional
        Value of white in a grey image of 16 bits.

    Warns
    -----
    ImageWarning
        If a 16-bit image uses few of its bits and does not say so.

    Returns
    -------
    PIL.Image.Image
        Mode ``RGB``, upright, of the image's own size but for drafts.

    Raises
    ------
    ImageError
        With the reason, when this is no image, a damaged one, or one of more than `MAX_PIXELS`.

    Examples
    --------
    >>> import numpy as np
    >>> decode(np.full((2, 3), 128, np.uint8)).getpixel((0, 0))
    (128, 128, 128)
    """
    image = _from_array(data) if isinstance(data, np.ndarray) else _from_bytes(data, draft, white)
    return _composite(image, background)


def limit_pixels(n: int) -> None:
    """Refuse, in this process and from now on, images of more than `n` pixels, where `MAX_PIXELS` are not fewer."""
    global MAX_PIXELS
    MAX_PIXELS = min(MAX_PIXELS, n)


def pixels_of(image: Image.Image) -> np.ndarray:
    """Return the upright pixels of a Pillow image, loaded or not, as `decode` takes them.

    Returns
    -------
    ndarray of uint8, shape (h, w, 3) or (h, w, 4)

    Raises
    ------
    ImageError
        As `decode`.
    """
    with _naming_damage(image.format or "image"):
        return np.asarray(_read(image))


def _from_array(pixels: np.ndarray) -> Image.Image:
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or channels not in (1, 3, 4) or pixels.size == 0:
        raise ImageError(
            f"an image array must be uint8 of shape (h, w) or (h, w, 1|3|4), got {pixels.dtype} of shape {pixels.shape}"
        )
    return _eight_bit(Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and channels == 1 else pixels))


def _from_bytes(data: bytes, draft: int | None, white: int | None) -> Image.Image:
    kind = sniff(data)
    if kind == "HEIF":
        _learn_heif()
    with _naming_damage(kind), Image.open(io.BytesIO(data), formats=(kind,)) as image:
        if kind == "PNG":
            image.info[_SIGNIFICANT] = _significant_bits(data)
        return _read(image, draft, white)


def _learn_heif() -> None:
    """Have Pillow read HEIC and HEIF files.

    Raises
    ------
    ImageError
        If pillow-heif is not installed; such an image is tried again once it is.
    """
    try:
        import pillow_heif
    except ImportError as error:
        reason = "a HEIC photo: to read it pip install 'featx[heif]', or convert it to JPEG"
        raise ImageError(reason, transient=True) from error
    pillow_heif.register_heif_opener()


def _read(image: Image.Image, draft: int | None = None, white: int | None = None) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(_bomb(f"{image.width:,} × {image.height:,} pixels, more"))
    if draft is not None:
        image.draft(None, (draft, draft))
    colour_of_16_bits = image.mode == "RGB" and "RGB;16" in str(getattr(image, "tile", ""))
    image.load()
    if colour_of_16_bits and 0 < max(high for _, high in image.getextrema()) < _DARK >> 8:  # type: ignore[misc]
        words = "colour of 16 bits that uses few of them, so it comes out dark: save it with 8 bits a channel"
        warnings.warn(words, ImageWarning, stacklevel=2)
    return _upright(_eight_bit(image, white), _orientation(image))


@contextmanager
def _naming_damage(kind: str) -> Iterator[None]:
    """Turn whatever Pillow raises into an `ImageError`.

    Truncated files are refused even where another library has told Pillow to fill them with grey.
    """
    lenient, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        yield
    except (ImageError, ImageWarning, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(_bomb("more pixels")) from error
    except UnidentifiedImageError as error:
        raise ImageError(f"damaged {kind}, or a kind of {kind} that Pillow does not read") from error
    except Exception as error:  # Pillow's plugins raise a dozen types on damaged files
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise ImageError(f"damaged or truncated {kind} ({words})") from error
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def _bomb(size: str) -> str:
    return f"{BOMB}: {size} than the {MAX_PIXELS:,} that are decoded; scale the image down first"


def _eight_bit(image: Image.Image, white: int | None = None) -> Image.Image:
    """Convert a loaded Pillow image of any mode to ``RGB``, or ``RGBA`` where something shows through.

    Raises
    ------
    ImageError
        If its mode does not say which value is white.
    """
    if image.mode == "F":
        raise ImageError("pixels are floats, so white is not known: save the image with 8 or 16 bits a channel")
    if image.mode.startswith("I"):
        image = _grey_of_16_bits(image, white)
    mode = "RGBA" if image.has_transparency_data else "RGB"
    if image.mode == mode:
        return image
    try:
        return image.convert(mode)
    except ValueError as error:
        raise ImageError(f"colour mode {image.mode} cannot be converted to RGB: save the image as RGB") from error


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - damaged EXIF says nothing about the pixels, which are whole
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _significant_bits(png: bytes) -> int:
    """Return how many bits of a grey PNG's values mean something, as its chunk ``sBIT`` says; 16 without one."""
    place = png.find(b"sBIT", 0, max(0, png.find(b"IDAT")))
    return png[place + 4] if place > 0 else 16


def _grey_of_16_bits(image: Image.Image, white: int | None) -> Image.Image:
    """Scale 16-bit grey to 8: full scale by the high byte, as Pillow itself does with 16-bit colour."""
    values = np.asarray(image).astype(np.int32)
    if values.min() < 0 or values.max() > _FULL_SCALE:
        raise ImageError(
            f"integer pixels from {values.min():,} to {values.max():,}, so white is not known: "
            "save the image with 8 or 16 bits a channel"
        )
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    white = white or _white(image, tags, int(values.max()))
    grey = np.minimum(values * 256 // (white + 1), 255).astype(np.uint8)
    if tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts these at 8 bits only
        grey = ~grey
    result = Image.fromarray(grey)
    if "transparency" in image.info:
        result.putalpha(Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)))
    return result


def _white(image: Image.Image, tags: Mapping[int, Any], most: int) -> int:
    """Return white by a file's tags, unless `most`, its largest value, lies beyond: some files are scaled up."""
    if tags.get(_TIFF_BITS) == (12,):
        return 0xFFF
    said = [(1 << image.info.get(_SIGNIFICANT, 16)) - 1, *(tags.get(tag) for tag in _TIFF_MOST)]
    for white in (0xFF, 0x1FF, 0x3FF, 0x7FF, 0xFFF, 0x1FFF, 0x3FFF, 0x7FFF):
        if most <= white and (white in said or (white,) in said):
            return white
    if 0 < most < _DARK:
        full = (1 << max(8, most.bit_length())) - 1
        words = f"grey of 16 bits up to {most:,} only, so it comes out dark. If its white is {full}, add --white {full}"
        warnings.warn(words, ImageWarning, stacklevel=2)
    return _FULL_SCALE


def _composite(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    if image.mode == "RGB":
        return image
    canvas = Image.new("RGB", image.size, background)
    canvas.paste(image, mask=image.getchannel("A"))
    return canvas
