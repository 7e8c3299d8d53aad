"""Which bytes are an image, by what they begin with; of others, what they are instead."""

from __future__ import annotations

from featx.errors import ImageError

#: Formats of the decode policy, by Pillow's names.
READABLE = ("AVIF", "BMP", "DIB", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

#: Bytes that `sniff` looks at.
HEAD_BYTES = 512

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"BM", "BMP"),
    *((b"P%d%c" % (kind, space), "PPM") for kind in range(1, 7) for space in b" \t\r\n#"),
)

#: Brands of the box that AVIF and HEIF files begin with; a ``mif1`` says in its further brands which it is.
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIF"),
}
#: Sizes of the header that a BMP without its first 14 bytes, a DIB, begins with.
_DIB_HEADERS = (40, 52, 56, 64, 108, 124)

_CONVERT = "which featx does not read: convert it to PNG or JPEG"
_FOREIGN: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%PDF", "not an image: a PDF document"),
    (0, b"PK\x03\x04", "not an image: a ZIP archive"),
    (0, b"\x1f\x8b", "not an image: a gzip archive"),
    (0, b"\x89HDF", "not an image: an HDF5 file"),
    (0, b"\x93NUMPY", "not an image: a NumPy array; give it inside an .npz"),
    (0, b"version https://git-lfs", "not an image: a Git LFS pointer; fetch the file itself with 'git lfs pull'"),
    (0, b"\x00\x00\x01\x00", f"a Windows icon, {_CONVERT}"),
    (0, b"8BPS", f"a Photoshop document, {_CONVERT}"),
    (0, b"%!PS", f"a PostScript document, {_CONVERT}"),
    (0, b"SIMPLE  =", f"a FITS image, {_CONVERT}"),
    (0, b"\xff\x0a", f"a JPEG XL image, {_CONVERT}"),
    (0, b"\x00\x00\x00\x0cJXL ", f"a JPEG XL image, {_CONVERT}"),
    (4, b"ftyp", "not an image: a video"),
    (128, b"DICM", f"a DICOM image, {_CONVERT}"),
)
_MARKUP: tuple[tuple[bytes, str], ...] = (
    (b"<svg", f"an SVG drawing, {_CONVERT}"),
    (b"<!doctype html", "not an image: an HTML page, as a failed download leaves it"),
    (b"<html", "not an image: an HTML page, as a failed download leaves it"),
    (b"<?xml", "not an image: an XML document"),
)


def sniff(data: bytes) -> str:
    """Return the format of an encoded image, one of `READABLE`, from its first bytes.

    Parameters
    ----------
    data : bytes
        The file, or at least its first `HEAD_BYTES`.

    Raises
    ------
    ImageError
        If it is something else; the message says what, where that can be told.

    Examples
    --------
    >>> sniff(b"GIF89a...")
    'GIF'
    >>> sniff(b"<!DOCTYPE html><title>404</title>")
    Traceback (most recent call last):
    featx.errors.ImageError: not an image: an HTML page, as a failed download leaves it
    """
    if not data:
        raise ImageError("the file is empty (0 bytes)")
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp" and (kind := _brand(data)):
        return kind
    if int.from_bytes(data[:4], "little") in _DIB_HEADERS and data[12:14] == b"\1\0":  # one plane, as all have
        return "DIB"
    raise ImageError(_describe(data[:HEAD_BYTES]))


def _brand(data: bytes) -> str | None:
    """Return ``AVIF`` or ``HEIF`` by the brands of a file's first box; None for a video."""
    end = min(int.from_bytes(data[:4], "big"), HEAD_BYTES)
    brands = [data[8:12], *(data[k : k + 4] for k in range(16, end, 4))]
    kinds = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
    return "AVIF" if "AVIF" in kinds and brands[0] in _BRANDS else kinds[0] if brands[0] in _BRANDS else None


def _describe(head: bytes) -> str:
    for start, magic, description in _FOREIGN:
        if head.startswith(magic, start):
            return description
    if not head.strip(b"\x00"):
        return "not an image: it begins with zero bytes only, as a broken copy does"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for tag, description in _MARKUP:
        if text.startswith(tag):
            return description
    words = head.decode("ascii", errors="replace").split()
    if words and "".join(words).isprintable() and "\ufffd" not in "".join(words):
        return f"not an image: text that begins {' '.join(words)[:40]!r}"
    return f"not an image of a format that featx reads ({', '.join(READABLE)})"
