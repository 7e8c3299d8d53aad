"""FAULTS rows 5 and 17 to 19: images that kill, hang, balloon, are none, or are of an odd kind."""

import base64
import contextlib
import json
import os
import signal
import struct
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from struck_decoders import LARGE, children, encode, holds_large, reasons, striking
from tiny_network import album, rows_by_content, run

from featx.cli import main
from featx.errors import TooManyErrors
from featx.images import DecodePool, decode, prepare
from featx.recipe import Frame

FRAME = Frame(height=32, width=32, resize="crop", shorter=36, interpolation="bicubic")
PHOTOS = [encode(Image.fromarray(np.full((20, 30, 3), seed, np.uint8))) for seed in range(60)]
KILLED = "the decoder was killed (SIGKILL), as the system does when memory runs out"


@pytest.mark.parametrize(
    ("sign", "reason"),
    [
        (signal.SIGKILL, KILLED),
        (signal.SIGSEGV, "the decoder crashed (SIGSEGV)"),
        (signal.SIGSTOP, "decoding took longer than 2 s"),
    ],
    ids=["killed for memory", "crashed", "hung"],
)
def test_row_05_a_decoder_that_dies_or_hangs_costs_the_image_in_hand(sign, reason):
    images = [*PHOTOS[:40], LARGE, *PHOTOS[40:]]
    with DecodePool(FRAME, n_workers=2, timeout=2.0) as pool, striking(lambda: pool.pids, sign) as struck:
        results = list(pool.map(enumerate(images)))

        assert set(struck).isdisjoint(pool.pids)
        assert len(pool.pids) == 2
    assert reasons(results) == {40: reason}
    assert results[40][1].transient
    assert all(np.array_equal(result, prepare(images[k], FRAME)) for k, result in results if k != 40)


def test_row_05_what_a_killed_decoder_leaves_in_a_slab_is_never_seen():
    """Every slab has been full of other images before, and its decoder dies in the middle of the third image."""
    size = 4
    batches = [[(k, PHOTOS[k]) for k in range(start, start + size)] for start in range(0, 40, size)]
    batches.append([(100, PHOTOS[50]), (101, PHOTOS[51]), (102, LARGE), (103, PHOTOS[52])])
    with DecodePool(FRAME, n_workers=1) as pool, striking(lambda: pool.pids, signal.SIGKILL) as struck:
        for slab in pool.batches(batches, size):
            assert slab.item_ids.any(axis=1).tolist() == [place not in slab.errors for place in range(size)]
            found = slab.indices, slab.pixels.copy(), dict(slab.errors)
            pool.release(slab)

    assert len(struck) == 1
    indices, pixels, errors = found
    assert indices == [100, 101, 102, 103]
    assert {place: str(error) for place, error in errors.items()} == {2: KILLED}
    assert not pixels[2].any()
    for place, k in [(0, 50), (1, 51), (3, 52)]:
        assert np.array_equal(pixels[place], prepare(PHOTOS[k], FRAME))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory that a process asks for")
def test_row_05_an_image_that_balloons_costs_itself():
    images = [PHOTOS[0], LARGE, PHOTOS[1]]
    with DecodePool(FRAME, n_workers=1, memory_limit=150 * 2**20) as pool:
        results = list(pool.map(enumerate(images)))

    assert reasons(results) == {1: "decoding needs more memory than a decoder may use"}
    assert results[1][1].transient


def test_row_05_the_run_goes_on_and_the_image_is_tried_again_next_time(tmp_path):
    photos = album(tmp_path / "photos")
    (photos / "cat" / "large.png").write_bytes(LARGE)
    thread = threading.get_native_id()

    with striking(lambda: children(thread), signal.SIGKILL):
        first = run(photos, tmp_path / "cache", workers=1, max_errors="100%")
    again = run(photos, tmp_path / "cache", workers=1)

    assert (first.computed, first.tables[0].errors) == (12, [("cat/large.png", KILLED)])
    assert (again.computed, again.tables[0].errors) == (1, [])
    assert len(again.tables[0]) == 13


STOPPED = """
import sys
from pathlib import Path
from featx.images import DecodePool
from featx.recipe import Frame
frame = Frame(height=32, width=32, resize="crop", shorter=36, interpolation="bicubic")
image = Path(sys.argv[1]).read_bytes()
with DecodePool(frame, n_workers=1, timeout=4.0) as pool:
    print(*pool.pids, flush=True)
    for index, result in pool.map((k, image) for k in range(4)):
        if not hasattr(result, "shape"):
            print(result)
"""


