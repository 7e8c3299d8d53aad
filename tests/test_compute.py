"""Images through an engine: two batches under way, so that neither waits for the other's end; and who waited for whom."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from featx import backbones
from featx.engines import Engine
from featx.errors import ImageError
from featx.extraction.segments import compute_rows
from featx.recipe import Request


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


def rows_of(recipes, engine, pixels, n, on_batch=None):
    return compute_rows(iter(pixels), n, engine, recipes, np.zeros((n, 32), np.uint8), on_batch)


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
