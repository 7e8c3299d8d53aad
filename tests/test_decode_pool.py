"""Decoding processes that are killed, stopped, starved or fed rubbish cost one image, never the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from struck_decoders import LARGE, children, encode, reasons, striking

from featx.errors import FeatxError, ImageError
from featx.images import DecodePool, File, item_id, prepare
from featx.recipe import Frame

FRAME = Frame(height=32, width=32, resize="crop", shorter=36, interpolation="bicubic")


def photo(seed: int, side: int = 40) -> bytes:
    rng = np.random.default_rng(seed)
    return encode(Image.fromarray(rng.integers(0, 256, (side, side + 5, 3), np.uint8)), "JPEG")


PHOTOS = [photo(seed) for seed in range(150)]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("n_workers", [0, 1, 2])
def test_pool_gives_the_pixels_of_prepare_in_order(n_workers):
    images = {7 * k: image for k, image in enumerate(PHOTOS)}
    with DecodePool(FRAME, n_workers=n_workers) as pool:
        results = list(pool.map(images.items()))

    assert [index for index, _ in results] == list(images)
    assert all(np.array_equal(result, prepare(images[index], FRAME)) for index, result in results)


@pytest.mark.parametrize("n_workers", [0, 2])
def test_arrays_bytes_and_errors_may_be_mixed(n_workers):
    array = np.random.default_rng(0).integers(0, 256, (50, 40, 4), np.uint8)
    unread = ImageError("no such file", transient=True)
    images = [array, b"<html>", PHOTOS[0], unread, array[..., 0], b"", array[::2, ::2]]
    with DecodePool(FRAME, n_workers=n_workers) as pool:
        results = list(pool.map(enumerate(images)))

    assert reasons(results) == {
        1: "not an image: an HTML page, as a failed download leaves it",
        3: "no such file",
        5: "the file is empty (0 bytes)",
    }
    assert [result.transient for _, result in results if isinstance(result, ImageError)] == [False, True, False]
    for k in (0, 2, 4, 6):
        assert np.array_equal(results[k][1], prepare(images[k], FRAME))


@pytest.mark.parametrize("n_workers", [0, 2])
def test_files_are_read_and_known_by_their_content_where_they_are_decoded(tmp_path, n_workers):
    (tmp_path / "photo.jpg").write_bytes(PHOTOS[0])
    (tmp_path / "page.jpg").write_bytes(b"<html>")
    images = [File(str(tmp_path / name)) for name in ("photo.jpg", "page.jpg", "gone.jpg")]
    array = np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8)
    with DecodePool(FRAME, n_workers=n_workers) as pool:
        (slab,) = pool.batches([enumerate([*images, array[::2], PHOTOS[1]])], 8)

        assert [item.tobytes() for item in slab.item_ids] == [
            item_id(PHOTOS[0]), item_id(b"<html>"), bytes(32), item_id(array[::2]), item_id(PHOTOS[1])
        ]  # fmt: skip
        assert {place: (str(error)[:30], error.transient) for place, error in slab.errors.items()} == {
            1: ("not an image: an HTML page, as", False),
            2: ("cannot be read (No such file o", True),
        }
        assert np.array_equal(slab.pixels[0], prepare(PHOTOS[0], FRAME))
        assert not slab.pixels[1:3].any()


def test_batches_that_are_held_keep_their_pixels():
    size = 4
    batches = [list(enumerate(PHOTOS))[start : start + size] for start in range(0, 40, size)]
    with DecodePool(FRAME, n_workers=2) as pool:
        held = []
        for slab in pool.batches(batches, size):
            held.append(slab)
            if len(held) == 2:
                first = held.pop(0)
                assert np.array_equal(first.pixels, [prepare(PHOTOS[k], FRAME) for k in first.indices])
                pool.release(first)


def test_slow_images_do_not_change_the_order():
    slow = encode(Image.new("L", (2_000, 2_000)))
    images = [slow, *PHOTOS[:40], slow, *PHOTOS[40:80]]
    with DecodePool(FRAME, n_workers=2) as pool:
        assert [index for index, _ in pool.map(enumerate(images))] == list(range(len(images)))


def test_no_image_is_no_result():
    with DecodePool(FRAME, n_workers=1) as pool:
        assert list(pool.map([])) == []


def test_pool_reads_only_so_far_ahead():
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield taken, LARGE if taken == 1 else PHOTOS[0]

    with DecodePool(FRAME, n_workers=2) as pool:
        next(pool.map(endless()))

        assert taken <= 2 * 2 * 3 * 32  # twice what fits in front of two decoders


def test_busy_consumer_is_not_taken_for_a_hung_decoder():
    with DecodePool(FRAME, n_workers=1, timeout=0.5) as pool:
        results = pool.map(enumerate(PHOTOS))
        first = [next(results)]
        time.sleep(1.0)

        assert reasons([*first, *results]) == {}


def test_decoder_killed_between_jobs_costs_no_image():
    with DecodePool(FRAME, n_workers=2) as pool:
        assert reasons(pool.map(enumerate(PHOTOS))) == {}
        for pid in pool.pids:
            os.kill(pid, signal.SIGKILL)

        assert reasons(pool.map(enumerate(PHOTOS))) == {}


def test_every_image_may_kill_its_decoder():
    with DecodePool(FRAME, n_workers=1) as pool, striking(lambda: pool.pids, signal.SIGKILL, times=5):
        results = list(pool.map((k, LARGE) for k in range(5)))

    assert sorted(reasons(results)) == [0, 1, 2, 3, 4]


def test_decoders_that_cannot_start_are_an_error(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with DecodePool(FRAME, n_workers=1) as pool, pytest.raises(FeatxError, match="die before they decode anything"):
        list(pool.map(enumerate(PHOTOS)))


def test_interpreter_that_is_not_there_is_an_error(monkeypatch):
    before = children(threading.get_native_id()), open_files()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(FeatxError, match=r"Cannot start 1 decoding processes \(.*No such file.*Try --workers 1"):
        DecodePool(FRAME, n_workers=1)

    assert (children(threading.get_native_id()), open_files()) == before


def test_a_limit_on_the_size_of_files_is_named_and_not_the_workers():
    code = (
        "import resource; from test_decode_pool import FRAME, DecodePool; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024)); next(DecodePool(FRAME, n_workers=1).map([(0, b'')]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    )

    assert "File too large" in done.stderr
    assert "ulimit -f unlimited" in done.stderr
    assert "--workers" not in done.stderr


def test_error_in_the_source_reaches_the_consumer_and_the_pool_lives_on():
    def broken():
        yield 0, PHOTOS[0]
        raise OSError("the disk is gone")

    with DecodePool(FRAME, n_workers=1) as pool:
        with pytest.raises(OSError, match="the disk is gone"):
            list(pool.map(broken()))

        assert reasons(pool.map(enumerate(PHOTOS))) == {}


def test_consumer_may_stop_early_and_begin_again():
    with DecodePool(FRAME, n_workers=2) as pool:
        for index, _ in pool.map(enumerate(PHOTOS)):
            if index == 3:
                break
        results = list(pool.map(enumerate(PHOTOS[::-1])))

    assert all(np.array_equal(result, prepare(PHOTOS[::-1][k], FRAME)) for k, result in results)
    assert len(results) == len(PHOTOS)


def test_two_maps_at_once_are_refused():
    with DecodePool(FRAME, n_workers=1) as pool:
        results = pool.map(enumerate(PHOTOS))
        next(results)
        with pytest.raises(RuntimeError, match="in the middle of a map"):
            next(pool.map(enumerate(PHOTOS)))
        results.close()

        assert len(list(pool.map(enumerate(PHOTOS)))) == len(PHOTOS)


def test_close_is_quick_and_leaves_nothing_behind():
    before = children(threading.get_native_id()), open_files()
    pool = DecodePool(FRAME, n_workers=2)
    results = pool.map(enumerate([*PHOTOS[:32], *[LARGE] * 64]))
    next(results)
    with striking(lambda: pool.pids, signal.SIGSTOP, times=2) as struck:
        while len(struck) < 2:
            time.sleep(0.01)
    start = time.monotonic()
    pool.close()

    assert time.monotonic() - start < 2
    results.close()  # whose consumer may still look at pixels
    assert (children(threading.get_native_id()), open_files()) == before


SCRIPT = """
import pathlib
import sys
from featx.images import DecodePool
from featx.recipe import Frame
frame = Frame(height=32, width=32, resize="crop", shorter=36, interpolation="bicubic")
image = pathlib.Path(sys.argv[1]).read_bytes()
with DecodePool(frame, n_workers=2) as pool:
    for index, result in pool.map((k, image) for k in range(10**9)):
        if index == 0:
            print(*pool.pids, flush=True)
