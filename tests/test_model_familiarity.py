"""Abstention on rows that are unlike all that a model has learned from."""

import json

import numpy as np
import pytest
from model_tables import digits, table

from featx.cli import main
from featx.errors import ModelFileError, OptionError
from featx.features import Features
from featx.model import fit, load
from featx.model.predictions import FEWEST_ROWS
from featx.model.scaling import FeatureScaler
from featx.model.scores import MOST_BYTES, MOST_ROWS, OODScore

X, Y, SPLITS = digits(1500)


@pytest.fixture(scope="module")
def model():
    return fit(Features.from_arrays(X, Y, splits=SPLITS), "ridge")


def strangers(n=200):
    """Rows with the values of digits in places where no digit has them."""
    return Features.from_arrays(np.random.default_rng(0).permuted(X[:n], axis=1))


def test_known_rows_are_spread_over_all_shares_and_strangers_are_at_the_end(model):
    known = model.classify(Features.from_arrays(X[SPLITS == "test"])).familiarity
    unknown = model.classify(strangers()).familiarity

    assert known.mean() == pytest.approx(0.5, abs=0.1)
    assert np.mean(known < 0.05) < 0.1
    assert np.mean(unknown < 0.05) > 0.9


def test_distances_are_those_to_the_fifth_nearest():
    rows = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    features = Features.from_arrays(rows)
    train, val = np.arange(120), np.arange(120, 200)

    found = OODScore.learn(features, FeatureScaler("none"), train, val, seed=0)

    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    expected = np.sort(1 - np.sort(units[val] @ units[train].T, axis=1)[:, -5])
    np.testing.assert_allclose(found.distances, expected, atol=2e-3)
    assert found.familiarity(rows[val][[0]])[0] == pytest.approx(
        np.mean(expected >= 1 - np.sort(units[val[0]] @ units[train].T)[-5]), abs=0.03
    )


def test_the_sample_is_small_and_never_measured_against_itself():
    wide = Features.from_arrays(np.random.default_rng(0).normal(size=(3000, 2000)).astype(np.float32))

    found = OODScore.learn(wide, FeatureScaler("none"), np.arange(3000), np.arange(0), seed=0)

    assert found.units.nbytes <= MOST_BYTES
    assert FEWEST_ROWS <= len(found.units) <= MOST_ROWS
    assert found.distances.min() > 0.5  # a row that it was part of would be at zero


def test_few_rows_tell_nothing():
    model = fit(Features.from_arrays(X[:60], Y[:60]), "ridge")

    assert model.ood is None
    assert model.classify(Features.from_arrays(X[:3])).to_dict()["predictions"][0]["familiarity"] is None
    with pytest.raises(OptionError, match="more validation rows"):
        model.classify(Features.from_arrays(X[:3]), min_familiarity=0.1)


def test_unfamiliar_rows_keep_their_probabilities_and_get_no_label(model):
    found = model.classify(strangers(), min_familiarity=0.05)

    assert sum(label is None for label in found.labels) > 180
    assert np.isfinite(found.probabilities).all()
    said = model.predict(strangers(), min_familiarity=0.05, unknown="other").tolist()
    assert said == ["other" if label is None else label for label in found.labels]
    with pytest.raises(OptionError, match="--min-familiarity must be a number, at least 0, at most 1; got 2"):
        model.classify(strangers(), min_familiarity=2)


def test_it_travels_in_the_model_file(model, tmp_path):
    again = load(model.save(tmp_path / "m.featx"))

    np.testing.assert_array_equal(again.classify(strangers()).familiarity, model.classify(strangers()).familiarity)


@pytest.mark.parametrize(
    "change",
    [
        {"units": np.zeros((60, 3), np.float16)},
        {"units": np.full((60, 64), np.nan, np.float16)},
        {"units": np.zeros((60, 64), np.float32)},
        {"units": np.zeros((2, 64), np.float16)},
        {"distances": np.zeros(0, np.float32)},
        {"distances": np.array([2, 1], np.float32)},
    ],
)
def test_a_strange_sample_is_refused(model, tmp_path, change):
    good = vars(model.ood)
    spoiled = type(model)(**vars(model) | {"ood": OODScore(**good | change)})

    with pytest.raises(ModelFileError, match="its sample of training rows is not one"):
        load(spoiled.save(tmp_path / "m.featx"))


def test_the_command_abstains(tmp_path, capsys):
    features = table(tmp_path / "cache", X, Y, SPLITS)
    path = str(fit(features, "ridge").save(tmp_path / "m.featx"))

    assert main(["predict", path, str(features.path), "--min-familiarity", "0.2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["predictions"]

    assert {row["label"] is None for row in rows if row["familiarity"] < 0.2} == {True}
    assert all(row["label"] is not None for row in rows if row["familiarity"] >= 0.2)
    assert main(["predict", path, str(features.path), "--min-familiarity", "0.2", "--unknown", "other"]) == 0
    assert capsys.readouterr().out.count("other ") == sum(row["label"] is None for row in rows)
