"""Memory of results is used again, and never while anybody holds any part of them."""

import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from toy_rows import KEY, items, publish

from featx.features import Features
from featx.store import Store
from featx.store.recycled import Recycled

FLOAT = np.dtype("float32")
SHAPE = (64, 1024)


def test_memory_is_used_again():
    recycled = Recycled()
    places = {recycled.empty(SHAPE, FLOAT).ctypes.data for _ in range(20)}

    assert len(places) == 1


def test_a_view_of_any_kind_holds_the_memory():
    recycled = Recycled()
    for hold in (lambda X: X[3:5], lambda X: X.T, lambda X: X.view("i4")[0], torch.from_numpy, memoryview):
        X = recycled.empty(SHAPE, FLOAT)
        X[:] = 7
        held = hold(X)
        del X
        gc.collect()
        for _ in range(3):
            recycled.empty(SHAPE, FLOAT)[:] = -1

        assert (np.frombuffer(np.ascontiguousarray(held), FLOAT) == 7).all()


def test_arrays_of_other_sizes_get_memory_of_their_own():
    recycled = Recycled()
    shapes = [(0, 8), (3, 8), SHAPE, (SHAPE[0], 2, 512), (65, 1024), (4096, 1024)]

    for shape in shapes * 2:
        X = recycled.empty(shape, FLOAT)
        X[:] = 1
        assert (X.shape, X.dtype, X.flags.writeable, X.flags.c_contiguous) == (shape, FLOAT, True, True)


def test_batches_that_are_kept_stay_as_they_were_read(tmp_path):
    item_ids, rows = items(600), np.random.default_rng(0).standard_normal((600, 1024), dtype=np.float32)
    store = Store(tmp_path)
    store.commit(KEY, item_ids, rows)
    path = publish(store, item_ids)
    t, picks = Features.open(path), np.random.default_rng(1).integers(0, 600, (40, 64))

    def read(some):
        return [t[pick] for pick in some]

    with ThreadPoolExecutor(4) as threads:
        kept = [batch for batches in threads.map(read, np.split(picks, 8)) for batch in batches]

    assert all(np.array_equal(batch, rows[pick]) for batch, pick in zip(kept, picks, strict=True))