"""


def run_script(start, tmp_path: Path) -> tuple[subprocess.Popen, list[int]]:
    (tmp_path / "photo.jpg").write_bytes(PHOTOS[0])
    command = [sys.executable, "-W", "error", "-c", SCRIPT, str(tmp_path / "photo.jpg")]
    process = start(command, start_new_session=True)
    return process, [int(pid) for pid in process.stdout.readline().split()]


def gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_ctrl_c_ends_everything_within_two_seconds(start, tmp_path):
    process, pids = run_script(start, tmp_path)
    struck = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=10)

    assert time.monotonic() - struck < 2
    assert stderr.strip().endswith("KeyboardInterrupt")
    assert stderr.count("Traceback") == 1
    assert "leaked" not in stderr
    assert gone(pids)


def test_ctrl_c_that_the_run_handles_itself_does_not_reach_the_decoders():
    with DecodePool(FRAME, n_workers=1) as pool:
        assert os.getpgid(pool.pids[0]) != os.getpgid(0)


def test_decoders_of_a_killed_run_end_by_themselves(start, tmp_path):
    process, pids = run_script(start, tmp_path)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 10
    while not gone(pids) and time.monotonic() < deadline:
        time.sleep(0.05)

    assert gone(pids)


@pytest.mark.parametrize("n_workers", [0, 1])
def test_the_first_of_several_dark_images_is_named_once(caplog, n_workers):
    dark = encode(Image.fromarray(np.arange(4000 + n_workers, dtype=np.uint16).reshape(1, -1)), "PNG")
    images, names = [PHOTOS[0], dark, dark], ["a.jpg", "b.png", "c.png"]
    for _ in range(2):  # as for augmented views
        with DecodePool(FRAME, n_workers=n_workers) as pool:
            list(pool.map(enumerate(images), names))

    text = f"b.png: grey of 16 bits up to {3999 + n_workers:,} only, so it comes out dark. If its white is 4095, add --white 4095"
    assert caplog.messages == [text]


def test_decoder_imports_pillow_and_numpy_only():
    done = subprocess.run(
        [sys.executable, "-S", "-X", "importtime", "-c", "import featx.images.worker"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    names = {line.split("|")[-1].strip().partition(".")[0] for line in done.stderr.splitlines()[1:]}

    assert names - sys.stdlib_module_names <= {"featx", "numpy", "PIL", "org"}  # copy.py asks for Jython's org.python


def test_decoder_is_not_led_astray_by_files_in_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    monkeypatch.chdir(tmp_path)
    with DecodePool(FRAME, n_workers=1) as pool:
        assert reasons(pool.map(enumerate(PHOTOS))) == {}
