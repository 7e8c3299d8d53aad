"""Evaluation averages over augmented views of the very images that it leaves out of training."""

import json

import numpy as np
import pytest
from test_views import run

import featx
from featx.cli import main
from featx.datasets import open_dataset
from featx.errors import DataError, OptionError
from featx.evaluation import evaluate
from featx.features import Features
from featx.model.fitting import fit

N = 48
HOW = {"workers": 0, "engine": "eager"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Images of noise tinted by their class, every third for the test."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 200, (N, 24, 24, 3), dtype=np.uint8)
    y = np.arange(N) % 3
    pixels[np.arange(N), ..., y] += 4
    path = tmp_path_factory.mktemp("data") / "images.npz"
    test = np.arange(N) // 3 % 3 == 0
    np.savez(path, x_train=pixels[~test], y_train=y[~test], x_test=pixels[test], y_test=y[test])
    return path


@pytest.fixture(scope="module")
def table(data, tmp_path_factory):
    """Three views of each training image."""
    return run(data, tmp_path_factory.mktemp("cache"), 3, "flip,crop=2", batch_size=16).tables[0]


def test_probabilities_are_those_of_predict(table, data):
    model, images = fit(table, "ridge"), open_dataset(data)
    test = np.flatnonzero(table.splits == "test")
    found = evaluate(model, table, images=images, **HOW)
    expected = model.predict_proba(images_of(data), tta=True, **HOW)

    assert found.accuracy.n == len(test)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
    assert np.abs(found.probabilities - evaluate(model, table).probabilities).max() > 1e-4


def images_of(data):
    with np.load(data) as arrays:
        return arrays["x_test"]


def test_rows_may_stand_in_any_order(table, data):
    model, images = fit(table, "ridge"), open_dataset(data)
    backwards = evaluate(model, table.select(np.arange(N)[::-1]), images=images, **HOW)

    expected = evaluate(model, table, images=images, **HOW)
    np.testing.assert_allclose(backwards.probabilities[::-1], expected.probabilities, atol=1e-6)
    assert backwards.accuracy == expected.accuracy


def test_other_images_than_those_of_the_table_are_refused(table, data, tmp_path):
    with np.load(data) as arrays:
        changed = dict(arrays)
    changed["x_test"] = changed["x_test"].copy()
    changed["x_test"][2] += 1
    np.savez(tmp_path / "changed.npz", **changed)

    with pytest.raises(DataError, match=r"1 of 18 are gone or others than the table was made of, the first .*2"):
        evaluate(fit(table, "ridge"), table, images=open_dataset(tmp_path / "changed.npz"), **HOW)


def test_a_model_of_plain_images_has_no_views_to_average_over(table, data):
    with pytest.raises(OptionError, match="--views 4 --augment light"):
        evaluate(fit(table, "ridge", views=1), table, images=open_dataset(data), **HOW)


def test_the_command_averages_where_it_is_told_to(table, data, tmp_path, capsys):
    model = fit(table, "ridge")
    path = model.save(tmp_path / "m.featx")
    words = ["evaluate", path, "--allow-code", "--engine", "eager", "--workers", "0", "--cache", tmp_path]

    def command(*more):
        code = main([*map(str, [*words, *more]), "--json", "-q"])
        return code, json.loads(capsys.readouterr().out)

    code, found = command(table.path, "--tta")
    expected = evaluate(model, table, images=open_dataset(data), **HOW)
    assert (code, found["log_loss"]) == (0, pytest.approx(expected.log_loss, abs=1e-6))
    assert command(table.path, "--tta", "--report", tmp_path / "r.html")[0] == 2

    own = Features.from_arrays(np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2)
    featx.fit(own, "ridge").save(path)
    rows = Features.from_arrays(own.X[:9] + 1, own.y[:9]).export(tmp_path / "own.h5")
    code, error = command(rows, "--tta")
    assert (code, "featx evaluate MODEL DATA --tta" in error["error"]["message"]) == (1, True)
