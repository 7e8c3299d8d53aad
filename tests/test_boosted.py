"""Tests of featx.heads.boosted: XGBoost's own trees, the projection in front of them, and early stopping."""

from __future__ import annotations

import numpy as np
import pytest
import xgboost
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from featx.errors import OptionError
from featx.features import Features
from featx.heads.boosted import XGBoostHead

X, Y = load_digits(return_X_y=True)
X = X.astype(np.float32)
TRAIN, TEST = slice(0, 1200), slice(1200, None)


@pytest.mark.parametrize("n_classes", [2, 10])
def test_without_a_projection_trees_are_xgboosts(n_classes):
    rows = n_classes > Y
    settings = {"n_estimators": 5, "max_bin": 64, "max_depth": 3, "learning_rate": 0.2, "subsample": 0.5}
    theirs = xgboost.XGBClassifier(**settings, tree_method="hist", random_state=209652396).fit(X[rows], Y[rows])
    # random_state=0 draws this seed for the booster.
    assert np.random.RandomState(0).randint(2**31 - 1) == 209652396

    ours = XGBoostHead(**settings, components=None, random_state=0).fit(X[rows], Y[rows])

    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-5)


def test_projection_is_whitened_principal_components():
    weights = np.ones(len(X))
    head = XGBoostHead(n_estimators=1, components=10, random_state=0).fit(X, Y, weights)

    projected = (X - head.mean_) @ head.projection_
    expected = PCA(10, whiten=True, svd_solver="full").fit_transform(X)

    np.testing.assert_allclose(projected.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(projected.T, bias=True), np.eye(10), atol=1e-3)
    np.testing.assert_allclose(abs((projected * expected).mean(0)), 1, atol=1e-2)


def test_a_row_predicts_the_same_alone_and_among_others():
    """Thresholds lie on training rows, so the last bit of a product would decide on which side."""
    head = XGBoostHead(n_estimators=3, components=20, random_state=0).fit(X, Y)

    alone = np.concatenate([head.predict_proba(X[[i]]) for i in range(300)])

    np.testing.assert_array_equal(alone, head.predict_proba(X)[:300])


def test_early_stopping_predicts_with_the_best_round():
    head = XGBoostHead(n_estimators=200, early_stopping_rounds=5, learning_rate=0.9, random_state=0)
    head.fit(X[TRAIN], Y[TRAIN], X_val=X[TEST], y_val=Y[TEST])

    losses = head.history_["val_loss"]
    assert len(losses) < 200
    assert head.best_iteration_ == np.argmin(losses)
    rounds = (0, head.best_iteration_ + 1)
    expected = head.booster_.inplace_predict(X[TEST], iteration_range=rounds)
    np.testing.assert_allclose(head.predict_proba(X[TEST]), expected)


def test_blocks_of_a_table_give_the_trees_of_the_whole():
    table = Features.from_arrays(X, Y)
    whole = XGBoostHead(n_estimators=3, components=8, random_state=0).fit(X, Y)
    streamed = XGBoostHead(n_estimators=3, components=8, random_state=0).fit(table, memory=X.nbytes // 4)

    # Bins come from a sketch, which depends a little on how rows arrive.
    assert abs(streamed.predict_proba(X) - whole.predict_proba(X)).mean() < 0.01
    assert streamed.score(table.X, Y) > 0.85


def test_settings_are_checked_when_the_fit_begins():
    with pytest.raises(OptionError, match="n_estimators must be a whole number, at least 1; got 0"):
        XGBoostHead(n_estimators=0).fit(X, Y)
    with pytest.raises(OptionError, match="device must be auto, cpu, cuda, cuda:N or mps; got 'gpu0'"):
        XGBoostHead(device="gpu0").fit(X, Y)
