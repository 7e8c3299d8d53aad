"""Digests among millions: found again, and each once."""

import numpy as np
import pytest

from featx.store import catalog
from featx.store.catalog import DigestIndex, first_of_each


def digests(n, k, *, width=32, alike=False):
    """Draw `n` of `k` digests; `alike` ones differ in the middle only, where a search by word does not look."""
    random = np.random.default_rng(0)
    drawn = random.integers(0, 256, (k, width), dtype=np.uint8)
    if alike:
        drawn[:, :8], drawn[:, -8:] = drawn[0, :8], drawn[0, -8:]
    return drawn[random.integers(0, k, n)]


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize(("n", "k"), [(0, 1), (1, 1), (500, 1), (500, 100), (500, 10**6)])
def test_the_first_of_each_digest_is_kept(n, k, alike):
    drawn = digests(n, k, alike=alike)
    rows = np.flatnonzero(np.random.default_rng(1).random(n) < 0.7)

    _, first = np.unique(drawn[rows], axis=0, return_index=True)

    assert np.array_equal(first_of_each(drawn, rows), rows[np.sort(first)])


@pytest.mark.parametrize("alike", [False, True])
def test_digests_are_found_in_however_many_steps(monkeypatch, alike):
    known = digests(100, 10**6, alike=alike)
    order = np.random.default_rng(1).permutation(100)
    strangers = digests(300, 10**6)[200:]
    monkeypatch.setattr(catalog, "_AT_ONCE", 7)

    index = DigestIndex(known)

    assert np.array_equal(index.positions(known[order]), order)
    assert (index.positions(strangers) == -1).all()
