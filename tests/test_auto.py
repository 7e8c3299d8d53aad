"""Heads that are tried for you, and several models as one."""

import hashlib
import json

import numpy as np
import pytest
from model_tables import beside, digits, table
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

import featx
from featx.cli import main
from featx.errors import DataError, FeatxError, ModelFileError, OptionError
from featx.heads import make_head
from featx.model import archive
from featx.model.selection import Held, greedy_weights
from featx.model.vote import Vote

CHEAP = {"heads": "ridge,centroid,knn"}


@pytest.fixture(scope="module")
def halves():
    """Rows of four classes: one table tells the first bit, another the second by a product, and a third nothing."""
    random, y = np.random.default_rng(0), np.arange(360) % 4
    first = np.outer(y & 1, np.ones(3)) + random.normal(0, 0.8, (360, 3))
    second = random.normal(0, 1, (360, 2))
    second[:, 0] = np.abs(second[:, 0]) * np.sign(second[:, 1]) * (2 * (y >> 1) - 1)
    splits = np.repeat(["train", "val", "test"], 120)
    return beside(first, second, random.normal(0, 1, (360, 50)), y=y, splits=splits)


@pytest.fixture(scope="module")
def voted(halves):
    return featx.fit(halves, "auto", settings=CHEAP, test=True)


def test_what_helps_votes_and_everything_tried_is_told(halves, voted):
    tried = voted.report["tried"]

    assert {one["head"] for one in tried} == {"ridge", "centroid", "knn"}
    assert {tuple(one["tables"]) for one in tried} >= {("layer0 avg",), ("layer2 avg",), ("layer0 avg", "layer1 avg")}
    assert sum(one["weight"] for one in tried) == pytest.approx(1)
    assert all(one["seconds"] >= 0 and one["loss"] > 0 and 0 <= one["score"] <= 1 for one in tried)
    best = min(tried, key=lambda one: one["loss"])
    assert voted.report["val"]["accuracy"] >= best["score"] - 0.05
    single = [
        featx.fit(halves[:2], head, test=True).report["test"]["accuracy"] for head in ("ridge", "centroid", "knn")
    ]
    assert voted.report["test"]["accuracy"] >= max(single) - 0.02


def test_rows_of_length_one_are_tried_too_unless_a_scale_is_asked_for(halves, voted):
    asked = featx.fit(halves, "auto", settings=CHEAP, scale="standard")

    assert {one["scale"] for one in voted.report["tried"] if one["head"] == "ridge"} == {"auto", "l2"}
    assert {one["scale"] for one in asked.report["tried"]} == {"standard"}


def test_the_test_rows_do_not_choose(halves, voted):
    other = halves[0].y.copy()
    other[halves[0].splits == "test"] = 0

    again = featx.fit(
        beside(*(part.X for part in halves), y=other, splits=halves[0].splits), "auto", settings=CHEAP, test=True
    )

    assert timeless(again) == timeless(voted)
    assert again.report["test"] != voted.report["test"]


def timeless(model):
    return [{name: told for name, told in one.items() if name != "seconds"} for one in model.report["tried"]]


def test_equal_seeds_give_equal_files(halves, voted, tmp_path):
    again = featx.fit(halves, "auto", settings=CHEAP, test=True)

    assert again.save(tmp_path / "a.featx").read_bytes() == voted.save(tmp_path / "b.featx").read_bytes()


def test_a_vote_comes_back_from_its_file_as_data(halves, voted, tmp_path):
    assert isinstance(voted.head, Vote)

    again = featx.load(voted.save(tmp_path / "m.featx"))

    np.testing.assert_allclose(again.predict_proba(halves), voted.predict_proba(halves), atol=1e-6)
    np.testing.assert_array_equal(again.predict_proba(halves[::-1]), again.predict_proba(halves))
    np.testing.assert_allclose(again.classify(halves).familiarity, voted.classify(halves).familiarity, atol=0.02)
    assert timeless(again) == timeless(voted)
    assert again.n_parameters == voted.n_parameters > 0
    assert featx.evaluate(again, halves).accuracy.value == voted.report["test"]["accuracy"]


