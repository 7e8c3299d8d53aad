"""Tests of featx.heads.neighbors and centroid: exact neighbours, DINO's vote, class means."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from featx.heads.neighbors import CentroidHead, KNNHead, unit_rows

X, Y = load_digits(return_X_y=True)
TRAIN, TEST = slice(0, 1200), slice(1200, None)


def test_neighbours_are_those_of_brute_force():
    ours = KNNHead(k=7).fit(X[TRAIN], Y[TRAIN])
    theirs = KNeighborsClassifier(7, metric="cosine", algorithm="brute").fit(X[TRAIN], Y[TRAIN])

    similarities, indices = ours.kneighbors(X[TEST])
    distances, expected = theirs.kneighbors(X[TEST])

    np.testing.assert_allclose(similarities, 1 - distances, atol=1e-12)
    assert (indices == expected).mean() > 0.999  # ties stand in any order


def test_neighbours_do_not_depend_on_how_rows_come_in_tiles(monkeypatch):
    rounded = X.round(-1)  # many rows have the same similarity
    expected = KNNHead(k=7).fit(rounded[TRAIN], Y[TRAIN]).kneighbors(rounded[TEST])
    monkeypatch.setattr("featx.heads.neighbors.TILE", 20_000)
    similarities, indices = KNNHead(k=7).fit(rounded[TRAIN], Y[TRAIN]).kneighbors(rounded[TEST])

    np.testing.assert_allclose(similarities, expected[0], atol=1e-12)
    units = rounded / np.linalg.norm(rounded, axis=1, keepdims=True)
    np.testing.assert_allclose((units[TRAIN][indices] * units[TEST][:, None]).sum(2), similarities, atol=1e-12)
    assert all(len(set(row)) == 7 for row in indices.tolist())


@pytest.mark.parametrize("weights", ["softmax", "uniform"])
def test_a_training_row_left_out_is_a_fit_without_it(weights):
    twins = np.vstack([X[:100], np.repeat(X[:1], 9, axis=0)])  # ten rows of one content
    labels = np.r_[Y[:100], np.full(9, 3)]
    rows = np.array([0, 7, 50, 99, 105])

    found = KNNHead(k=5, weights=weights).fit(twins, labels).predict_left_out(twins[rows], rows)

    alone = [
        KNNHead(k=5, weights=weights).fit(np.delete(twins, i, 0), np.delete(labels, i)).predict(twins[[i]])[0]
        for i in rows
    ]
    assert found.tolist() == alone


def test_uniform_votes_are_scikit_learns():
    ours = KNNHead(k=7, weights="uniform").fit(X[TRAIN], Y[TRAIN])
    theirs = KNeighborsClassifier(7, metric="cosine", algorithm="brute").fit(X[TRAIN], Y[TRAIN])

    np.testing.assert_allclose(ours.predict_proba(X[TEST]), theirs.predict_proba(X[TEST]))


def test_dino_votes_by_the_exponential_of_similarity():
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    similarities = unit[TEST] @ unit[TRAIN].T
    top = np.argsort(-similarities, axis=1)[:, :20]
    votes = np.exp(np.take_along_axis(similarities, top, 1) / 0.07)
    expected = np.stack([(votes * (Y[TRAIN][top] == c)).sum(1) for c in range(10)], axis=1)

    found = KNNHead(k=20).fit(X[TRAIN], Y[TRAIN]).predict_proba(X[TEST])

    np.testing.assert_allclose(found, expected / expected.sum(1, keepdims=True), atol=1e-9)


def test_more_neighbours_than_rows_are_all_rows():
    head = KNNHead(k=50, weights="uniform").fit(X[:10], Y[:10])

    np.testing.assert_allclose(head.predict_proba(X[:3]), np.full((3, 10), 0.1))


def test_nearest_mean_is_scikit_learns():
    noisy = X + np.random.default_rng(0).normal(size=X.shape)  # it warns of features that never vary
    ours = CentroidHead(metric="euclidean").fit(noisy[TRAIN], Y[TRAIN])
    theirs = NearestCentroid().fit(noisy[TRAIN], Y[TRAIN])

    np.testing.assert_allclose(ours.centroids_, theirs.centroids_)
    assert (ours.predict(noisy[TEST]) == theirs.predict(noisy[TEST])).all()


def test_cosine_means_ignore_the_length_of_rows():
    scale = np.random.default_rng(0).uniform(0.1, 10, (len(X), 1))
    scaled = CentroidHead().fit(X[TRAIN] * scale[TRAIN], Y[TRAIN])

    np.testing.assert_allclose(scaled.centroids_, CentroidHead().fit(X[TRAIN], Y[TRAIN]).centroids_)


def test_weights_count_rows():
    weights = np.random.default_rng(0).integers(1, 4, 300)
    weighted = CentroidHead().fit(X[:300], Y[:300], weights)
    repeated = CentroidHead().fit(np.repeat(X[:300], weights, axis=0), np.repeat(Y[:300], weights))

    np.testing.assert_allclose(weighted.centroids_, repeated.centroids_)


@pytest.mark.parametrize("head", [CentroidHead(), CentroidHead(metric="euclidean"), KNNHead(k=3)])
def test_probabilities_rank_as_predictions(head):
    head.fit(X[TRAIN], Y[TRAIN])
    probabilities = head.predict_proba(X[TEST])

    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert (head.classes_[probabilities.argmax(1)] == head.predict(X[TEST])).all()


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


@pytest.mark.parametrize("kind", ["normal", "rectified", "twins", "constant", "outlier", "sparse"])
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
