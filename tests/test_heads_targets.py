"""Heads on several labels a row, and on numbers: scikit-learn's solutions, its conventions, and helpful refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load, save
from sklearn.base import clone
from sklearn.datasets import load_diabetes, make_multilabel_classification
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier, RidgeCV
from sklearn.multiclass import OneVsRestClassifier

from featx.errors import DataError, ModelFileError, OptionError, UnknownHeadError
from featx.heads.boosted import XGBoostHead, XGBoostRegressor
from featx.heads.criteria import BinaryCrossEntropy, Distance
from featx.heads.dense import DenseHead, DenseRegressor
from featx.heads.linear import LogisticHead, SVMHead
from featx.heads.logistic_cv import LogisticHeadCV
from featx.heads.names import list_heads, make_head
from featx.heads.neighbors import CentroidHead, KNNHead, KNNRegressor
from featx.heads.ridge import RidgeHead, RidgeRegressor
from featx.heads.state import export_state, restore_state

X, LABELS = make_multilabel_classification(300, 20, n_classes=5, random_state=0)
X = X / 10
ROWS, NUMBER = load_diabetes(return_X_y=True)
NUMBERS = np.column_stack([NUMBER, NUMBER**2, 3000 - ROWS[:, 0]])

CLASSIFIERS = [
    LogisticHead(),
    LogisticHeadCV(Cs=3, cv=2),
    SVMHead(),
    RidgeHead((0.1, 1)),
    KNNHead(5),
    XGBoostHead(3),
    DenseHead(hidden=8, epochs=2),
]
REGRESSORS = [RidgeRegressor((0.1, 1)), KNNRegressor(5), XGBoostRegressor(3), DenseRegressor(hidden=8, epochs=2)]


def name_of(head):
    return type(head).__name__


@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_logistic_regression_of_several_labels_is_one_against_the_rest(class_weight):
    weights = np.random.default_rng(0).uniform(0.5, 2, len(X))
    ours = LogisticHead(0.5, tol=1e-8, class_weight=class_weight).fit(X, LABELS, weights)
    theirs = [
        LogisticRegression(C=0.5, tol=1e-8, class_weight=_balanced(label, weights) if class_weight else None).fit(
            X, label, weights
        )
        for label in LABELS.T
    ]

    np.testing.assert_allclose(ours.coef_, np.concatenate([one.coef_ for one in theirs]), atol=1e-5)
    np.testing.assert_allclose(
        ours.predict_proba(X), np.column_stack([one.predict_proba(X)[:, 1] for one in theirs]), atol=1e-6
    )


def _balanced(label, weights):
    """Of weighted rows, where scikit-learn balances their number."""
    sums = np.bincount(label, weights)
    return dict(enumerate(weights.sum() / (2 * sums)))


def test_ridge_of_several_labels_is_scikit_learns():
    ours, theirs = RidgeHead(2.0).fit(X, LABELS), RidgeClassifier(2.0).fit(X, LABELS)

    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-9)
    assert (ours.predict(X) == theirs.predict(X)).all()


def test_one_penalty_is_chosen_for_all_labels():
    head = LogisticHeadCV(Cs=(1e-3, 1, 1e3), scoring="neg_log_loss").fit(X, LABELS, X_val=X, y_val=LABELS)
    each = [
        OneVsRestClassifier(LogisticRegression(C=C, tol=1e-6)).fit(X, LABELS).predict_proba(X) for C in (1e-3, 1, 1e3)
    ]
    losses = [-np.log(np.where(LABELS == 1, q, 1 - q)).mean() for q in each]

    np.testing.assert_allclose(-head.scores_[0], losses, atol=1e-3)
    assert head.C_ == 1e3


def test_a_label_that_no_row_has_is_improbable_everywhere():
    labels = LABELS.copy()
    labels[:, 1] = 0

    for head in (LogisticHead(), LogisticHead(class_weight="balanced"), RidgeHead(), SVMHead()):
        assert head.fit(X, labels).predict_proba(X)[:, 1].max() < (0.01 if name_of(head) == "LogisticHead" else 0.3)


@pytest.mark.parametrize("head", CLASSIFIERS, ids=name_of)
def test_several_labels_after_a_file(head):
    head = clone(head).fit(X, LABELS)
    again = restored(head)

    assert again.multilabel_
    assert again.predict(X).shape == LABELS.shape
    np.testing.assert_array_equal(again.predict_proba(X), head.predict_proba(X))
    np.testing.assert_array_equal(again.predict(X), head.predict(X))


@pytest.mark.parametrize("head", CLASSIFIERS, ids=name_of)
def test_a_head_of_several_labels_can_be_fitted_on_classes_again(head):
    head = clone(head).fit(X, LABELS).fit(X, LABELS[:, 0])

    assert not head.multilabel_
    assert head.predict(X).shape == (300,)
    assert head.predict_proba(X).shape == (300, 2)


@pytest.mark.parametrize("y", [NUMBER, NUMBERS], ids=["one", "several"])
@pytest.mark.parametrize("head", REGRESSORS, ids=name_of)
def test_numbers_after_a_file(head, y):
    head = clone(head).fit(ROWS, y)

    assert head.predict(ROWS).shape == y.shape
    np.testing.assert_array_equal(restored(head).predict(ROWS), head.predict(ROWS))


def restored(head):
    meta, arrays = export_state(head)
    return restore_state(json.loads(json.dumps(meta, allow_nan=False)), load(save(arrays)))


def test_state_that_says_it_has_more_outputs_is_refused():
    meta, arrays = export_state(RidgeRegressor().fit(ROWS, NUMBER))
    with pytest.raises(ModelFileError, match="damaged or hostile"):
        restore_state(meta | {"n_outputs": 2}, arrays)
    meta, arrays = export_state(RidgeHead().fit(X, LABELS))
    with pytest.raises(ModelFileError, match="damaged or hostile"):
        restore_state(meta | {"n_labels": 4}, arrays)
    with pytest.raises(ModelFileError, match="no several labels"):
        restore_state(export_state(CentroidHead().fit(X, LABELS[:, 0]))[0] | {"n_labels": 5}, arrays)


@pytest.mark.parametrize("n", [442, 8], ids=["many rows", "few rows"])
def test_ridge_regression_is_scikit_learns(n):
    weights = np.random.default_rng(0).uniform(0.5, 2, n)
    ours, theirs = (ridge.fit(ROWS[:n], NUMBERS[:n], weights) for ridge in (RidgeRegressor(0.3), Ridge(0.3)))

    np.testing.assert_allclose(ours.predict(ROWS), theirs.predict(ROWS), rtol=1e-9)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-6)


def test_ridge_regression_chooses_its_penalty_as_scikit_learn_does():
    alphas = np.logspace(-4, 2, 7)
    ours, theirs = RidgeRegressor(alphas).fit(ROWS, NUMBER), RidgeCV(alphas).fit(ROWS, NUMBER)

    assert ours.alpha_ == theirs.alpha_
    np.testing.assert_allclose(ours.loo_scores_.max(), 1 + theirs.best_score_ / NUMBER.var())


def test_every_output_counts_alike_in_the_choice():
    """An output in another unit changes nothing: the choice is by R², which has none."""
    alphas = np.logspace(-4, 2, 7)

    plain = RidgeRegressor(alphas).fit(ROWS, NUMBERS)
    scaled = RidgeRegressor(alphas).fit(ROWS, NUMBERS * (1, 1e6, 1e-6))

    np.testing.assert_allclose(scaled.loo_scores_, plain.loo_scores_, rtol=1e-9)


def test_numbers_far_from_zero_keep_their_digits():
    years = 2000 + np.round(NUMBER) / 100
    found = RidgeRegressor(0.01).fit(ROWS.astype(np.float32), years).predict(ROWS.astype(np.float32))

    np.testing.assert_allclose(found, Ridge(0.01).fit(ROWS, years).predict(ROWS), atol=1e-3)


@pytest.mark.parametrize("weights", ["uniform", "softmax"])
def test_neighbours_vote_on_labels_and_numbers(weights):
    ours, numbers = KNNHead(7, weights=weights).fit(X, LABELS), KNNRegressor(7, weights=weights).fit(X, LABELS)
    each = [KNNHead(7, weights=weights).fit(X, label).predict_proba(X)[:, 1] for label in LABELS.T]

    np.testing.assert_allclose(ours.predict_proba(X), np.column_stack(each), atol=1e-9)
    np.testing.assert_allclose(numbers.predict(X), ours.predict_proba(X), atol=1e-9)
    np.testing.assert_array_equal(ours.predict(X), ours.predict_proba(X) > 0.5)


def test_trees_of_several_labels_or_numbers_are_those_of_each():
    whole = {"components": None, "max_depth": 2, "random_state": 0, "n_jobs": 1}
    labels, numbers = XGBoostHead(3, **whole).fit(X, LABELS), XGBoostRegressor(3, **whole).fit(ROWS, NUMBERS)

    each = [XGBoostHead(3, **whole).fit(X, label).predict_proba(X)[:, 1] for label in LABELS.T]
    np.testing.assert_allclose(labels.predict_proba(X), np.column_stack(each), atol=1e-5)
    each = [XGBoostRegressor(3, **whole).fit(ROWS, number).predict(ROWS) for number in NUMBERS.T]
    np.testing.assert_allclose(numbers.predict(ROWS), np.column_stack(each), rtol=1e-4)


def test_networks_learn_labels_and_numbers():
    labels = DenseHead(hidden=32, lr=0.02, epochs=100, random_state=0).fit(X, LABELS, X_val=X, y_val=LABELS)
    numbers = DenseRegressor(hidden=32, lr=0.02, epochs=60, random_state=0).fit(
        ROWS * 20, NUMBERS, X_val=ROWS * 20, y_val=NUMBERS
    )

    assert (labels.predict(X) == LABELS).mean() > 0.8
    assert labels.history_["val_accuracy"][-1] == pytest.approx((labels.predict(X) == LABELS).mean())
    assert numbers.score(ROWS * 20, NUMBERS) > 0.55
    assert set(numbers.history_) == {"loss", "lr", "val_loss"}
    # Of numbers in units of their standard deviation, half the mean squared error.
    assert numbers.history_["val_loss"][-1] == pytest.approx((1 - numbers.score(ROWS * 20, NUMBERS)) / 2, rel=1e-3)


@pytest.mark.parametrize(
    "head", [DenseHead(class_weight="balanced", label_smoothing=0.1), DenseRegressor(loss="huber")]
)
def test_networks_learn_the_same_in_numpy_and_by_torch(head, monkeypatch):
    y = LABELS if isinstance(head, DenseHead) else NUMBERS[:300] ** 2
    head.set_params(hidden=8, epochs=4, random_state=0)
    small = clone(head).fit(X, y).history_
    monkeypatch.setattr("featx.heads.networks.NUMPY", 0)

    np.testing.assert_allclose(clone(head).fit(X, y).history_["loss"], small["loss"], rtol=1e-4)


@pytest.mark.parametrize(
    "criterion",
    [BinaryCrossEntropy(), BinaryCrossEntropy(np.array([[0.5, 1, 2], [3, 1, 0.2]])), Distance(), Distance(0.5)],
    ids=repr,
)
def test_slopes_are_those_of_the_losses(criterion):
    rng = np.random.default_rng(0)
    scores, targets = rng.standard_normal((4, 3)), rng.integers(0, 2, (4, 3))
    slopes = criterion.slopes(scores, targets, 0.1)[1]
    for k in range(3):
        step = 1e-5 * (np.arange(3) == k)
        losses = [criterion.slopes(scores + sign * step, targets, 0.1)[0] for sign in (1, -1)]
        np.testing.assert_allclose((losses[0] - losses[1]) / 2e-5, slopes[:, k], rtol=1e-4, atol=1e-6)


def test_huber_counts_wild_numbers_less():
    wild = NUMBER.copy()
    wild[:10] *= 100
    squared, huber = (
        DenseRegressor(hidden=8, loss=loss, random_state=0).fit(ROWS * 20, wild) for loss in ("squared", "huber")
    )

    errors = [np.median(abs(head.predict(ROWS * 20) - NUMBER)) for head in (squared, huber)]
    assert errors[1] < errors[0]


def test_early_stopping_holds_rows_of_numbers_out():
    head = DenseRegressor(hidden=8, early_stopping=True, patience=2, lr=0.05, random_state=0)

    assert head.fit(ROWS * 20, NUMBER, groups=np.arange(442) // 2).n_iter_ < 50
    with pytest.raises(OptionError, match="monitor must be"):
        head.set_params(monitor="val_accuracy").fit(ROWS, NUMBER)


def test_balanced_trees_find_the_rare_class():
    y = np.where(NUMBER > 270, 1, 0)  # 30 of 442
    plain, balanced = (XGBoostHead(5, max_depth=2, class_weight=w).fit(ROWS, y) for w in (None, "balanced"))

    assert balanced.predict(ROWS)[y == 1].mean() > plain.predict(ROWS)[y == 1].mean() + 0.2


def test_what_a_head_cannot_tell_is_refused_with_what_can():
    with pytest.raises(DataError, match="CentroidHead takes one class a row, got y of shape .300, 5.*logreg"):
        CentroidHead().fit(X, LABELS)
    with pytest.raises(DataError, match="a label a column, 0 or 1; got .2."):
        LogisticHead().fit(X, LABELS * 2)
    with pytest.raises(DataError, match="y needs 5 columns, as in the fit; got 4"):
        LogisticHeadCV().fit(X, LABELS, X_val=X, y_val=LABELS[:, :4])
    with pytest.raises(OptionError, match="balanced or none for several labels a row; got"):
        LogisticHead(class_weight={0: 2}).fit(X, LABELS)
    with pytest.raises(OptionError, match="Leave out class_weight, or fit --head logreg"):
        RidgeHead(class_weight="balanced").fit(X, LABELS)
    with pytest.raises(OptionError, match="XGBoost takes a weight a row"):
        XGBoostHead(class_weight="balanced").fit(X, LABELS)
    with pytest.raises(ValueError, match="NaN"):
        RidgeRegressor().fit(ROWS, np.where(NUMBER > 300, np.nan, NUMBER))


def test_a_name_and_a_task_make_a_head():
    tasks = {head.name: head.tasks for head in list_heads()}

    assert tasks["ridge"] == ("classify", "multilabel", "regress")
    assert tasks["centroid"] == ("classify",)
    assert type(make_head("ridge", task="regress", alpha="1,10")) is RidgeRegressor
    assert type(make_head("logreg", task="multilabel")) is LogisticHead
    with pytest.raises(UnknownHeadError, match="Head 'centroid' does not do --task regress. Heads that do: mlp"):
        make_head("centroid", task="regress")