def test_a_short_budget_says_what_it_left_out(halves):
    model = featx.fit(halves, "auto", budget=0.2)

    assert model.report["tried"]
    assert all(one["why"].startswith("no time: ") for one in model.report["skipped"])
    assert "mlp" in {one["head"] for one in model.report["skipped"]}


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"head": "auto", "val": 0}, "chooses on validation rows, and there are none. Give --val 0.1"),
        ({"head": "auto", "search": "C=1,2"}, "--search tries settings of one head"),
        ({"head": "auto", "cv": 3}, "--cv tries settings of one head"),
        ({"head": "ridge", "budget": "30s"}, "--budget is how long --head auto may try"),
        ({"head": "auto", "budget": "soon"}, "such as 30s or 2m; got 'soon'"),
        ({"head": "auto", "settings": {"heads": "ridge,auto"}}, "others than itself"),
        ({"head": "auto", "settings": {"heads": "rigde"}}, "Did you mean 'ridge'"),
    ],
)
def test_what_cannot_be_tried_says_so(how, told):
    rows = featx.Features.from_arrays(np.eye(20, dtype="float32"), np.arange(20) % 2)

    with pytest.raises(FeatxError, match=told):
        featx.fit(rows, **how)


@pytest.mark.parametrize("task", ["multilabel", "regress"])
def test_labels_and_numbers_are_voted_on_too(task, tmp_path):
    random = np.random.default_rng(1)
    X = random.normal(size=(300, 6)).astype("float32")
    says = X[:, :2] + X[:, 2:4] + random.normal(0, 0.3, (300, 2))
    rows = featx.Features.from_arrays(
        X, targets=says > 1 if task == "multilabel" else says, task=task, target_names=["a", "b"],
        splits=np.repeat(["train", "val", "test"], 100).tolist(),
    )  # fmt: skip

    model = featx.fit(rows, "auto", settings={"heads": "ridge,knn"}, test=True)

    again = featx.load(model.save(tmp_path / "m.featx"))
    np.testing.assert_allclose(again.predict_proba(rows) if task == "multilabel" else again.predict(rows),
                               model.predict_proba(rows) if task == "multilabel" else model.predict(rows))  # fmt: skip
    value = next(value for name, value in model.report["test"].items() if name in ("map", "r2"))
    assert value > 0.5


def test_every_head_that_can_gets_the_weights_of_classes():
    X, y, _ = digits(300)
    y = np.where(y < 3, y, 0)

    plain, balanced = (
        featx.AutoHead(heads="ridge,logreg", class_weight=weight).fit(X, y) for weight in (None, "balanced")
    )

    def recall(head):
        return np.mean([(head.predict(X)[y == label] == label).mean() for label in range(3)])

    assert recall(balanced) >= recall(plain)
    assert balanced.model_.report["tried"] != plain.model_.report["tried"]


