"""Tests of featx.heads.dense and conv: training, validation, seeds, and the same scores with and without torch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss

from featx.errors import DataError, OptionError
from featx.features import Features
from featx.heads.dense import ConvHead, DenseHead
from featx.heads.inputs import Samples
from featx.model import fit

X, Y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)
TRAIN, TEST = slice(0, 1200), slice(1200, None)
MAPS = X.reshape(-1, 1, 8, 8)


def test_learns_digits():
    head = DenseHead(hidden=64, random_state=0).fit(X[TRAIN], Y[TRAIN])

    assert head.score(X[TRAIN], Y[TRAIN]) > 0.99
    assert head.score(X[TEST], Y[TEST]) > 0.9


@pytest.mark.parametrize("activation", ["relu", "leaky.1", "gelu", "silu", "elu", "tanh", "sigmoid"])
def test_prediction_without_torch_is_torchs(activation):
    head = DenseHead(layers=f"32 bn {activation} drop.2 16 {activation} bn", epochs=2, random_state=0).fit(X, Y)

    network = head.network_module().eval()
    with torch.inference_mode():
        expected = network(torch.from_numpy(X)).softmax(1).numpy()

    np.testing.assert_allclose(head.predict_proba(X), expected, atol=1e-5)


def test_prediction_imports_no_torch():
    code = (
        "import sys, numpy as np, pickle; head = pickle.load(sys.stdin.buffer);"
        "head.predict(np.zeros((2, 64), np.float32)); assert 'torch' not in sys.modules"
    )
    import pickle

    head = DenseHead(hidden=8, epochs=1, random_state=0).fit(X, Y)

    subprocess.run([sys.executable, "-c", code], input=pickle.dumps(head), check=True)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"hidden": (24, 16), "activation": "leaky.2", "init": "he", "eps": 1e-7, "schedule": "cosine", "min_lr": 1e-4},
        {"optimizer": "adam", "label_smoothing": 0.2, "class_weight": {0: 3.0}, "schedule": "plateau", "factor": 0.5},
        {"early_stopping": True, "patience": 1, "lr": 0.02, "monitor": "val_accuracy", "batch_size": 99},
    ],
)
def test_numpy_trains_the_network_that_torch_trains(settings, monkeypatch):
    head = DenseHead(**{"hidden": 32, "epochs": 4, "random_state": 1} | settings)
    rows = {"X": X[TRAIN], "y": Y[TRAIN], "X_val": X[TEST], "y_val": Y[TEST]}
    in_numpy = clone(head).fit(**rows)
    monkeypatch.setattr("featx.heads.networks.NUMPY", 0)
    by_torch = clone(head).fit(**rows)

    assert in_numpy.n_iter_ == by_torch.n_iter_
    for name, array in by_torch.state_.items():
        np.testing.assert_allclose(in_numpy.state_[name], array, atol=2e-4, err_msg=name)
    for name, values in by_torch.history_.items():
        np.testing.assert_allclose(in_numpy.history_[name], values, rtol=1e-3, atol=1e-3, err_msg=name)


def test_a_seed_gives_the_same_network_and_leaves_torchs_own_seed_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    head = DenseHead(hidden=16, dropout=0.5, epochs=2, random_state=3)
    torch.manual_seed(5)
    first, second = clone(head).fit(X, Y), clone(head).fit(X, Y)

    assert torch.equal(torch.rand(3), expected)
    for name, array in first.state_.items():
        np.testing.assert_array_equal(array, second.state_[name])
    assert not np.array_equal(
        first.state_["0.weight"], clone(head).set_params(random_state=4).fit(X, Y).state_["0.weight"]
    )


def test_history_has_both_splits_and_ends_with_the_validation_scores_of_the_fitted_head():
    head = DenseHead(hidden=16, epochs=3, random_state=0)
    head.fit(X[TRAIN], Y[TRAIN], X_val=X[TEST], y_val=Y[TEST])

    assert set(head.history_) == {"loss", "accuracy", "val_loss", "val_accuracy", "lr"}
    assert {len(column) for column in head.history_.values()} == {3}
    assert head.history_["val_accuracy"][-1] == pytest.approx(head.score(X[TEST], Y[TEST]))
    assert head.history_["val_loss"][-1] == pytest.approx(log_loss(Y[TEST], head.predict_proba(X[TEST])), rel=1e-4)


def test_early_stopping_keeps_the_best_epoch():
    head = DenseHead(
        hidden=32, lr=0.3, schedule="none", optimizer="sgd", epochs=60, early_stopping=True, patience=3,
        monitor="val_accuracy", random_state=0,
    )  # fmt: skip
    head.fit(X[TRAIN], Y[TRAIN], X_val=X[TEST], y_val=Y[TEST])

    accuracies = head.history_["val_accuracy"]
    assert len(accuracies) < 60
    assert np.argmax(accuracies) == len(accuracies) - 4
    assert head.score(X[TEST], Y[TEST]) == pytest.approx(max(accuracies))


def test_rows_are_held_out_where_nobody_gave_validation():
    head = DenseHead(hidden=16, epochs=3, early_stopping=True, validation_fraction=0.25, random_state=0).fit(X, Y)

    assert "val_loss" in head.history_
    assert "val_loss" not in DenseHead(hidden=16, epochs=1, random_state=0).fit(X, Y).history_


def test_plateau_lowers_the_rate_to_its_floor():
    head = DenseHead(
        hidden=8, lr=0.01, schedule="plateau", factor=0.1, plateau_patience=1, min_delta=10.0, min_lr=2e-4, epochs=5,
        random_state=0,
    ).fit(X, Y)  # fmt: skip

    np.testing.assert_allclose(head.history_["lr"], [0.01, 0.01, 1e-3, 2e-4, 2e-4])


def test_one_cycle_rises_and_falls():
    head = DenseHead(hidden=8, lr=0.01, epochs=10, random_state=0).fit(X, Y)

    rates = head.history_["lr"]
    assert 1 <= np.argmax(rates) <= 4
    assert rates[-1] < 1e-3


def test_keras_recipe_of_the_cifar_walkthrough():
    """E4 of the walkthroughs: its stack, Adamax with Keras's epsilon, Glorot weights, batches of 250."""
    head = DenseHead(
        layers="256 relu 128 relu drop.3 64 relu bn", optimizer="adamax", eps=1e-7, lr=5e-4, schedule="none",
        weight_decay=0, batch_size=250, epochs=2, random_state=0,
    ).fit(X, Y)  # fmt: skip

    kinds = [type(module).__name__ for module in head.network_module()]
    assert kinds == ["Linear", "ReLU", "Linear", "ReLU", "Dropout", "Linear", "ReLU", "BatchNorm1d", "Linear"]
    assert head.history_["loss"][1] < head.history_["loss"][0]


