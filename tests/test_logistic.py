"""Tests of featx.heads.logistic, logistic_cv and svm: the optimum of scikit-learn's objective, by every way in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.svm import LinearSVC

from featx.errors import DataError, OptionError
from featx.features import Features
from featx.heads.inputs import read_training
from featx.heads.linear import LogisticHead, SVMHead
from featx.heads.logistic_cv import LogisticHeadCV
from featx.heads.losses import Multinomial
from featx.heads.solver import Problem
from featx.model import fit

X, Y = load_digits(return_X_y=True)
X = X / 16


def objective(head, C, X, y, weights=None):
    """C Σ s loss + ½ ‖coef‖² in float64, and the gradient's largest entry over C Σ s."""
    weights = np.ones(len(y)) if weights is None else weights
    scores = X.astype(np.float64) @ head.coef_.T + head.intercept_
    onehot = (y[:, None] == head.classes_).astype(float)
    if scores.shape[1] == 1:
        scores = np.hstack([np.zeros_like(scores), scores])
    losses = logsumexp(scores, axis=1) - (scores * onehot).sum(1)
    residual = (np.exp(scores - logsumexp(scores, axis=1, keepdims=True)) - onehot) * weights[:, None]
    residual = residual[:, -len(head.coef_) :]
    by_coef = (C * residual.T @ X + head.coef_) / (C * weights.sum())
    by_intercept = residual.sum(0) / weights.sum()
    value = C * weights @ losses + (head.coef_.astype(np.float64) ** 2).sum() / 2
    return value, max(abs(by_coef).max(), abs(by_intercept).max())


@pytest.mark.parametrize("C", [1e-3, 0.1, 10])
@pytest.mark.parametrize("n_classes", [2, 10])
def test_optimum_is_at_or_below_scikit_learns(C, n_classes):
    rows = n_classes > Y
    ours = LogisticHead(C=C).fit(X[rows], Y[rows])
    theirs = LogisticRegression(C=C, max_iter=5000).fit(X[rows], Y[rows])

    value, gradient = objective(ours, C, X[rows], Y[rows])

    assert value <= objective(theirs, C, X[rows], Y[rows])[0]
    assert ours.objective_ == pytest.approx(value, rel=1e-6)
    assert ours.gradient_norm_ == pytest.approx(gradient, rel=1e-2, abs=1e-9)
    assert gradient <= 1e-5


def test_coefficients_agree_with_scikit_learns_at_a_tight_tolerance():
    weights = np.random.default_rng(0).uniform(0, 2, len(Y))
    ours = LogisticHead(C=0.1, tol=1e-9, class_weight="balanced").fit(X, Y, weights)
    theirs = LogisticRegression(C=0.1, tol=1e-9, max_iter=5000, class_weight="balanced").fit(X, Y, weights)

    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-5)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-5)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-5)


def test_more_features_than_rows():
    rng = np.random.default_rng(0)
    wide, y = rng.normal(size=(60, 500)), np.repeat([0, 1, 2], 20)
    ours = LogisticHead(C=0.01, tol=1e-9).fit(wide, y)
    theirs = LogisticRegression(C=0.01, tol=1e-9, max_iter=5000).fit(wide, y)

    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-6)


def test_features_far_from_zero_do_not_spoil_the_solution():
    shifted = X + 100
    ours = LogisticHead(C=0.1, tol=1e-8).fit(shifted, Y)

    np.testing.assert_allclose(ours.coef_, LogisticHead(C=0.1, tol=1e-8).fit(X, Y).coef_, atol=1e-4)


def test_float32_rows_give_float32_coefficients():
    large = np.tile(X, (10, 1)).astype(np.float32)
    ours = LogisticHead(C=0.01).fit(large, np.tile(Y, 10))

    value, gradient = objective(ours, 0.01, large, np.tile(Y, 10))

    assert ours.coef_.dtype == np.float32
    assert ours.objective_ == pytest.approx(value, rel=1e-5)
    assert gradient <= 2e-5


def test_few_iterations_suffice():
    assert LogisticHead(C=1).fit(X, Y).n_iter_ < LogisticRegression(C=1, max_iter=5000).fit(X, Y).n_iter_[0] / 2


def test_iterations_that_do_not_suffice_are_said():
    with pytest.warns(ConvergenceWarning, match="after 2 iterations, above tol=1e-05. Raise max_iter"):
        LogisticHead(max_iter=2).fit(X, Y)