# Ensembles of saved models


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (24, 40, 40, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def two(images, tmp_path_factory):
    """Models on two layers of one small network, and on one of them and another's, and the three tables."""
    how = {"cache": tmp_path_factory.mktemp("cache"), "labels": np.arange(24) % 2, "weights": "none"}
    how |= {"image_size": 32, "workers": 0, "engine": "eager"}
    other = featx.extract(images, backbone="shufflenet_v2_x0_5", **how)
    tables = [*featx.extract(images, backbone="squeezenet1_1", layers="features.4,default", **how), other]
    folder = tmp_path_factory.mktemp("models")
    models = [featx.fit(tables[:2], "ridge", val=0), featx.fit(tables[1:], "centroid", val=0)]
    return [model.save(folder / f"{name}.featx") for model, name in zip(models, "ab", strict=True)], tables


def test_saved_models_are_averaged_and_each_backbone_runs_once(images, two, tmp_path, capsys):
    paths, tables = two

    words = ["ensemble", *map(str, paths), "--weights", "3,1", "-o", str(tmp_path / "c.featx"), "--json"]
    assert main(words) == 0

    assert [one["weight"] for one in json.loads(capsys.readouterr().out)["tried"]] == [0.75, 0.25]
    both = featx.load(tmp_path / "c.featx")
    expected = [featx.load(path).predict_proba(tables) for path in paths]
    np.testing.assert_allclose(both.predict_proba(tables), 0.75 * expected[0] + 0.25 * expected[1], atol=1e-6)
    from_images = both.predict_proba(images, workers=0, engine="eager")
    np.testing.assert_allclose(from_images, both.predict_proba(tables), atol=1e-4)
    assert len(both.inputs) == 3
    assert len(both._row_maker._makers) == 2
    assert both.table().key == both.key


def test_a_vote_is_reported_and_doubted_like_any_other_model(tmp_path):
    rows = table(tmp_path, *digits(300))
    model = featx.ensemble([featx.fit(rows, "ridge"), featx.fit(rows, "centroid")])

    page = featx.report(model).save(tmp_path / "r.html").read_text()

    assert "featx ensemble model1.featx model2.featx --weights 0.5,0.5" in page
    assert "Not drawn for several models that vote" in page
    assert set(featx.doubts(rows, model=model).ids) <= set(rows.ids.tolist())


def test_an_ensemble_of_ensembles_says_what_it_is_made_of(two):
    paths, tables = two
    both = featx.ensemble(paths)

    again = featx.ensemble([both, paths[0]])

    expected = (both.predict_proba(tables) + featx.load(paths[0]).predict_proba(tables)) / 2
    np.testing.assert_allclose(again.predict_proba(tables), expected, atol=1e-6)
    with pytest.raises(OptionError, match="goes 3 deep at most"):
        featx.ensemble([featx.ensemble([again, paths[0]]), paths[0]])


def test_validation_rows_weigh_saved_models(tmp_path):
    rows = table(tmp_path, *digits(600))
    good = featx.fit(rows, "ridge", settings={"alpha": 10})
    bad = featx.fit(rows, "xgboost", settings={"n_estimators": 1, "components": 1})

    both = featx.ensemble([bad, good], weights="validation")

    assert [round(one["weight"], 1) for one in both.report["tried"]][1] > 0.7
    assert featx.evaluate(both, rows).accuracy.value >= featx.evaluate(good, rows).accuracy.value - 0.01
    with pytest.raises(DataError, match="20 are needed to weigh them"):
        featx.ensemble([bad, featx.fit(rows, "ridge", seed=1)], weights="validation")


def test_what_is_no_ensemble_says_why(two, tmp_path):
    paths, _ = two
    own = featx.fit(table(tmp_path, *digits(100)), "ridge", val=0)

    for models, weights, told in [
        (paths[:1], "equal", "of 2 to 100 models, got 1"),
        ([paths[0], own], "equal", "Model 2 does not tell the same as the first: not in both are '0', '1'"),
        (paths, "1,2,3", "for each of the 2 models"),
        (paths, "1,-1", "for each of the 2 models"),
        (str(paths[0]), "equal", r"takes a list of models: featx\.ensemble"),
    ]:
        with pytest.raises((OptionError, DataError), match=told):
            featx.ensemble(models, weights=weights)


def forged(path, arrays):
    """Change arrays of a file, and its card so that it vouches for them."""
    members = archive.read(path)
    content = save_arrays(load_arrays(members["head.safetensors"]) | arrays)
    card = json.loads(members["model.json"])
    card["members"]["head.safetensors"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    archive.write(path, members | {"head.safetensors": content, "model.json": json.dumps(card).encode()})
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": np.array([0.5, 0.6])},
        {"weights": np.array([1.5, -0.5])},
        {"columns.0": np.arange(5)},
        {"columns.1": np.full(50, 10**6)},
        {"columns.7": np.arange(3)},
    ],
)
def test_votes_from_strangers_are_refused(two, tmp_path, changes):
    path = featx.ensemble(two[0]).save(tmp_path / "c.featx")

    with pytest.raises(ModelFileError):
        featx.load(forged(path, {f"head.{name}": value for name, value in changes.items()}))


