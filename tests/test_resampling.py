"""Resizing in compiled code: Pillow's pixels to the bit, started only where it pays, and never trusted unseen."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from featx.images import DecodePool, prepare, resizing
from featx.images.resizing import Resizer, by_numba, by_pillow
from featx.recipe import INTERPOLATIONS, Frame


def noise(width: int, height: int, *, seed: int = 0, extreme: bool = False) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(np.where(pixels > 127, 255, 0).astype(np.uint8) if extreme else pixels)


@pytest.fixture
def left_to_pillow(monkeypatch):
    """Of each resize that was left to Pillow, the size of the image and the new one."""
    calls = []

    def watched(image, size, box, interpolation):
        calls.append((image.size, size))
        return by_pillow(image, size, box, interpolation)

    monkeypatch.setattr(resizing, "by_pillow", watched)
    return calls


@settings(max_examples=300, deadline=None)
@given(
    size=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    new=st.tuples(st.integers(1, 150), st.integers(1, 150)) | st.integers(1, 150),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
    interpolation=st.sampled_from(INTERPOLATIONS),
    extreme=st.booleans(),
)
def test_any_box_of_any_resize_is_that_of_pillow(size, new, corners, interpolation, extreme):
    if isinstance(new, int):  # in proportion, as a crop has it
        short = min(size)
        new = tuple(new if side == short else int(new * side / short) for side in size)
        assume(max(new) < 2000)
    left, right = sorted(round(c * new[0]) for c in corners[:2])
    top, bottom = sorted(round(c * new[1]) for c in corners[2:])
    assume(left < right and top < bottom)
    image = noise(*size, extreme=extreme)
    resized = by_numba(image, new, (left, top, right, bottom), interpolation)

    assert np.array_equal(resized, by_pillow(image, new, (left, top, right, bottom), interpolation))
    assert resized.flags.c_contiguous
    assert resized.flags.writeable


@pytest.mark.parametrize("interpolation", ["box", "bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(500, 375), (375, 500), (1080, 1920), (3000, 2000), (32, 32)], ids=str)
def test_photos_are_resized_in_compiled_code(size, interpolation, left_to_pillow):
    new = tuple(int(256 * side / min(size)) for side in size)
    left, top = (new[0] - 224) // 2, (new[1] - 224) // 2
    box = (left, top, left + 224, top + 224)
    resized = by_numba(noise(*size), new, box, interpolation)

    assert left_to_pillow == []
    assert np.array_equal(resized, by_pillow(noise(*size), new, box, interpolation))


@pytest.mark.parametrize(
    ("size", "new", "box", "interpolation"),
    [
        ((40, 30), (20, 15), (0, 0, 20, 15), "lanczos"),
        ((40, 30), (20, 15), (0, 0, 20, 15), "nearest"),
        ((40, 30), (20, 15), (-3, 0, 20, 15), "bicubic"),
        ((40, 30), (20, 15), (0, 0, 20, 16), "bicubic"),
        ((30, 90), (20, 60), (0, 0, 20, 60), "bicubic"),
        ((48, 91), (34, 62), (0, 0, 34, 62), "bicubic"),
        ((40, 30), (40, 30), (4, 4, 30, 20), "bicubic"),
    ],
)
def test_what_has_another_arithmetic_is_left_to_pillow(size, new, box, interpolation, left_to_pillow):
    resized = by_numba(noise(*size), new, box, interpolation)

    assert left_to_pillow == [(size, new)]
    assert np.array_equal(resized, by_pillow(noise(*size), new, box, interpolation))


# The choice between them


ARGUMENTS = ((20, 15), (0, 0, 20, 15), "bicubic")


def compiled(monkeypatch, resize=by_numba):
    """Have calls of compiled code counted, and perhaps do something else."""
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return resize(*arguments)

    monkeypatch.setattr(resizing, "by_numba", counted)
    return calls


def test_a_few_images_never_wait_for_numba(monkeypatch):
    calls = compiled(monkeypatch)
    resize = Resizer(patience=60.0)
    for _ in range(3):
        resize(noise(40, 30), *ARGUMENTS)
        resize.settle()

    assert calls == []


def test_what_is_still_to_come_decides_whether_numba_is_worth_its_start(monkeypatch):
    calls = compiled(monkeypatch)
    image = noise(400, 300)
    few, many = Resizer(n_images=2), Resizer(n_images=10_000_000)
    for resize in (few, many):
        resize(image, (300, 225), (0, 0, 300, 225), "bicubic")
    few.settle()
    assert calls == []
    many.settle()
    assert calls


def test_many_images_are_resized_in_compiled_code_once_it_was_held_against_pillow(monkeypatch):
    calls = compiled(monkeypatch)
    resize = Resizer(patience=0.0)
    before = resize(noise(40, 30), *ARGUMENTS)
    assert calls == []
    resize.settle()
    n_checks = len(calls)
    after = resize(noise(40, 30), *ARGUMENTS)
    resize.settle()

    assert n_checks > 0
    assert len(calls) == n_checks + 1
    assert np.array_equal(before, after)


def one_level_off(image, size, box, interpolation):
    resized = by_pillow(image, size, box, interpolation)
    resized[0, 0, 0] ^= 1
    return resized


def out_of_memory(*_):
    raise MemoryError


@pytest.mark.parametrize("broken", [one_level_off, out_of_memory])
def test_compiled_code_of_other_pixels_or_none_is_never_used(broken, monkeypatch):
    calls = compiled(monkeypatch, broken)
    resize = Resizer(patience=0.0)
    for _ in range(3):
        resized = resize(noise(40, 30), *ARGUMENTS)
        resize.settle()

    assert len(calls) == 1  # one attempt
    assert np.array_equal(resized, by_pillow(noise(40, 30), *ARGUMENTS))


def test_without_numba_pillow_resizes_all(monkeypatch):
    monkeypatch.setitem(sys.modules, "featx.images.kernel", None)
    resize = Resizer(patience=0.0)
    for _ in range(3):
        resized = resize(noise(40, 30), *ARGUMENTS)
        resize.settle()

    assert np.array_equal(resized, by_pillow(noise(40, 30), *ARGUMENTS))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to see what a decoder has loaded")
def test_a_decoder_with_much_to_resize_starts_numba_and_goes_on_with_the_same_pixels():
    frame = Frame(height=224, width=224, resize="crop", shorter=256, interpolation="bicubic")
    photos = [np.asarray(noise(2400, 1800, seed=seed)) for seed in range(3)]
    expected = [prepare(photo, frame) for photo in photos]
    with DecodePool(frame, n_workers=1) as pool:
        maps = Path(f"/proc/{pool.pids[0]}/maps")
        first = dict(pool.map(enumerate(photos[:1])))
        loaded_at_first = "llvmlite" in maps.read_text()
        results = dict(pool.map((i, photos[i % 3]) for i in range(60)))

        assert "llvmlite" in maps.read_text()
    assert not loaded_at_first
    assert np.array_equal(first[0], expected[0])
    assert all(np.array_equal(results[i], expected[i % 3]) for i in range(60))
