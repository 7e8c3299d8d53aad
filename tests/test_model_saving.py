"""The model file: every head there and back."""

import json
import subprocess
import sys

import numpy as np
import pytest
from model_tables import digits, recipe_for, table

from featx.errors import DataError, MissingDataError, ModelFileError, OptionError
from featx.features import Features
from featx.model import archive, fit, load

HEADS = {
    "mlp": {"hidden": (16, 8), "epochs": 3, "batch_norm": True},
    "logreg": {"tol": 1e-2},
    "xgboost": {"n_estimators": 3, "components": 8},
    "knn": {"k": 3},
    "ridge": {},
    "centroid": {},
    "svm": {"tol": 1e-3},
}


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    return table(tmp_path_factory.mktemp("cache"), *digits(400))


@pytest.fixture(scope="module")
def saved(features, tmp_path_factory):
    """The file of a ridge model."""
    return fit(features, "ridge").save(tmp_path_factory.mktemp("models") / "ridge.featx")


@pytest.mark.parametrize("head", HEADS)
def test_every_head_predicts_the_same_after_a_round_trip(features, head, tmp_path):
    model = fit(features, head, settings=HEADS[head])
    again = load(model.save(tmp_path / "m.featx"))

    np.testing.assert_array_equal(again.predict_proba(features), model.predict_proba(features))
    assert again.predict(features).tolist() == model.predict(features).tolist()
    assert again.report == json.loads(json.dumps(model.report.to_dict())) | {"seconds": None}
    assert (again.recipe, again.request, again.classes) == (model.recipe, model.request, model.classes)
    assert again.n_parameters == model.n_parameters > 0
    np.testing.assert_array_equal(again.trained_on, model.trained_on)


def test_a_conv_head_survives_too(tmp_path):
    X, y, splits = digits(200, maps=True)
    maps = table(tmp_path, X, y, splits)
    model = fit(maps, "conv", scale="standard", settings={"layers": "conv4 relu max flat", "epochs": 2})
    again = load(model.save(tmp_path / "m.featx"))

    np.testing.assert_array_equal(again.predict_proba(maps), model.predict_proba(maps))


def test_saving_what_was_loaded_gives_the_same_bytes(saved, tmp_path):
    assert load(saved).save(tmp_path / "again.featx").read_bytes() == saved.read_bytes()


def test_another_process_predicts_the_same(features, saved, tmp_path):
    script = (
        "import sys, numpy as np; from featx.model import load; from featx.features import Features; "
        "np.save(sys.argv[3], load(sys.argv[1]).predict_proba(Features.open(sys.argv[2])))"
    )
    out = tmp_path / "p.npy"
    subprocess.run([sys.executable, "-c", script, str(saved), str(features.path), str(out)], check=True)

    np.testing.assert_array_equal(np.load(out), load(saved).predict_proba(features))


def test_the_file_says_what_it_is_to_anyone(saved):
    fields = json.loads(archive.read(saved)["model.json"])

    assert fields["head_name"] == "ridge"
    assert fields["classes"][0] == "zero"
    assert fields["recipe"]["backbone"] == "torchvision/alexnet"
    assert set(fields["members"]) == {"head.safetensors", "items.safetensors"}


@pytest.mark.parametrize(
    ("head", "settings", "expected"),
    [
        ("logreg", {"C": 0.01}, 10 * 64 + 10),
        (
            "mlp",
            {"hidden": (16, 8), "batch_norm": True, "epochs": 1},
            64 * 16 + 16 + 32 + 16 * 8 + 8 + 16 + 8 * 10 + 10,
        ),
        ("sklearn.linear_model.LogisticRegression", {"max_iter": 2000}, 10 * 64 + 10),
        ("centroid", {}, 10 * 64),
        ("knn", {}, 290 * 64),
    ],
)
def test_parameters_are_those_that_were_learned(features, head, settings, expected):
    assert fit(features, head, settings=settings).n_parameters == expected


def test_a_missing_file_is_explained(tmp_path):
    with pytest.raises(MissingDataError, match="Make one: featx fit"):
        load(tmp_path / "none.featx")


def test_heads_without_a_data_form_need_unsafe_pickle_at_both_ends(features, tmp_path):
    model = fit(features, "sklearn.neighbors.KNeighborsClassifier")
    path = tmp_path / "m.featx"

    with pytest.raises(ModelFileError, match=r"no form that is data alone.*--unsafe-pickle"):
        model.save(path)
    assert not path.exists()
    model.save(path, unsafe_pickle=True)
    with pytest.raises(ModelFileError, match=r"m.featx is not loaded: its head is a pickle.*--unsafe-pickle"):
        load(path)
    np.testing.assert_array_equal(load(path, unsafe_pickle=True).predict_proba(features), model.predict_proba(features))


def test_unsafe_pickle_pickles_nothing_that_is_data(features, tmp_path):
    path = fit(features, "ridge").save(tmp_path / "m.featx", unsafe_pickle=True)

    assert "head.pickle" not in archive.read(path)
    load(path)


def test_a_table_of_another_recipe_is_refused_with_the_command(features, saved, tmp_path):
    X, y, splits = digits(100)
    other = table(tmp_path, X, y, splits, recipe=recipe_for((64,), layer="classifier.4"))

    with pytest.raises(
        ModelFileError.__mro__[1],
        match=r"classifier\.4.*Make the matching table: featx extract DATA --backbone alexnet",
    ):
        load(saved).predict(other)
    with pytest.raises(DataError, match="features of no recipe"):
        load(saved).predict(Features.from_arrays(X))


def test_a_model_of_ones_own_rows_takes_such_rows_and_no_images(tmp_path):
    X, y, _ = digits(200)
    model = load(fit(Features.from_arrays(X, y), "ridge").save(tmp_path / "m.featx"))

    assert model.predict(Features.from_arrays(X)).shape == (200,)
    with pytest.raises(OptionError, match="cannot tell how to make them from images"):
        model.predict(["photo.jpg"])


def test_a_table_is_predicted_from_its_path(features, saved):
    model = load(saved)

    assert model.predict(str(features.path)).tolist() == model.predict(features).tolist()
    assert model.top(features.path, 2)[0] == model.classify(features).top(2)[0]