def test_no_penalty():
    noisy = Y.copy()
    noisy[::3] = np.roll(noisy, 1)[::3]
    head = LogisticHead(C=np.inf, tol=1e-4).fit(X, noisy)

    assert head.objective_ < LogisticHead(C=1e3, tol=1e-4).fit(X, noisy).objective_
    assert np.isfinite(head.coef_).all()


def test_text_labels():
    names = np.array(["zero", "one"])
    rows = Y < 2
    head = LogisticHead().fit(X[rows], names[Y[rows]])

    assert head.classes_.tolist() == ["one", "zero"]
    assert head.score(X[rows], names[Y[rows]]) == 1


@pytest.mark.parametrize(("setting", "value"), [("C", 0), ("C", "much"), ("tol", -1), ("max_iter", 1.5)])
def test_settings_are_checked_when_the_fit_begins(setting, value):
    with pytest.raises(OptionError, match=f"{setting} must be a"):
        LogisticHead(**{setting: value}).fit(X, Y)


def test_a_device_that_is_not_there_is_an_error_not_the_cpu():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(OptionError, match="device cuda is not there: torch sees 0 CUDA devices"):
        LogisticHead(device="cuda").fit(X, Y)


def test_unlabelled_rows_of_a_table_are_left_out():
    labels = np.where(np.arange(len(Y)) % 2, Y, -1)
    table = Features.from_arrays(X, labels)

    ours = LogisticHead(C=0.1).fit(table)

    np.testing.assert_allclose(
        ours.coef_, LogisticHead(C=0.1).fit(X[1::2].astype(np.float32), Y[1::2]).coef_, atol=1e-4
    )


def test_measuring_the_curvature_never_costs_more_than_the_steps_it_serves(monkeypatch):
    """An eigendecomposition of the features costs as much as dozens of steps on a small table."""
    spent = {"evaluate": 0.0, "curvature": 0.0}

    def counted(name, cost):
        method = getattr(Problem, name)

        def count(self, *given):
            spent[name] += cost(self)
            return method(self, *given)

        monkeypatch.setattr(Problem, name, count)

    counted("evaluate", lambda problem: 1)
    counted("curvature", lambda problem: problem.curvature_cost)
    wide = np.hstack([X, X**2, X**3]) @ np.random.default_rng(0).normal(size=(192, 500))

    LogisticHeadCV(8, cv=3).fit(wide.astype(np.float32), Y)

    assert 0 < spent["curvature"] < spent["evaluate"]


@pytest.mark.parametrize("head", [LogisticHead(C=0.1), SVMHead(), LogisticHeadCV(Cs=3, cv=3)], ids=repr)
@pytest.mark.parametrize("n_classes", [2, 10])
def test_numpy_and_torch_find_the_same(head, n_classes, monkeypatch):
    X_, y = X.astype(np.float32)[n_classes > Y], Y[n_classes > Y]
    monkeypatch.setattr("featx.heads.solver.SMALL", 0)
    by_numpy = clone(head).fit(X_, y)
    monkeypatch.setattr("featx.heads.solver.NUMPY", 0)
    by_torch = clone(head).fit(X_, y)

    np.testing.assert_allclose(by_torch.coef_, by_numpy.coef_, atol=2e-2 * abs(by_numpy.coef_).max())
    np.testing.assert_allclose(by_torch.objective_, by_numpy.objective_, rtol=1e-4)


def test_products_of_low_precision_that_the_process_allows_are_not_used(monkeypatch):
    monkeypatch.setattr("featx.heads.solver.NUMPY", 0)
    monkeypatch.setattr("featx.heads.solver.SMALL", 0)
    expected = LogisticHead(C=0.1).fit(X.astype(np.float32), Y)
    torch.set_float32_matmul_precision("medium")
    try:
        found = LogisticHead(C=0.1).fit(X.astype(np.float32), Y)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")

    assert found.n_iter_ == expected.n_iter_
    np.testing.assert_allclose(found.coef_, expected.coef_, atol=1e-5)


def test_scores_of_many_classes_are_computed_a_part_at_a_time(monkeypatch):
    whole = LogisticHead(C=0.1).fit(X, Y)
    monkeypatch.setattr("featx.heads.solver.SCORES", 0)
    found = LogisticHead(C=0.1).fit(X, Y)

    assert (
        len(list(Problem(read_training(found, X, Y), np.full((1, len(Y)), 1 / len(Y)), Multinomial(), "cpu").blocks()))
        == 2
    )
    np.testing.assert_allclose(found.coef_, whole.coef_, atol=1e-8)


