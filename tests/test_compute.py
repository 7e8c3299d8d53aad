"""Images through an engine: two batches under way, so that neither waits for the other's end; and who waited for whom."""

from __future__ import annotations

import errno
import threading
import time

import numpy as np
import pretended_gpu
import pytest

from featx import backbones
from featx.datasets import item_id, open_dataset
from featx.engines import Engine, open_engine
from featx.errors import ImageError, NoSpaceError
from featx.extraction.plan import Plan, Segment, identify
from featx.extraction.segments import compute_segments, run_segments
from featx.files.disk import Disk
from featx.images import DecodePool
from featx.recipe import Request
from featx.store import Store


@pytest.fixture(scope="module")
def recipes():
    return backbones.resolve(Request(backbone="timm/test_resnet", weights="none", image_size=32))[1]


def engine(recipes, compute, *, n_at_once=1, batch_size=2, request_size=None):
    def rows(pixels):
        compute(pixels)
        return [np.repeat(pixels[:, :1, 0, 0], recipe.shape[0], axis=1).astype(np.float32) for recipe in recipes]

    sizes = {"batch_size": batch_size, "request_size": request_size}
    return Engine(rows, recipes, name="openvino", n_at_once=n_at_once, why="", **sizes)


def numbered(n, bad=()):
    for i in range(n):
        yield i, ImageError("torn") if i in bad else np.full((32, 32, 3), i, np.uint8)


class Images:
    """A dataset whose images come in the order and at the time that an iterator gives them."""

    def __init__(self, images):
        self.images, self.ids = iter(images), None

    def unread(self, indices):
        return self.images


def rows_of(recipes, engine, images, n, on_batch=None):
    """Compute `n` images as one segment, decoded in this process when they are asked for."""
    with DecodePool(recipes[0].frame, n_workers=0) as pool:
        segments = [Segment(recipes, np.arange(n))]
        (computed,) = compute_segments(Images(images), segments, engine, pool, on_batch=on_batch)
    return computed


@pytest.mark.parametrize("n_at_once", [0, 1, 2])
@pytest.mark.parametrize("bad", [(), (1,), (2, 3), range(7)])
def test_rows_come_in_the_order_of_their_images_whatever_is_missing(recipes, bad, n_at_once):
    slow_first = engine(recipes, lambda pixels: time.sleep(0.03 if pixels[0, 0, 0, 0] < 2 else 0), n_at_once=n_at_once)
    reported = []
    computed = rows_of(recipes, slow_first, numbered(7, bad), 7, lambda n, _: reported.append(n))
    good = [i for i in range(7) if i not in bad]

    assert (computed.n_images, sorted(computed.failures)) == (len(good), list(bad))
    assert reported == [2, 2, 2, 1]
    for number in range(len(recipes)):
        positions, rows = computed.of(number)
        assert positions.tolist() == good
        assert rows[:, 0].tolist() == good


def test_the_next_batch_is_gathered_and_begun_while_one_runs(recipes):
    gathered, both = [], threading.Barrier(2)

    def pixels():
        for i, image in numbered(4):
            gathered.append(i)
            yield i, image

    computed = rows_of(recipes, engine(recipes, lambda _: both.wait(30), n_at_once=2), pixels(), 4)

    assert gathered == [0, 1, 2, 3]
    assert computed.of(0)[0].tolist() == [0, 1, 2, 3]  # one alone would have broken the barrier


def test_what_fails_in_the_engine_ends_the_work_and_leaves_the_rest_undone(recipes):
    seen = []

    def fails(pixels):
        seen.append(int(pixels[0, 0, 0, 0]))
        if seen == [0]:
            raise RuntimeError("no memory")
        time.sleep(0.5)

    failing = engine(recipes, fails, batch_size=4, request_size=1)
    with pytest.raises(RuntimeError, match="no memory"):
        rows_of(recipes, failing, numbered(8), 8)
    failing._threads.shutdown()

    assert seen in ([0], [0, 1])  # of two batches under way, what had begun by then


def slowly(images, seconds):
    for i, image in images:
        time.sleep(seconds)
        yield i, image


@pytest.mark.parametrize("n_at_once", [0, 1])
@pytest.mark.parametrize(
    ("image", "network", "report", "least", "most"),
    [(0.03, 0.0, 0.0, 0.8 * 10 * 0.03, 2.0), (0.0, 0.2, 0.0, 0.0, 0.15), (0.0, 0.0, 0.2, 0.0, 0.15)],
    ids=["images", "network", "whoever is told"],
)
def test_waiting_is_the_time_that_the_engine_has_nothing_to_do_for_want_of_images(
    recipes, image, network, report, least, most, n_at_once
):
    waited = []

    def on_batch(_, seconds):
        waited.append(seconds)
        time.sleep(report)

    working = engine(recipes, lambda _: time.sleep(network), n_at_once=n_at_once)
    rows_of(recipes, working, slowly(numbered(10), image), 10, on_batch)

    assert len(waited) == 5
    assert min(waited) >= 0
    assert least <= sum(waited) <= most


