"""Tests of featx.heads.ridge: scikit-learn's solutions, and leave-one-out by leaving one out."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier, RidgeClassifierCV

from featx.errors import OptionError
from featx.heads.ridge import RidgeHead, RidgeRegressor

X, Y = load_digits(return_X_y=True)


@pytest.mark.parametrize("n_classes", [2, 10])
@pytest.mark.parametrize("alpha", [0.1, 100])
def test_solution_is_scikit_learns(alpha, n_classes):
    rows = n_classes > Y
    weights = np.random.default_rng(0).uniform(0.1, 2, rows.sum())
    ours = RidgeHead(alpha).fit(X[rows], Y[rows], weights)
    theirs = RidgeClassifier(alpha).fit(X[rows], Y[rows], weights)

    np.testing.assert_allclose(ours.coef_, np.atleast_2d(theirs.coef_), atol=1e-9)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-9)
    assert (ours.predict(X) == theirs.predict(X)).all()


def test_more_features_than_rows():
    rng = np.random.default_rng(0)
    wide, y = rng.normal(size=(40, 300)), np.arange(40) % 3

    np.testing.assert_allclose(RidgeHead(2.0).fit(wide, y).coef_, RidgeClassifier(2.0).fit(wide, y).coef_, atol=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("d", [5, 80])
def test_leave_one_out_is_exact(d, weighted):
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(60, d)), np.arange(60) % 3
    X[:, :3] += 1.5 * np.eye(3)[y]
    weights = rng.uniform(0.5, 2, 60) if weighted else np.ones(60)
    alphas = (0.1, 10.0)

    scores = RidgeHead(alphas).fit(X, y, weights).loo_scores_

    expected = []
    for alpha in alphas:
        without = [RidgeHead(alpha).fit(np.delete(X, i, 0), np.delete(y, i), np.delete(weights, i)) for i in range(60)]
        right = [head.predict(X[[i]])[0] == y[i] for i, head in enumerate(without)]
        expected.append(weights @ right / weights.sum())
    np.testing.assert_allclose(scores, expected)


def test_squared_error_chooses_as_scikit_learn_does():
    alphas = np.logspace(-2, 6, 9)
    ours = RidgeHead(alphas, scoring="mse").fit(X, Y)
    theirs = RidgeClassifierCV(alphas, store_cv_results=True).fit(X, Y)

    assert ours.alpha_ == theirs.alpha_
    np.testing.assert_allclose(-ours.loo_scores_, theirs.cv_results_.mean(axis=(0, 1)), rtol=1e-6)


def test_of_equally_good_penalties_the_larger_is_taken():
    X, y = np.array([[-2.0], [-1.0], [1.0], [2.0]]), [0, 0, 1, 1]

    assert RidgeHead((1e-3, 1e-2, 1e-1)).fit(X, y).alpha_ == 1e-1


def test_negative_penalties_are_refused():
    with pytest.raises(OptionError, match="alpha must be a number, at least 0; got -1"):
        RidgeHead((1, -1)).fit(X, Y)


def test_one_row_a_class_is_no_cause_for_a_warning():
    few = np.random.default_rng(0).normal(size=(30, 8))

    assert RidgeHead(0.1).fit(few, np.arange(30)).score(few, np.arange(30)) > 0.2


def test_rows_that_are_all_alike_tell_the_frequent_class():
    assert (RidgeHead().fit(np.ones((3, 8)), [0, 1, 1]).predict(np.zeros((2, 8))) == 1).all()


def test_groups_are_left_out_whole_to_choose_alpha():
    rng = np.random.default_rng(0)
    groups, X = np.repeat(np.arange(12), [1, 2, 3, 9, 4, 1, 1, 5, 6, 2, 3, 3]), rng.normal(size=(40, 6))
    y = X @ rng.normal(size=(6, 2)) + rng.normal(size=(12, 2))[groups]
    weights, alphas = rng.uniform(0.5, 2, 40), (0.1, 1.0, 100.0)
    head = RidgeRegressor(alpha=alphas).fit(X, y, weights, groups=groups)
    spread = np.average((y - np.average(y, axis=0, weights=weights)) ** 2, axis=0, weights=weights)
    for alpha, score in zip(alphas, head.loo_scores_, strict=True):
        found = np.empty_like(y)
        for group in range(12):
            held = groups == group
            found[held] = RidgeRegressor(alpha=alpha).fit(X[~held], y[~held], weights[~held]).predict(X[held])
        wanted = 1 - (np.average((y - found) ** 2, axis=0, weights=weights) / spread).mean()
        assert score == pytest.approx(wanted, abs=1e-4)