def test_row_05_a_run_that_was_stopped_does_not_take_its_decoders_for_hung(start, tmp_path):
    """As a paused container is: time in which nobody ran says nothing about a decoder."""
    (tmp_path / "slow.png").write_bytes(encode(Image.new("L", (4_000, 5_000))))
    process = start([sys.executable, "-c", STOPPED, str(tmp_path / "slow.png")])
    (decoder,) = map(int, process.stdout.readline().split())
    while not holds_large(decoder) and process.poll() is None:
        time.sleep(0.002)
    for sign, pid, seconds in [
        (signal.SIGSTOP, decoder, 0.7),  # long enough to be noticed
        (signal.SIGSTOP, process.pid, 4.0),  # the run waits no longer: neither does it count
        (signal.SIGCONT, process.pid, 0.2),
        (signal.SIGCONT, decoder, 0.0),
    ]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sign)
        time.sleep(seconds)
    stdout, stderr = process.communicate(timeout=60)

    assert (stdout, stderr) == ("", "")


def test_row_17_what_is_no_image_is_listed_with_its_reason_and_the_good_rows_are_kept(tmp_path, capsys):
    photos = album(tmp_path / "photos")
    expected = rows_by_content(run(photos, tmp_path / "oracle").tables[0])
    good = encode(Image.fromarray(np.random.default_rng(9).integers(0, 256, (40, 40, 3), dtype=np.uint8)), "JPEG")
    bad = {
        "cut.jpg": (good[: len(good) // 2], "truncated"),
        "flipped.png": (PHOTOS[0][:50] + b"\xff" + PHOTOS[0][51:], "damaged"),
        "empty.jpg": (b"", "the file is empty"),
        "text.jpg": (b"no image at all", "text that begins"),
        "page.jpg": (b"<!DOCTYPE html><title>404</title>", "an HTML page"),
        "zeros.png": (bytes(500), "zero bytes"),
    }
    for name, (content, _) in bad.items():
        (photos / "cat" / name).write_bytes(content)
    (photos / "dog" / "jpeg.png").write_bytes(good)  # a wrong extension is no fault

    with pytest.raises(TooManyErrors, match=r"6 of 19 images cannot be read, more than --max-errors 1%"):
        run(photos, tmp_path / "cache")
    done = run(photos, tmp_path / "cache", max_errors="50%")

    table, errors = done.tables[0], dict(done.tables[0].errors)
    assert done.computed == 0
    assert len(table) == 13
    assert expected.items() <= rows_by_content(table).items()
    assert sorted(errors) == sorted(f"cat/{name}" for name in bad)
    assert all(reason in errors[f"cat/{name}"] for name, (_, reason) in bad.items())
    named = ["--backbone", "tiny_network:tiny", "--backbone-version", "1", "--weights", "none", "--json"]
    assert main(["extract", str(photos), "--cache", str(tmp_path / "cache"), *named]) == 1
    assert "6 of 19 images" in json.loads(capsys.readouterr().out)["error"]["message"]


def bomb():
    """Return a PNG of 20,000 × 20,000 black pixels: half a megabyte that decodes to 1.2 GB."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(20_001 * 100)) for _ in range(200)) + packer.flush()
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b"")]
    body = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory that a process asks for")
def test_row_18_a_bomb_is_refused_before_it_is_decoded():
    """In a decoder that may have 150 MB, and could not decode it; its own limit is not what stops it."""
    with DecodePool(FRAME, n_workers=1, memory_limit=150 * 2**20) as pool:
        started = time.monotonic()
        results = list(pool.map(enumerate([PHOTOS[0], bomb(), PHOTOS[1]])))

    assert reasons(results)[1].startswith("decompression bomb: ")
    assert time.monotonic() - started < 5
    assert not results[1][1].transient
    assert len(reasons(results)) == 1


GOLDEN = json.loads(Path(__file__).with_name("golden_pixels.json").read_text())


@pytest.mark.parametrize("kind", GOLDEN)
def test_row_19_golden_pixels(kind):
    """The bytes of a file and the pixels it must give, for ever: those of lossless kinds were written by hand."""
    golden = GOLDEN[kind]

    assert np.asarray(decode(base64.b64decode(golden["file"]))).tolist() == golden["pixels"]


def test_row_19_kinds_of_images_go_through_extraction(tmp_path):
    for number, golden in enumerate(GOLDEN.values()):
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(base64.b64decode(golden["file"]))
        plain = np.array(golden["pixels"], np.uint8)
        (tmp_path / "plain").mkdir(exist_ok=True)
        Image.fromarray(plain).save(tmp_path / "plain" / f"{number}.png")
    odd = run(tmp_path / "photos", tmp_path / "cache").tables[0]
    plain = run(tmp_path / "plain", tmp_path / "cache").tables[0]

    assert len(odd) == len(plain) == len(GOLDEN)
    assert [i.split(".")[0] for i in odd.ids] == [i.split(".")[0] for i in plain.ids]
    assert np.array_equal(odd.X, plain.X)