def test_images_that_come_while_the_engine_works_were_not_waited_for(recipes):
    waited = []
    busy = engine(recipes, lambda _: time.sleep(0.5))
    rows_of(recipes, busy, slowly(numbered(8), 0.05), 8, lambda _, seconds: waited.append(seconds))

    assert waited[0] >= 0.08
    assert sum(waited[1:]) < 0.1


class HeldUp(Disk):
    """A disk on which no row is safe before that is allowed."""

    def __init__(self):
        self.allowed = threading.Event()

    def sync(self, fd):
        assert threading.current_thread() is threading.main_thread() or self.allowed.wait(60)
        super().sync(fd)


def test_the_network_goes_on_with_the_next_segment_while_the_rows_of_one_are_committed(tmp_path, recipes):
    photos = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), np.uint8)
    dataset, store = open_dataset(photos), Store(tmp_path, disk=HeldUp())
    item_ids, _ = identify(dataset, store)
    seen = []

    def compute(pixels):
        seen.append(len(pixels))
        if len(seen) == 4:  # the first segment has two batches
            store.disk.allowed.set()

    plan = Plan(dataset, Request(backbone="timm/test_resnet"), recipes, store, item_ids)
    working = engine(recipes, compute)
    with DecodePool(recipes[0].frame, n_workers=0) as pool:
        tally = run_segments(plan, Segment(recipes, np.arange(12)).cut(4), working, pool)

    assert tally.computed == 12
    assert plan.found(recipes[0]).all()


def test_what_fails_in_a_commit_ends_the_run(tmp_path, recipes):
    class Full(Disk):
        def write(self, fd, data, offset):
            raise OSError(errno.ENOSPC, "No space left on device")

    photos = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
    dataset, store = open_dataset(photos), Store(tmp_path, disk=Full())
    item_ids = np.array([np.frombuffer(item_id(photo), np.uint8) for photo in photos])
    seen = []
    plan = Plan(dataset, Request(backbone="timm/test_resnet"), recipes, store, item_ids)
    working = engine(recipes, lambda pixels: seen.append(len(pixels)))
    with DecodePool(recipes[0].frame, n_workers=0) as pool, pytest.raises(NoSpaceError, match="make room"):
        run_segments(plan, Segment(recipes, np.arange(40)).cut(4), working, pool)

    assert sum(seen) < 40
    assert [path for path in (tmp_path / ".claims").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("devices", [["cuda:1"], ["cuda:0", "cuda:1"]], ids=len)
def test_gpus_give_the_rows_of_the_cpu_and_copy_from_the_slabs_themselves(recipes, devices, monkeypatch):
    """On GPUs whose copies happen as late as they may: whoever did not wait would see other numbers."""
    photos = np.random.default_rng(0).integers(0, 256, (23, 32, 32, 3), np.uint8)
    images, backbone = open_dataset(photos), backbones.resolve(Request(backbone="timm/test_resnet", weights="none"))[0]

    def rows(engine):
        with DecodePool(recipes[0].frame, n_workers=0) as pool:
            segments = Segment(recipes, np.arange(23)).cut(8)
            return np.concatenate([one.rows[0] for one in compute_segments(images, segments, engine, pool)])

    expected = rows(open_engine(backbone, recipes, engine="eager", device="cpu", batch_size=4))
    with pretended_gpu.pretended(3) as used:
        engine = open_engine(backbone, recipes, engine="eager", device=devices, batch_size=4)
        of_slabs, compute = [], engine._compute
        monkeypatch.setattr(
            engine, "_compute", lambda pixels: (of_slabs.append(_is_pinned(pixels)), compute(pixels))[1]
        )
        found = rows(engine)
        engine._threads.shutdown()

    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert of_slabs.count(True) >= 4  # the others are the ends of segments, padded in memory of their own
    assert pretended_gpu.runtime.pinned == {}
    assert {device for device in range(3) if used[device]} == {int(device[-1]) for device in devices}


def _is_pinned(pixels):
    address = pixels.ctypes.data
    return any(start <= address < start + n for start, n in pretended_gpu.runtime.pinned.items())