def test_initial_weights_are_glorots():
    head = DenseHead(hidden=100, epochs=1, lr=1e-12, random_state=0).fit(X, Y)

    bound = np.sqrt(6 / (64 + 100))
    assert abs(head.state_["0.weight"]).max() <= bound * 1.001
    assert head.state_["0.weight"].std() == pytest.approx(bound / np.sqrt(3), rel=0.05)
    np.testing.assert_allclose(head.state_["0.bias"], 0, atol=1e-6)


def test_partial_fit_goes_on_where_it_stands():
    head = DenseHead(hidden=32, lr=1e-2, random_state=0)
    for _ in range(15):
        for part in np.array_split(np.arange(1200), 4):
            head.partial_fit(X[part], Y[part], classes=np.arange(10))

    assert head.n_iter_ == 60
    assert head.score(X[TEST], Y[TEST]) > 0.85
    assert head.history_["loss"][-1] < head.history_["loss"][0] / 5


def test_a_fit_forgets_what_partial_fits_before_it_learned():
    X, y = load_digits(return_X_y=True)
    X = X.astype(np.float32) / 16
    fresh, used = (DenseHead(hidden=16, epochs=1, random_state=0) for _ in range(2))
    used.partial_fit(X, y, classes=np.arange(10))
    for head in (fresh, used):
        head.fit(X, y).partial_fit(X, y)

    np.testing.assert_array_equal(fresh.predict_proba(X[:50]), used.predict_proba(X[:50]))


def test_the_first_partial_fit_needs_all_classes():
    with pytest.raises(DataError, match="needs classes="):
        DenseHead().partial_fit(X, Y)


def test_weights_decide_between_contradicting_rows():
    rows = np.vstack([X[:200], X[:200]])
    labels = np.r_[np.zeros(200, int), np.ones(200, int)]
    weights = np.r_[np.full(200, 0.01), np.ones(200)]

    head = DenseHead(hidden=8, epochs=100, lr=1e-2, random_state=0).fit(rows, labels, weights)

    assert (head.predict(X[:200]) == 1).all()


def test_label_smoothing_makes_a_head_less_sure():
    sure = DenseHead(hidden=32, random_state=0).fit(X, Y).predict_proba(X).max(1).mean()
    smooth = DenseHead(hidden=32, random_state=0, label_smoothing=0.2).fit(X, Y).predict_proba(X).max(1).mean()

    assert smooth < 0.9 < sure


