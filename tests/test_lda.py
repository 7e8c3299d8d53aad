"""Tests of featx.heads.lda: scikit-learn's discriminant with Ledoit and Wolf's shrinkage, from any kind of rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from featx.errors import DataError, OptionError
from featx.features import Features
from featx.heads.lda import LDAHead

X, Y = load_digits(return_X_y=True)
X = X / 16


@pytest.mark.parametrize("n", [50, 1000], ids=["fewer rows than columns", "more rows than columns"])
@pytest.mark.parametrize("classes", [2, 10])
def test_scores_are_scikit_learns(n, classes):
    some = np.flatnonzero(classes > Y)[:n]
    ours = LDAHead(0.3).fit(X[some], Y[some])
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3).fit(X[some], Y[some])

    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-8)


@pytest.mark.parametrize("n", [50, 1000])
def test_auto_shrinks_as_ledoit_and_wolf_do(n):
    means = np.stack([X[:n][Y[:n] == label].mean(axis=0) for label in range(10)])

    expected = ledoit_wolf_shrinkage(X[:n] - means[Y[:n]], assume_centered=True)

    assert LDAHead().fit(X[:n], Y[:n]).shrinkage_ == pytest.approx(expected)


def test_a_table_larger_than_memory_gives_the_same():
    rows = np.float32(np.repeat(X, 8, axis=0))
    table = Features.from_arrays(rows, np.repeat(Y, 8))
    streamed = LDAHead().fit(table, memory=table.shape[0] * 64)

    np.testing.assert_allclose(streamed.coef_, LDAHead().fit(table).coef_, rtol=2e-3, atol=2e-3)


def test_large_numbers_that_all_rows_share_change_nothing():
    moved = LDAHead().fit(np.float32(X) + np.float32(100), Y).predict(np.float32(X) + np.float32(100))

    assert (moved == LDAHead().fit(X, Y).predict(X)).mean() > 0.995


def test_one_row_a_class_is_the_nearest_row():
    first = [np.flatnonzero(label == Y)[0] for label in range(10)]
    distances = ((X[:, None] - X[first]) ** 2).sum(axis=2)

    np.testing.assert_array_equal(LDAHead().fit(X[first], Y[first]).predict(X), Y[first][distances.argmin(axis=1)])


@pytest.mark.parametrize("shrinkage", [0, 1.5, "ledoit"])
def test_what_is_no_shrinkage_is_refused(shrinkage):
    with pytest.raises(OptionError, match="shrinkage must be"):
        LDAHead(shrinkage).fit(X, Y)


def test_moments_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="second moments of 64 columns"):
        LDAHead().fit(Features.from_arrays(np.float32(X), Y), memory=10_000)