def test_path_scores_are_those_of_fits_one_by_one():
    Cs = (1e-3, 1e-1, 1)
    path = LogisticHeadCV(Cs=Cs, cv=3, tol=1e-6).fit(X, Y)

    folds = StratifiedKFold(3)
    one_by_one = [cross_val_score(LogisticHead(C=C, tol=1e-6), X, Y, cv=folds) for C in Cs]
    np.testing.assert_allclose(path.scores_.T, one_by_one, atol=2e-3)
    assert Cs[np.argmax(path.scores_.mean(0))] == path.C_
    np.testing.assert_allclose(path.coef_, LogisticHead(C=path.C_, tol=1e-6).fit(X, Y).coef_, atol=1e-3)


def test_log_likelihood_scores():
    path = LogisticHeadCV(Cs=(0.1,), cv=3, tol=1e-6, scoring="neg_log_loss").fit(X, Y)

    expected = cross_val_score(LogisticHead(C=0.1, tol=1e-6), X, Y, cv=StratifiedKFold(3), scoring="neg_log_loss")
    np.testing.assert_allclose(path.scores_[:, 0], expected, rtol=1e-3)


def test_one_standard_error_prefers_the_simpler_model():
    best = LogisticHeadCV(Cs=10, cv=5).fit(X, Y)
    simpler = LogisticHeadCV(Cs=10, cv=5, one_standard_error=True).fit(X, Y)

    at = list(best.Cs_).index
    error = best.scores_[:, at(best.C_)].std(ddof=1) / np.sqrt(5)
    assert simpler.C_ < best.C_
    assert best.scores_.mean(0)[at(simpler.C_)] >= best.scores_.mean(0).max() - error


def test_validation_rows_choose_and_are_not_fitted_on():
    train, val = np.arange(0, 1000), np.arange(1000, len(Y))
    path = LogisticHeadCV(Cs=(1e-4, 1e-1), tol=1e-6).fit(X[train], Y[train], X_val=X[val], y_val=Y[val])

    alone = LogisticHead(C=path.C_, tol=1e-6).fit(X[train], Y[train])
    assert path.scores_.shape == (1, 2)
    assert path.scores_[0].max() == alone.score(X[val], Y[val])
    np.testing.assert_allclose(path.coef_, alone.coef_, atol=1e-2)


def test_groups_do_not_straddle_folds():
    rng = np.random.default_rng(0)
    twins, noise = rng.normal(size=(60, 100)).repeat(2, axis=0), rng.integers(0, 2, 60).repeat(2)

    head = LogisticHeadCV(Cs=(1.0,), cv=3, random_state=0)
    leaking = head.fit(twins, noise).scores_.mean()
    honest = head.fit(twins, noise, groups=np.arange(120) // 2).scores_.mean()

    assert honest < 0.65 < 0.75 < leaking


def test_labels_unknown_to_training_are_refused_in_validation():
    with pytest.raises(DataError, match="Labels \\[9\\] are not among the classes"):
        LogisticHeadCV(Cs=2).fit(X[Y < 9], Y[Y < 9], X_val=X, y_val=Y)


def test_support_vectors_agree_with_liblinear():
    centred = X - X.mean(0)
    ours = SVMHead(C=0.1, tol=1e-9).fit(centred, Y)
    # A large intercept_scaling makes liblinear's penalty on the intercept vanish.
    theirs = LinearSVC(C=0.1, tol=1e-8, max_iter=100_000, intercept_scaling=100, dual=False).fit(centred, Y)

    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-3)
    np.testing.assert_allclose(ours.predict_proba(X).sum(axis=1), 1)


def test_features_that_are_always_zero_are_no_obstacle():
    """In float32, as tables of more than a million values are solved, most of their eigenvalues are equal."""
    rng = np.random.default_rng(1)
    y = np.arange(1617) % 3
    live = (rng.standard_normal((1617, 20)) + 0.3 * y[:, None]) @ rng.standard_normal((20, 302))
    X = np.zeros((1617, 1280), np.float32)
    X[:, rng.choice(1280, 302, replace=False)] = live

    head = LogisticHead(C=1e-3).fit(X, y)

    reference = LogisticRegression(C=1e-3, max_iter=2000).fit(live, y)
    assert head.gradient_norm_ <= head.tol
    assert np.mean(head.predict(X) == reference.predict(live)) > 0.999


def test_features_that_the_sample_of_the_curvature_lacks_do_not_end_the_fit():
    """Pixels of digits that almost nobody uses: the first step is ten thousand times too long."""
    model = fit(Features.from_arrays(*load_digits(return_X_y=True)), "logreg", settings={"C": 300})

    assert model.report["val"]["accuracy"] > 0.9