def test_calibrated_probabilities_rank_rows_that_are_all_sure():
    """A floor under the odds made them equal: most rows had one and the same probability."""
    model = fit(Features.from_arrays(X, Y), "mlp", seed=0)
    found = model.predict_proba(Features.from_arrays(X, Y)).max(axis=1)

    assert len(np.unique(found.round(6))) > 0.5 * len(found)


@pytest.mark.parametrize("classes", [2, 10])
def test_the_decision_function_is_the_logarithm_of_odds(classes):
    head = DenseHead(hidden=8, epochs=2, random_state=0).fit(X[classes > Y], Y[classes > Y])
    scores, probabilities = head.decision_function(X[:50]), np.log(head.predict_proba(X[:50]))

    expected = probabilities[:, 1] - probabilities[:, 0] if classes == 2 else probabilities - probabilities[:, :1]
    np.testing.assert_allclose(scores if classes == 2 else scores - scores[:, :1], expected, atol=1e-4)


def test_low_precision_products_still_learn():
    head = DenseHead(hidden=32, precision="bf16", random_state=0).fit(X, Y)

    assert head.state_["0.weight"].dtype == np.float32
    assert head.score(X, Y) > 0.95


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "adamm"}, "optimizer must be one of adamw, adam, adamax, sgd; got 'adamm'"),
        ({"layers": "256 relo"}, "Unknown layer 'relo'"),
        ({"layers": "conv32 relu"}, "Layer 'conv' needs maps: use --head conv"),
        ({"activation": "swish"}, "Unknown layer 'swish'"),
        ({"dropout": 1.0}, "dropout must be a number, at least 0, at most 0.99; got 1.0"),
        ({"epochs": "many"}, "epochs must be a whole number"),
        ({"batch_size": 1}, "batch_size must be a whole number, at least 2; got 1"),
        ({"lr": 1e9, "optimizer": "sgd", "hidden": (64, 64)}, "The loss is no longer a number .* Lower lr"),
    ],
)
def test_impossible_settings_are_explained(settings, message):
    with pytest.raises(OptionError, match=message):
        DenseHead(**{"epochs": 2, "random_state": 0} | settings).fit(X, Y)


def test_maps_need_the_convolutional_head():
    head = ConvHead("conv8 relu max conv16 relu max flat 32 relu", lr=1e-2, epochs=10, random_state=0)
    head.fit(MAPS[TRAIN], Y[TRAIN], X_val=MAPS[TEST], y_val=Y[TEST])

    assert head.n_features_in_ == 64
    assert head.score(MAPS[TEST], Y[TEST]) > 0.9
    with pytest.raises(ValueError, match="Found array with dim 4"):
        DenseHead().fit(MAPS, Y)


def test_a_table_of_vectors_is_refused_by_the_convolutional_head():
    with pytest.raises(DataError, match="ConvHead needs maps .*, got one vector of 64 an image. .*--pool none"):
        ConvHead("conv4 relu", epochs=1).fit(Features.from_arrays(MAPS.reshape(len(MAPS), -1), Y))


def test_maps_of_another_size_are_refused():
    head = ConvHead("conv4 relu", epochs=1, random_state=0).fit(MAPS, Y)

    with pytest.raises(DataError, match="was fitted on 64 values a row, got 16"):
        head.predict(MAPS[:, :, :4, :4])


def test_batch_norm_before_global_pooling():
    """D of the walkthroughs: batch norm, global average pooling, dense, dropout."""
    head = ConvHead("bn gap 32 relu drop.5", epochs=1, random_state=0).fit(np.repeat(MAPS, 4, axis=1), Y)

    kinds = [type(module).__name__ for module in head.network_module()]
    assert kinds == ["BatchNorm2d", "Sequential", "Linear", "ReLU", "Dropout", "Linear"]


def test_a_streamed_table_that_ends_in_a_block_of_one_row_is_trained_on():
    """33 rows in blocks of 4, as a limit of 16 blocks makes them."""
    X, y = np.random.default_rng(0).standard_normal((33, 4), dtype=np.float32), np.arange(33) % 3
    table, limit = Features.from_arrays(X, y), 16 * 4 * X[0].nbytes
    blocks = Samples(table, X.shape, X.dtype, limit).blocks(shuffle=True)
    head = DenseHead(hidden=[4], batch_norm=True, batch_size=4, epochs=3)

    assert [len(block) for _, block in blocks] == [*[4] * 8, 1]
    assert np.isfinite(head.fit(table, y, memory=limit).predict_proba(X)).all()
