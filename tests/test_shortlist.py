"""Tests of featx.heads.shortlist: no row that is above a limit is ever left out, whatever the rows are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featx.heads.centroid import unit_rows
from featx.heads.neighbors import KNNHead
from featx.heads.shortlist import Levels, _spread, eight_bits_are_exact, pairs_above

pytestmark = pytest.mark.skipif(not eight_bits_are_exact(), reason="this processor has no exact eight-bit products")


def rows_of(kind: str, n: int, d: int, rng: np.random.Generator) -> np.ndarray:
    X = rng.standard_normal((n, d)).astype(np.float32)
    if kind == "rectified":
        X = np.maximum(X, 0) + 0.1
    elif kind == "twins":
        X = X[rng.integers(0, 3, n)]
    elif kind == "constant":
        X[:] = 1
    elif kind == "outlier":
        X = 1 + 1e-3 * X
        X[0] = -X[0]
    elif kind == "sparse":
        X *= rng.random(X.shape) < 1 / d  # most rows are zero
    return X


KINDS = ("normal", "rectified", "twins", "constant", "outlier", "sparse")


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    d=st.sampled_from([64, 65, 97, 320]),
    share=st.floats(0.98, 1),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 1000),
)
def test_every_pair_above_its_limit_is_found(kind, d, share, dtype, seed):
    rng = np.random.default_rng(seed)
    units, queries = (unit_rows(rows_of(kind, n, d, rng)).astype(dtype) for n in (300, 40))
    exact = queries.astype(np.float64) @ units.astype(np.float64).T
    limits = np.quantile(exact, share, axis=1).astype(dtype)

    found = pairs_above(limits, queries, units, Levels.of_queries(queries), Levels.of_block(units))

    if found is None:  # nearly all pairs are candidates, and products of all cost less
        return
    rows, columns, similarities = found
    np.testing.assert_allclose(similarities, exact[rows, columns], atol=1e-6)
    missing = exact > limits[:, None] + 1e-6
    missing[rows, columns] = False
    assert not missing.any()
    assert (similarities > limits[rows]).all()


def test_few_pairs_are_left_to_look_at():
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((100, 512), np.float32)
    units, queries = (
        unit_rows(np.tile(centres, (n, 1)) + rng.standard_normal((100 * n, 512), np.float32)) for n in (20, 1)
    )
    limits = np.sort(queries @ units.T, axis=1)[:, -20:-18].mean(1)  # between the 20th and the 19th

    rows, columns, similarities = pairs_above(
        limits, queries, units, Levels.of_queries(queries), Levels.of_block(units)
    )

    assert np.bincount(rows).tolist() == [19] * 100


@pytest.mark.parametrize("loser", ["rows", "queries"])
def test_pairs_that_lie_in_what_eight_bits_lose_are_found(monkeypatch, loser):
    monkeypatch.setattr("featx.heads.shortlist.WORTHWHILE", 0)
    d, rng = 128, np.random.default_rng(0)
    turn = _spread(np.eye(d, dtype=np.float32)).numpy()  # spread(x) = x @ turn
    spiked = 0.01 * rng.standard_normal((50, d), np.float32)
    spiked[:, 0] = 1  # one large value makes a coarse step for all
    coarse = unit_rows(spiked) @ turn.T
    coarse = np.vstack([coarse, -coarse])
    levels = Levels.of_block(coarse) if loser == "rows" else Levels.of_queries(coarse)
    lost = unit_rows(coarse @ turn - levels.codes.numpy() * levels.step.numpy()) @ turn.T

    queries, units = (lost, coarse) if loser == "rows" else (coarse, lost)
    limits = (queries * units).sum(1) - 1e-5
    rows, columns, _ = pairs_above(limits, queries, units, Levels.of_queries(queries), Levels.of_block(units))

    assert set(zip(range(100), range(100), strict=True)) <= set(zip(rows.tolist(), columns.tolist(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_of_many_queries_are_those_of_a_few_at_a_time(kind):
    rng = np.random.default_rng(0)
    X, queries = (rows_of(kind, n, 64, rng) for n in (5000, 2100))
    head = KNNHead(k=5).fit(X, np.arange(5000) % 3)

    similarities, indices = head.kneighbors(queries)

    expected = np.concatenate([head.kneighbors(part)[0] for part in np.array_split(queries, 3)])
    np.testing.assert_allclose(similarities, expected, atol=2e-6)
    exact = (unit_rows(X)[indices] * unit_rows(queries)[:, None]).sum(2)
    np.testing.assert_allclose(similarities, exact, atol=2e-6)
    assert all(len(set(row)) == 5 for row in indices.tolist())
