"""Tests of featx.protocols: each by its own definition, and none that looks at test rows before it reports."""

import json

import numpy as np
import pytest
from model_tables import digits, recipe_for, table
from sklearn.linear_model import Ridge

from featx.cli import main
from featx.errors import OptionError, UnknownNameError
from featx.features import Features
from featx.heads import KNNHead, LogisticHead
from featx.protocols import PROTOCOLS, Pixels, halve_around_peak, run_protocol
from featx.recipe import Frame

X, Y, SPLITS = digits(1500)


@pytest.fixture(scope="module")
def features():
    return Features.from_arrays(X, Y, splits=SPLITS)


def results(model):
    return {result["setting"]: result for result in model.report["protocol"]["results"]}


def test_dinov2_chooses_on_a_tenth_of_train_and_fits_on_all_of_it(features):
    model = run_protocol(features, "dinov2-logreg")

    path = model.report["path"]
    np.testing.assert_allclose([step["C"] for step in path], 10 ** np.linspace(-6, 5, 45))
    best = max(path, key=lambda step: step["score"])
    assert model.head.C == best["C"] == model.report["chosen"]["C"]
    assert model.report["val"]["n"] == pytest.approx(120, abs=10)
    train = SPLITS == "train"
    alone = LogisticHead(best["C"], max_iter=1000).fit(X[train], Y[train])
    assert results(model)[f"C = {best['C']:.4g}"]["accuracy"] == pytest.approx(
        alone.score(X[~train], Y[~train]), abs=0.01
    )


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_test_rows_decide_nothing(features, name):
    spoiled = Features.from_arrays(X, np.where(SPLITS == "test", (Y + 1) % 10, Y), splits=SPLITS)

    honest, other = run_protocol(features, name), run_protocol(spoiled, name)

    assert honest.report["chosen"] == other.report["chosen"]
    np.testing.assert_array_equal(honest.predict_proba(features), other.predict_proba(features))
    assert honest.report["test"]["accuracy"] > 0.8 > 0.2 > other.report["test"]["accuracy"]


def test_clip_halves_the_distance_around_the_best_penalty(features):
    model = run_protocol(features, "clip-lp")

    exponents = np.sort([-np.log10(step["C"]) for step in model.report["path"]])
    assert set(np.arange(-6, 7, 2)) <= set(exponents.round(6))
    np.testing.assert_allclose(exponents * 8, (exponents * 8).round(), atol=1e-9)
    best = -np.log10(model.head.C)
    assert min(abs(exponents - best - 0.125)) < 1e-9
    assert len(exponents) <= 15


def test_a_search_stays_within_its_places():
    tried = halve_around_peak(lambda places: {place: place for place in places}, [0.0, 1.0, 2.0], finest=0.25)

    assert sorted(tried) == [0, 1, 1.5, 1.75, 2]


def test_every_k_of_dino_is_a_vote_of_its_own(features):
    model = run_protocol(features, "dino-knn")

    train = SPLITS == "train"
    for k in (10, 20, 100, 200):
        alone = KNNHead(k, temperature=0.07).fit(X[train], Y[train])
        assert results(model)[f"k = {k}"]["accuracy"] == alone.score(X[~train], Y[~train])
    assert model.report["test"]["accuracy"] == results(model)["k = 20"]["accuracy"]


def test_few_shots_are_big_visions_ridge_regression(features):
    model = run_protocol(features, "bigvision-fewshot")

    train, test = np.flatnonzero(SPLITS == "train"), SPLITS == "test"
    for shots in (1, 25):
        accuracies = []
        for seed in range(3):
            rng = np.random.default_rng(seed)
            support = np.concatenate([rng.permutation(train[Y[train] == c])[:shots] for c in range(10)])
            mean, std = X[support].mean(0), X[support].std(0) + 1e-5

            def padded(rows, mean=mean, std=std):
                return np.column_stack([(rows - mean) / std, np.full(len(rows), 100.0)])

            targets = 2.0 * (Y[support][:, None] == np.arange(10)) - 1
            ridge = Ridge(2.0**10, fit_intercept=False).fit(padded(X[support]), targets)
            accuracies.append(np.mean(ridge.predict(padded(X[test])).argmax(1) == Y[test]))
        found = results(model)[f"{shots} a class"]
        assert found["accuracies"] == pytest.approx(accuracies, abs=0.01)
        low, high = found["ci95"]
        assert found["accuracy"] == pytest.approx(np.mean(found["accuracies"]))
        assert low < found["accuracy"] < high
    assert len(model.trained_on) == 250


def test_vtab_sees_a_thousand_rows(features):
    model = run_protocol(features, "vtab-1k")

    assert (model.report["train"]["n"], model.report["val"]["n"]) == (800, 200)
    assert len(model.trained_on) == 1000
    assert len(results(model)["1,000 rows"]["accuracies"]) == 3
    with pytest.raises(OptionError, match=r"draws 1,000 training rows, and the table has 400"):
        run_protocol(Features.from_arrays(*digits(500)[:2], splits=digits(500)[2]), "vtab-1k")


def test_validation_rows_of_the_table_choose(features):
    splits = SPLITS.astype("<U5")
    splits[np.flatnonzero(SPLITS == "train")[:200]] = "val"

    model = run_protocol(Features.from_arrays(X, Y, splits=splits), "clip-lp")

    assert model.report["protocol"]["chose"] == "200 validation rows (the table's own)"


def test_other_pixels_than_the_protocols_are_warned_of(tmp_path):
    small = table(tmp_path, *digits(300), recipe=recipe_for((64,)))

    (warning,) = run_protocol(small, "dino-knn").report["protocol"]["warnings"]

    assert "input 64×64 instead of 224×224" in warning
    assert "Published numbers do not compare" in warning
    frame = Frame(height=224, width=224, resize="crop", shorter=256, interpolation="bicubic")
    assert Pixels(size=224, shorter=256).differences(frame) == []


def test_what_cannot_be_is_explained(features):
    with pytest.raises(UnknownNameError, match="Did you mean 'dino-knn'"):
        run_protocol(features, "dino-nn")
    with pytest.raises(OptionError, match="reports on test rows, and the table has none"):
        run_protocol(Features.from_arrays(X, Y), "dino-knn")


def test_the_command_tells_which_rows_chose_and_which_reported(tmp_path, capsys):
    path = str(table(tmp_path / "cache", *digits()).path)
    model = str(tmp_path / "m.featx")
    command = ["fit", path, "--protocol", "dino-knn", "-o", model, "--cache", str(tmp_path / "cache")]

    assert main(command) == 0
    text, notes = capsys.readouterr()
    assert main([*command, "--json", "-q"]) == 0
    report = json.loads(capsys.readouterr().out)

    assert "chose     nothing was chosen" in text
    assert "reported  120 test rows" in text
    assert "Warning: The table's preprocessing" in notes
    assert "each left out of its own vote" in text
    assert report["protocol"]["name"] == "dino-knn"
    assert main([*command, "--head", "mlp"]) == 1
    assert "--protocol decides what --head is for" in capsys.readouterr().err