def test_selection_takes_what_is_best_together():
    truth = np.arange(200) % 2
    right = np.random.default_rng(0).random((3, 200)) < [[0.7], [0.7], [0.2]]
    said = np.where(right, 0.9, 0.1)[..., None]
    held = Held("classify", truth, np.arange(200))

    weights = greedy_weights(held, said, np.full(200, 1 / 200))

    assert weights[2] < min(weights[:2])
    together = held.losses(np.tensordot(weights, said, 1)).mean()
    assert together < held.losses(said).mean(axis=1).min()


def test_auto_is_a_head_like_others():
    assert make_head("auto", heads="ridge,knn", budget="5s").get_params()["budget"] == "5s"
    assert make_head("auto", task="regress").get_params()["budget"] == 30.0


# Classes of unlike size


@pytest.fixture(scope="module")
def rare():
    """Rows of two overlapping classes, nine in ten of the first."""
    random, y = np.random.default_rng(0), (np.arange(900) % 10 == 9).astype(int)
    X = (random.normal(0, 1, (900, 4)) + np.outer(y, [1.2, 0, 0, 0])).astype("float32")
    return featx.Features.from_arrays(X, y, splits=np.repeat(["train", "val", "test"], 300).tolist())


def recalls(model, rows):
    of = rows.select("test")
    said = np.array([int(name) for name in model.predict(of)])
    return [float((said[of.y == label] == label).mean()) for label in (0, 1)]


def test_the_metric_says_what_chooses(rare, tmp_path):
    models = {
        metric: featx.fit(rare, "logreg", search="class_weight=none,balanced", metric=metric)
        for metric in ("accuracy", "balanced_accuracy")
    }

    assert {name: model.report["chosen"]["class_weight"] for name, model in models.items()} == {
        "accuracy": None, "balanced_accuracy": "balanced",
    }  # fmt: skip
    trials = models["balanced_accuracy"].report["search"]
    assert all(trial["balanced_accuracy"] == trial["scores"][0] for trial in trials)
    assert featx.load(models["balanced_accuracy"].save(tmp_path / "m.featx")).report["search"] == trials


def test_votes_are_chosen_by_the_metric_too(rare):
    words = {"settings": {"heads": "ridge,knn"}}

    plain = featx.fit(rare, "auto", **words)
    chosen = featx.fit(rare, "auto", metric="balanced_accuracy", **words)

    losses = [[one["loss"] for one in model.report["tried"]] for model in (plain, chosen)]
    assert all(np.array(losses[1]) > losses[0])  # rare rows are the dear ones
    assert sum(one["weight"] for one in chosen.report["tried"]) == pytest.approx(1)


def test_numbers_have_no_balanced_accuracy():
    rows = featx.Features.from_arrays(np.eye(20, dtype="float32"), targets=np.arange(20.0), task="regress")

    with pytest.raises(OptionError, match="one class an image"):
        featx.fit(rows, "ridge", metric="balanced_accuracy")


def test_neighbours_of_a_rare_class_count_more(rare, tmp_path):
    plain, balanced = (featx.fit(rare, "knn", settings={"class_weight": how}) for how in (None, "balanced"))

    assert recalls(balanced, rare)[1] > recalls(plain, rare)[1] + 0.3
    again = featx.load(balanced.save(tmp_path / "m.featx"))
    np.testing.assert_array_equal(again.predict_proba(rare), balanced.predict_proba(rare))
    several = np.stack([rare.y, 1 - rare.y], axis=1)
    of = [make_head("knn", task="multilabel", class_weight=how).fit(rare.X, several) for how in (None, "balanced")]
    assert of[1].predict_proba(rare.X)[:, 0].mean() > of[0].predict_proba(rare.X)[:, 0].mean() + 0.1
