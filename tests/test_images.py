"""The decode policy and the geometry: which pixels come of which file, and what is said of the others."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from featx.errors import ImageError, ImageWarning, OptionError
from featx.images import READABLE, decode, fit, pixels_of, prepare, sniff
from featx.recipe import INTERPOLATIONS, Frame

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def encode(image: Image.Image, container: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, container, **options)
    return buffer.getvalue()


def pixels(data, **options) -> list:
    """All pixels of the decoded image, row by row."""
    return np.asarray(decode(data, **options)).tolist()


def image_of(mode: str, *rows: tuple) -> Image.Image:
    image = Image.new(mode, (len(rows[0]), len(rows)))
    image.putdata([value for row in rows for value in row])
    return image


def frame(width, height=None, *, resize="crop", shorter=0, interpolation="bilinear", **others) -> Frame:
    return Frame(
        height=height or width, width=width, resize=resize, shorter=shorter, interpolation=interpolation, **others
    )


def noise(width, height, seed=0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def png(width: int, height: int, color_type: int, bits: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG written by hand, for the kinds that Pillow does not write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


# Golden pixels


@pytest.mark.parametrize("container", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_rgb_keeps_every_pixel(container):
    image = image_of("RGB", (RED, GREEN), (BLUE, (1, 2, 3)))

    assert pixels(encode(image, container)) == [[list(RED), list(GREEN)], [list(BLUE), [1, 2, 3]]]


@pytest.mark.parametrize(
    ("container", "options"), [("WEBP", {"lossless": True}), ("JPEG2000", {"irreversible": False})]
)
def test_lossless_modes_of_lossy_formats_keep_every_pixel(container, options):
    image = Image.new("RGB", (8, 8), (10, 200, 30))

    assert pixels(encode(image, container, **options)) == [[[10, 200, 30]] * 8] * 8


def test_jpeg_of_one_colour_is_that_colour():
    decoded = np.asarray(decode(encode(Image.new("RGB", (16, 16), (200, 100, 50)), "JPEG", quality=95))).astype(int)

    assert abs(decoded - (200, 100, 50)).max() <= 2


def test_one_pixel_is_an_image():
    assert pixels(encode(Image.new("RGB", (1, 1), (9, 8, 7)), "PNG")) == [[[9, 8, 7]]]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (image_of("L", (0, 7, 255)), [[0] * 3, [7] * 3, [255] * 3]),
        (image_of("1", (0, 255)), [[0] * 3, [255] * 3]),
    ],
    ids=["L", "1-bit"],
)
def test_grey_becomes_three_equal_channels(image, expected):
    assert pixels(encode(image, "PNG")) == [expected]


@pytest.mark.parametrize("container", ["PNG", "GIF", "BMP", "TIFF"])
def test_palette_is_looked_up(container):
    image = image_of("P", (0, 1, 2))
    image.putpalette([*RED, *GREEN, *BLUE])

    assert pixels(encode(image, container)) == [[list(RED), list(GREEN), list(BLUE)]]


@pytest.mark.parametrize(
    ("container", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})]
)
def test_alpha_is_composited_on_the_background(container, options):
    image = image_of("RGBA", ((255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 128)))
    data = encode(image, container, **options)

    assert pixels(data) == [[list(RED), list(WHITE), [127, 127, 127]]]
    assert pixels(data, background=(0, 0, 255)) == [[list(RED), list(BLUE), [0, 0, 127]]]


def test_grey_with_alpha_is_composited():
    assert pixels(encode(image_of("LA", ((0, 255), (0, 0), (100, 128))), "PNG")) == [
        [[0, 0, 0], [255, 255, 255], [177, 177, 177]]
    ]


@pytest.mark.parametrize("container", ["PNG", "GIF"])
def test_transparent_palette_entry_shows_the_background(container):
    image = image_of("P", (0, 1))
    image.putpalette([*RED, *GREEN])

    assert pixels(encode(image, container, transparency=1), background=BLUE) == [[list(RED), list(BLUE)]]


def test_palette_with_partial_alpha_is_composited():
    image = image_of("P", (0, 1))
    image.putpalette([*BLACK, *BLACK])

    assert pixels(encode(image, "PNG", transparency=bytes([255, 128]))) == [[[0, 0, 0], [127, 127, 127]]]


def test_transparent_colour_of_rgb_and_grey_shows_the_background():
    rgb = encode(image_of("RGB", (RED, GREEN)), "PNG", transparency=RED)
    grey = encode(image_of("L", (5, 6)), "PNG", transparency=5)

    assert pixels(rgb, background=BLUE) == [[list(BLUE), list(GREEN)]]
    assert pixels(grey, background=BLUE) == [[list(BLUE), [6, 6, 6]]]


@pytest.mark.parametrize("container", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_16_bit_grey_is_scaled_by_its_high_byte(container):
    values = np.array([[0, 255, 256, 0x80FF, 0xFFFF]], np.uint16)
    options = {"irreversible": False} if container == "JPEG2000" else {}

    assert pixels(encode(Image.fromarray(values), container, **options)) == [[[v, v, v] for v in (0, 0, 1, 0x80, 0xFF)]]


def test_16_bit_big_endian_tiff_is_read_in_its_byte_order():
    image = Image.frombytes("I;16B", (2, 1), b"\x12\x34\xff\x00")

    assert pixels(encode(image, "TIFF")) == [[[0x12] * 3, [0xFF] * 3]]


def test_16_bit_rgb_is_scaled_by_its_high_byte():
    row = struct.pack(">B6H", 0, 0xFFFF, 0x80FF, 0x0100, 0, 255, 256)

    assert pixels(png(2, 1, 2, 16, row)) == [[[255, 128, 1], [0, 0, 1]]]


def test_16_bit_grey_with_a_transparent_level_shows_the_background():
    row = struct.pack(">B2H", 0, 0x1234, 0x1235)

    assert pixels(png(2, 1, 0, 16, row, (b"tRNS", b"\x12\x34")), background=BLUE, white=0xFFFF) == [
        [list(BLUE), [0x12] * 3]
    ]


TWELVE_BITS = np.array([[0, 15, 16, 0x800, 0xFFF]], np.uint16)
SCALED = [[[v, v, v] for v in (0, 0, 1, 128, 255)]]


@pytest.mark.parametrize(
    "data",
    [
        encode(Image.fromarray(TWELVE_BITS), "TIFF", tiffinfo={281: 0xFFF}),
        encode(Image.fromarray(TWELVE_BITS), "TIFF", tiffinfo={341: 0xFFF}),
        png(5, 1, 0, 16, b"\0" + TWELVE_BITS.astype(">u2").tobytes(), (b"sBIT", b"\x0c")),
    ],
    ids=["MaxSampleValue", "SMaxSampleValue", "sBIT"],
)
def test_data_of_12_bits_in_16_are_scaled_where_the_file_says_so(data):
    assert pixels(data) == SCALED


def test_a_file_of_significant_bits_that_was_scaled_up_is_not_scaled_again():
    """As the specification of PNG wants it, and as most writers do."""
    values = np.array([[0, 0x8000, 0xFFF0]], ">u2")

    assert pixels(png(3, 1, 0, 16, b"\0" + values.tobytes(), (b"sBIT", b"\x0c"))) == [[[v] * 3 for v in (0, 128, 255)]]


@pytest.mark.parametrize("container", ["PNG", "TIFF"])
def test_data_of_12_bits_in_16_say_what_to_add_unless_white_is_given(container):
    data = encode(Image.fromarray(TWELVE_BITS), container)

    with pytest.warns(ImageWarning, match="grey of 16 bits up to 4,095 only.*add --white 4095"):
        assert np.asarray(decode(data)).max() == 15
    assert pixels(data, white=0xFFF) == SCALED
    assert pixels(data, white=1000)[0][-1] == [255] * 3


def test_dark_colour_of_16_bits_says_what_to_do():
    row = struct.pack(">B6H", 0, 0xFFF, 0x8FF, 0x100, 0, 255, 256)

    with pytest.warns(ImageWarning, match="colour of 16 bits that uses few of them.*8 bits a channel"):
        decode(png(2, 1, 2, 16, row))


def test_16_bit_tiff_in_which_white_is_zero_is_not_inverted_twice():
    values = Image.fromarray(np.array([[0, 0xFFFF]], np.uint16))

    assert pixels(encode(values, "TIFF", tiffinfo={262: 0})) == [[list(WHITE), list(BLACK)]]


def test_12_bit_tiff_is_scaled_by_its_own_full_scale():
    """Written by hand: two pixels, 0xFFF and 0x800, in three bytes."""
    tags = {256: 2, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 3}
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items())
    data = b"II*\0" + struct.pack("<I", 12) + b"\xff\xf8\x00\0" + struct.pack("<H", len(tags)) + entries + bytes(4)

    assert pixels(data) == [[[255] * 3, [128] * 3]]


def test_integers_of_16_bits_in_a_32_bit_mode_are_scaled():
    assert pixels(encode(image_of("I", (0, 0xFFFF)), "TIFF")) == [[list(BLACK), list(WHITE)]]


@pytest.mark.parametrize(("values", "found"), [((0, 70000), "from 0 to 70,000"), ((-1, 5), "from -1 to 5")])
def test_integers_beyond_16_bits_are_refused(values, found):
    with pytest.raises(ImageError, match=f"{found}, so white is not known"):
        decode(encode(image_of("I", values), "TIFF"))


def test_float_tiff_is_refused():
    with pytest.raises(ImageError, match="pixels are floats, so white is not known: save the image with 8 or 16 bits"):
        decode(encode(image_of("F", (0.0, 1.0)), "TIFF"))


def test_cmyk_jpeg_of_adobe_is_not_inverted():
    """Adobe stores CMYK in JPEGs inverted, and so does Pillow when it writes one."""
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    data = encode(image, "JPEG", quality=95)

    assert b"Adobe" in data
    assert abs(np.asarray(decode(data)).astype(int) - RED).max() <= 3


def test_cmyk_tiff_becomes_rgb():
    image = image_of("CMYK", ((0, 255, 255, 0), (0, 0, 0, 255), (255, 0, 0, 0)))

    assert pixels(encode(image, "TIFF")) == [[list(RED), list(BLACK), [0, 255, 255]]]


def test_ycbcr_tiff_becomes_rgb():
    data = encode(Image.new("YCbCr", (8, 8), (128, 128, 128)), "TIFF")

    assert pixels(data) == [[[128, 128, 128]] * 8] * 8


def test_lab_tiff_becomes_rgb():
    data = encode(Image.new("LAB", (2, 2), (255, 128, 128)), "TIFF")

    assert abs(np.asarray(decode(data)).astype(int) - WHITE).max() <= 1


def test_colour_mode_without_a_way_to_rgb_is_refused():
    with pytest.raises(ImageError, match="colour mode La cannot be converted to RGB: save the image as RGB"):
        pixels_of(Image.new("La", (2, 2)))


@pytest.mark.parametrize("container", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_of_several_is_read(container):
    frames = [Image.new("RGB", (4, 4), color) for color in (RED, GREEN, BLUE)]
    options = {"lossless": True} if container == "WEBP" else {}
    data = encode(frames[0], container, save_all=True, append_images=frames[1:], **options)

    assert pixels(data) == [[list(RED)] * 4] * 4


def test_camera_jpeg_with_a_preview_behind_it_gives_the_first_picture():
    data = encode(
        Image.new("RGB", (8, 8), BLACK), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8), WHITE)]
    )

    assert pixels(data) == [[list(BLACK)] * 8] * 8


# The image of EXIF orientation 1, as stored under each of the eight orientations.
UPRIGHT = ((1, 2, 3), (4, 5, 6))
STORED = {
    1: ((1, 2, 3), (4, 5, 6)),
    2: ((3, 2, 1), (6, 5, 4)),
    3: ((6, 5, 4), (3, 2, 1)),
    4: ((4, 5, 6), (1, 2, 3)),
    5: ((1, 4), (2, 5), (3, 6)),
    6: ((3, 6), (2, 5), (1, 4)),
    7: ((6, 3), (5, 2), (4, 1)),
    8: ((4, 1), (5, 2), (6, 3)),
}


@pytest.mark.parametrize("container", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_applied(container, orientation):
    image = image_of("L", *STORED[orientation]).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if container == "WEBP" else {}

    assert np.asarray(decode(encode(image, container, exif=exif, **options)))[..., 0].tolist() == [
        list(r) for r in UPRIGHT
    ]


@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_of_a_photo_is_applied(orientation):
    image = (
        image_of("L", *STORED[orientation])
        .point(lambda v: v * 40)
        .resize((len(STORED[orientation][0]) * 16, len(STORED[orientation]) * 16), Image.Resampling.NEAREST)
    )
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = np.asarray(decode(encode(image, "JPEG", quality=95, exif=exif)))[8::16, 8::16, 0]

    assert np.rint(decoded / 40).astype(int).tolist() == [list(row) for row in UPRIGHT]


def test_orientation_of_16_bit_images_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 3

    assert pixels(encode(Image.fromarray(np.array([[256, 512]], np.uint16)), "TIFF", exif=exif), white=0xFFFF) == [
        [[2] * 3, [1] * 3]
    ]


@pytest.mark.parametrize("orientation", [0, 9])
def test_impossible_orientation_is_ignored(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation

    assert pixels(encode(image_of("RGB", (RED, GREEN)), "PNG", exif=exif)) == [[list(RED), list(GREEN)]]


@pytest.mark.parametrize("exif", [b"Exif\x00\x00garbage that is no TIFF", b"Exif\x00\x00II*\x00\xff\xff\xff\xff"])
@pytest.mark.filterwarnings("ignore:.*EXIF:UserWarning")
def test_damaged_exif_does_not_cost_the_image(exif):
    assert pixels(encode(Image.new("RGB", (8, 8)), "JPEG", exif=exif)) == [[[0, 0, 0]] * 8] * 8


def test_arrays_are_grey_rgb_or_rgba():
    assert pixels(np.array([[3, 4]], np.uint8)) == [[[3] * 3, [4] * 3]]
    assert pixels(np.array([[[3], [4]]], np.uint8)) == [[[3] * 3, [4] * 3]]
    assert pixels(np.array([[RED, GREEN]], np.uint8)) == [[list(RED), list(GREEN)]]
    assert pixels(np.array([[[9, 9, 9, 0]]], np.uint8), background=BLUE) == [[list(BLUE)]]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2)),
        np.zeros((2, 2, 2), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 3, 3), np.uint8),
        np.zeros((1, 2, 2, 3), np.uint8),
        np.zeros((2, 2), np.uint16),
    ],
    ids=lambda a: f"{a.dtype}-{a.shape}",
)
def test_other_arrays_are_refused(array):
    with pytest.raises(ImageError, match="must be uint8 of shape"):
        decode(array)


def test_pillow_images_keep_their_alpha_for_a_later_background():
    assert pixels_of(Image.new("LA", (1, 1), (7, 8))).tolist() == [[[7, 7, 7, 8]]]
    assert pixels_of(Image.new("L", (1, 1), 7)).tolist() == [[[7, 7, 7]]]


def test_pillow_image_that_was_only_opened_gives_the_pixels_of_its_file():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(noise(5, 4), "PNG", exif=exif)

    assert np.array_equal(pixels_of(Image.open(io.BytesIO(data))), np.asarray(decode(data)))


def test_truncated_pillow_image_is_an_error():
    data = encode(noise(64, 64), "JPEG")

    with pytest.raises(ImageError, match="damaged or truncated JPEG"):
        pixels_of(Image.open(io.BytesIO(data[:-1000])))


# What is said of files that are no images


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"the file is empty \(0 bytes\)"),
        (b"<!DOCTYPE html><p>404", "an HTML page, as a failed download leaves it"),
        (b"\n <html>", "an HTML page"),
        (b"<svg xmlns=''/>", "an SVG drawing.*convert it to PNG or JPEG"),
        (b"<?xml version='1.0'?>", "an XML document"),
        (b"%PDF-1.7", "a PDF document"),
        (b"PK\x03\x04....", "a ZIP archive"),
        (b"\x00\x00\x00\x18ftypavif....", "damaged AVIF"),
        (b"\x00\x00\x00\x18ftypisom....", "a video"),
        (b"\x00" * 128 + b"DICM", "a DICOM image"),
        (b"\x00" * 600, "zero bytes only"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"Not Found", "text that begins 'Not Found'"),
        (b"\x80\x04\x95\xff\xfe", "not an image of a format that featx reads"),
        (b"\x89PNG\r\n\x1a\n", "damaged PNG, or a kind of PNG that Pillow does not read"),
        (b"\xff\xd8\xff\xe0rest", "damaged"),
        (b"GIF89a", "damaged"),
        (b"BMshort", "damaged"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "damaged"),
        (b"II*\x00\xff\xff\xff\xff", "damaged"),
        (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "damaged"),
        (b"P6 2 2 255\n", "damaged or truncated PPM"),
    ],
)
def test_reason_says_what_the_file_is(data, reason):
    with pytest.raises(ImageError, match=reason) as caught:
        decode(data)

    assert not caught.value.transient


def test_formats_are_told_by_content():
    written = [name for name in READABLE if name != "HEIF"]
    found = {sniff(encode(Image.new("RGB", (16, 16)), container)) for container in written}

    assert found == set(written)
    for brands in ("heic", "mif1\0\0\0\0mif1heic", "heix\0\0\0\0mif1"):
        assert sniff((8 + len(brands)).to_bytes(4, "big") + b"ftyp" + brands.encode()) == "HEIF"
    assert sniff(b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif") == "AVIF"


def test_a_photo_of_a_phone_is_read():
    pytest.importorskip("pillow_heif", reason="the extra heif is not installed").register_heif_opener()
    photo = encode(Image.new("RGB", (64, 48), (10, 200, 30)), "HEIF")

    assert decode(photo).size == (64, 48)
    assert abs(decode(photo).getpixel((9, 9))[1] - 200) < 8


def test_a_photo_of_a_phone_says_what_reads_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"a HEIC photo: to read it pip install 'featx\[heif\]'") as caught:
        decode(b"\x00\x00\x00\x18ftypheic....")

    assert caught.value.transient  # it is tried again once that is installed


@pytest.mark.parametrize("container", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000", "PPM"])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_truncated_file_is_an_error(container, kept):
    data = encode(noise(64, 64), container)

    with pytest.raises(ImageError, match=f"damaged.*{container}"):
        decode(data[: int(len(data) * kept)])


def test_truncated_file_is_an_error_even_where_pillow_was_told_to_fill_it(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encode(noise(64, 64), "JPEG")

    with pytest.raises(ImageError, match="truncated"):
        decode(data[:-2000])
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_flipped_byte_of_a_png_is_an_error():
    data = bytearray(encode(noise(16, 16), "PNG"))
    data[len(data) // 2] ^= 1

    with pytest.raises(ImageError, match="damaged or truncated PNG"):
        decode(bytes(data))


@settings(max_examples=150, deadline=None)
@given(
    container=st.sampled_from(["PNG", "GIF", "JPEG", "TIFF", "BMP", "WEBP"]),
    place=st.floats(0, 1, exclude_max=True),
    value=st.integers(0, 255),
)
@pytest.mark.filterwarnings("ignore")
def test_damaged_file_is_an_image_or_an_image_error(container, place, value):
    data = bytearray(encode(noise(9, 7), container))
    data[int(place * len(data))] = value

    try:
        outcome = decode(bytes(data)).mode
    except ImageError as error:
        outcome = str(error)

    assert outcome == "RGB" or ("\n" not in outcome and container in outcome.replace("decompression bomb", container))


@pytest.mark.parametrize("side", [9_460, 20_000, 60_000])
def test_bomb_is_refused_before_anything_is_decoded(side):
    data = png(side, side, 2, 8, b"")  # no pixels at all: reading them would say "truncated"

    with pytest.raises(ImageError, match=r"decompression bomb: .* than the 89,478,485 that are decoded"):
        decode(data)


def test_bomb_is_refused_even_where_pillow_was_told_to_take_any(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)

    with pytest.raises(ImageError, match="decompression bomb: 20,000 × 20,000 pixels, more than the 89,478,485"):
        decode(png(20_000, 20_000, 2, 8, b""))


def test_bomb_is_refused_without_allocating_it():
    """In a fresh process: 400 million pixels must not appear in its peak memory."""
    program = (
        "import sys\n"
        "from featx.images import decode\n"
        "from featx.errors import ImageWarning, ImageError\n"
        "data = sys.stdin.buffer.read()\n"
        "def peak(): return int(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1])\n"
        "before = peak()\n"
        "try: decode(data)\n"
        "except ImageError as error: print(error)\n"
        "print(peak() - before)\n"
    )
    packer = zlib.compressobj(1)
    row = b"\x00" * 20_001
    rows = b"".join(packer.compress(row) for _ in range(20_000)) + packer.flush()
    header = png(20_000, 20_000, 0, 8, b"")
    bomb = header[:33] + struct.pack(">I", len(rows)) + b"IDAT" + rows + struct.pack(">I", zlib.crc32(b"IDAT" + rows))
    done = subprocess.run([sys.executable, "-c", program], input=bomb, capture_output=True, check=True)
    reason, grown = done.stdout.decode().splitlines()

    assert "decompression bomb" in reason
    assert int(grown) < 20_000  # KiB


# Geometry

SIZES = [(640, 480), (480, 640), (500, 333), (333, 500), (224, 224), (225, 224), (31, 57), (7, 300), (1, 1), (255, 1)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(("crop", "shorter"), [(224, 256), (33, 40)])
def test_crop_equals_torchvision(size, interpolation, crop, shorter):
    v2 = pytest.importorskip("torchvision.transforms.v2")
    mode = v2.InterpolationMode(interpolation)
    image = noise(*size)
    theirs = v2.Compose([v2.Resize(shorter, mode, antialias=True), v2.CenterCrop(crop)])(image)

    assert np.array_equal(fit(image, frame(crop, shorter=shorter, interpolation=interpolation)), np.asarray(theirs))


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (31, 57), (33, 33), (20, 20)], ids=str)
def test_crop_larger_than_the_image_is_black_around_it_as_in_torchvision(size):
    v2 = pytest.importorskip("torchvision.transforms.v2")
    image = noise(*size)
    theirs = v2.Compose([v2.Resize(20), v2.CenterCrop((33, 30))])(image)
    ours = fit(image, frame(30, 33, shorter=20))

    assert np.array_equal(ours, np.asarray(theirs))
    assert ours[:, 0].max() == 0 or ours[0].max() == 0


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    shorter=st.integers(1, 60),
    crop_width=st.integers(1, 70),
    crop_height=st.integers(1, 70),
)
def test_crop_of_any_size_equals_torchvision(width, height, shorter, crop_width, crop_height):
    v2 = pytest.importorskip("torchvision.transforms.v2")
    image = noise(width, height)
    theirs = v2.Compose([v2.Resize(shorter), v2.CenterCrop((crop_height, crop_width))])(image)

    assert np.array_equal(fit(image, frame(crop_width, crop_height, shorter=shorter)), np.asarray(theirs))


@settings(max_examples=60, deadline=None)
@given(
    side=st.integers(1, 90) | st.sampled_from([32, 64, 128]),
    shorter=st.integers(1, 60) | st.sampled_from([32, 64, 256]),
    crop=st.integers(1, 60),
    interpolation=st.sampled_from(INTERPOLATIONS),
)
def test_crop_of_any_square_equals_torchvision(side, shorter, crop, interpolation):
    v2 = pytest.importorskip("torchvision.transforms.v2")
    image = noise(side, side)
    theirs = v2.Compose([v2.Resize(shorter, v2.InterpolationMode(interpolation)), v2.CenterCrop(crop)])(image)

    assert np.array_equal(fit(image, frame(crop, shorter=shorter, interpolation=interpolation)), np.asarray(theirs))


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 200),
    height=st.integers(1, 90),
    shorter=st.sampled_from([8, 16, 32, 64, 128]),
    crop_width=st.integers(1, 70),
    crop_height=st.integers(1, 70),
    interpolation=st.sampled_from(INTERPOLATIONS),
)
def test_crop_of_any_landscape_equals_torchvision(width, height, shorter, crop_width, crop_height, interpolation):
    v2 = pytest.importorskip("torchvision.transforms.v2")
    image, mode = noise(max(width, height), min(width, height)), v2.InterpolationMode(interpolation)
    theirs = v2.Compose([v2.Resize(shorter, mode), v2.CenterCrop((crop_height, crop_width))])(image)
    asked = frame(crop_width, crop_height, shorter=shorter, interpolation=interpolation)

    assert np.array_equal(fit(image, asked), np.asarray(theirs))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("side", "crop_pct"), [(224, 0.875), (240, 0.882), (299, 0.875), (331, 0.8975), (64, 1.0)])
@pytest.mark.filterwarnings("ignore")
def test_crop_equals_timm(size, side, crop_pct):
    data = pytest.importorskip("timm.data")
    theirs = data.create_transform(side, interpolation="bicubic", crop_pct=crop_pct, normalize=False)(noise(*size))
    ours = fit(noise(*size), frame(side, shorter=int(side / crop_pct), interpolation="bicubic"))

    assert np.array_equal(ours, theirs.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.filterwarnings("ignore")
def test_squash_and_pad_equal_timm(size):
    data = pytest.importorskip("timm.data")
    image, black = noise(*size), (0.0, 0.0, 0.0)
    options = {"crop_pct": 1.0, "interpolation": "bilinear", "normalize": False, "mean": black}
    for resize, theirs in (("squash", "squash"), ("pad", "border")):
        transform = data.create_transform(50, crop_mode=theirs, **options)
        if theirs == "border" and min(size) * 50 / max(size) < 0.5:
            continue  # timm fails where the shorter side rounds to nothing
        ours = fit(image, frame(50, resize=resize, background=BLACK))

        assert np.array_equal(ours, transform(image).permute(1, 2, 0).numpy())


def test_pad_uses_the_background():
    padded = fit(Image.new("RGB", (4, 2), RED), frame(4, resize="pad", background=BLUE))

    assert padded[:, 0].tolist() == [list(BLUE), list(RED), list(RED), list(BLUE)]


def test_pad_of_a_line_keeps_a_line():
    assert fit(Image.new("RGB", (1, 300), RED), frame(10, resize="pad"))[:, 4].tolist() == [list(RED)] * 10


@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
def test_image_of_the_frame_s_own_size_passes_untouched(resize):
    image = noise(32, 32)

    assert np.array_equal(fit(image, frame(32, resize=resize, shorter=32)), np.asarray(image))


def test_result_is_writable_contiguous_and_of_the_frame_s_shape():
    result = fit(noise(20, 10), frame(6, 4, shorter=5))

    assert result.shape == (4, 6, 3)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    assert result.flags.writeable


def test_line_that_would_balloon_in_the_crop_is_refused():
    with pytest.raises(ImageError, match="1 × 50,000 pixels is too long and thin to crop: use --resize pad or squash"):
        fit(Image.new("RGB", (1, 50_000)), frame(224, shorter=256))


def test_prepare_decodes_and_fits():
    rgba = encode(Image.new("RGBA", (8, 4), (0, 0, 0, 0)), "PNG")

    assert prepare(rgba, frame(2, resize="squash", background=BLUE)).tolist() == [[list(BLUE)] * 2] * 2


def test_recipe_of_another_policy_is_refused():
    with pytest.raises(OptionError, match="decodes images by 'pillow-9', this featx by pillow-1 or pillow-1-draft"):
        prepare(np.zeros((2, 2), np.uint8), frame(2, shorter=2, decode="pillow-9"))


# Drafts


def photo(width, height) -> Image.Image:
    """Smooth colours, as photos are: noise would differ at any scale."""
    return noise(9, 7).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_draft_of_a_large_jpeg_is_nearly_the_same_pixels(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(photo(600, 400), "jpeg", quality=95, exif=exif)
    asked = {"shorter": 40, "interpolation": "bicubic"}
    full, draft = prepare(data, frame(32, **asked)), prepare(data, frame(32, decode="pillow-1-draft", **asked))

    assert decode(data, draft=80).size in [(150, 100), (100, 150)]
    assert np.abs(full.astype(int) - draft).mean() < 1
    assert np.abs(full.astype(int) - draft).max() < 8
    assert not np.array_equal(full, draft)


@pytest.mark.parametrize(
    "data",
    [
        encode(photo(600, 400), "png"),
        encode(photo(159, 200), "jpeg"),
        np.asarray(photo(600, 400)),
    ],
    ids=["PNG", "JPEG less than twice as large as what is taken twice over", "array"],
)
def test_what_has_no_draft_is_decoded_in_full(data):
    asked = {"shorter": 40, "interpolation": "bicubic"}

    assert np.array_equal(prepare(data, frame(32, **asked)), prepare(data, frame(32, decode="pillow-1-draft", **asked)))


def test_a_bomb_is_no_draft_either():
    bomb = encode(Image.new("L", (10_000, 9_000)), "jpeg")

    with pytest.raises(ImageError, match="decompression bomb"):
        decode(bomb, draft=64)
