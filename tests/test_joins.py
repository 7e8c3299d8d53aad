"""Tables side by side: rows matched by content, and models of several inputs."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from model_tables import beside, digits, item_of, recipe_for, table

import featx
from featx.cli import main
from featx.errors import DataError, ModelFileError
from featx.model.scaling import FeatureScaler

HOW = {"image_size": 32, "workers": 0, "engine": "eager"}


def rows_of(items, layer, width, names):
    """A table in memory whose every number tells the image and the layer that it is of."""
    plain = featx.Features.from_arrays(
        np.float32([[1000 * item + 10 * layer + column for column in range(width)] for item in items]),
        np.array(items) % 2,
        ids=names,
        classes=["even", "odd"],
    )
    return featx.Features(
        dataclasses.replace(
            plain.whole(),
            item_ids=np.stack([item_of(item) for item in items]),
            key=f"{layer:064}",
        )
    )


items = st.lists(st.integers(0, 15), min_size=1, max_size=20)


@given(tables=st.lists(st.tuples(items, st.integers(1, 3)), min_size=2, max_size=4))
@example(tables=[([1, 2, 3, 2], 1), ([9, 3, 1, 2], 2)])
@settings(max_examples=60, deadline=None)
def test_every_row_stands_with_its_own_image_whatever_it_is_called(tables):
    parts = [
        rows_of(of, layer, width, [f"{layer}/{number}.png" for number in range(len(of))])
        for layer, (of, width) in enumerate(tables)
    ]
    common = set.intersection(*(set(of) for of, _ in tables))
    if not common:
        with pytest.raises(DataError, match="No image is in all of"):
            featx.join(parts)
        return

    joined = featx.join(parts)

    wanted = [item for item in tables[0][0] if item in common]
    expected = [
        [1000 * item + 10 * layer + c for layer, (_, width) in enumerate(tables) for c in range(width)]
        for item in wanted
    ]
    np.testing.assert_array_equal(joined.X, np.float32(expected))
    assert joined.y.tolist() == [item % 2 for item in wanted]
    assert joined.ids.tolist() == [
        name for name, item in zip(parts[0].ids, tables[0][0], strict=True) if item in common
    ]
    lost = {item for of, _ in tables for item in of} - common
    assert len(joined.errors) == len(lost)
    some = np.arange(len(joined))[::-2]
    np.testing.assert_array_equal(joined[some], joined.X[some])
    for part, whole in zip(
        joined.select(some).tables, np.split(joined[some], np.cumsum([w for _, w in tables])[:-1], 1), strict=True
    ):
        np.testing.assert_array_equal(part.X, whole)


def test_what_cannot_stand_side_by_side_says_why(tmp_path):
    one = rows_of([0, 1, 2], 1, 2, list("abc"))
    maps = table(tmp_path, *digits(20, maps=True), recipe=recipe_for((1, 8, 8)))
    own = featx.Features.from_arrays(np.eye(3, dtype="float32"))

    for tables, told in [
        ([one, one], "is there 2 times, by its key 00000000. Name it once"),
        ([one, maps], r"holds maps of \(1, 8, 8\).*--pool avg"),
        ([one, own], r"arrays of your own have none.*np\.hstack"),
        ([], "at least one table"),
        ("a.h5", r"takes a list of tables: featx\.join\(\[first, second\]\)"),
    ]:
        with pytest.raises(DataError, match=told):
            featx.join(tables)
    assert featx.join([one]) is one


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (24, 40, 40, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def layers(images, tmp_path_factory):
    """Two layers of one small network and one of another, of 24 images in two classes."""
    how = HOW | {"cache": tmp_path_factory.mktemp("cache"), "labels": np.arange(24) % 2, "weights": "none"}
    other = featx.extract(images, backbone="shufflenet_v2_x0_5", **how)
    return [*featx.extract(images, backbone="squeezenet1_1", layers="features.4,default", **how), other]


@pytest.fixture(scope="module")
def saved(layers, tmp_path_factory):
    model = featx.fit(layers, head="ridge", val=0)
    return model.save(tmp_path_factory.mktemp("models") / "joined.featx")


def test_images_and_the_tables_in_any_order_get_the_same_predictions(images, layers, saved):
    model = featx.load(saved)

    from_images = model.predict_proba(images, workers=0, engine="eager")

    np.testing.assert_allclose(from_images, model.predict_proba(layers), atol=1e-4)
    np.testing.assert_array_equal(model.predict_proba(layers), model.predict_proba(layers[::-1]))
    assert len(model._row_maker._makers) == 2  # two layers of one network are one pass
    assert model.table().key == model.key
    with pytest.raises(DataError, match="--layers features.4,features .* and featx extract DATA --backbone shuffle"):
        model.predict(layers[0])
    with pytest.raises(
        ModelFileError, match="holds one backbone, and this model has squeezenet1_1, shufflenet_v2_x0_5"
    ):
        model.save(saved.with_name("both.featx"), bundle=True)


def test_layers_of_one_backbone_are_bundled_with_it(images, layers, tmp_path):
    model = featx.fit(layers[:2], head="ridge", val=0)

    moved = featx.load(model.save(tmp_path / "m.featx", bundle=True))

    assert moved.network is not None
    np.testing.assert_allclose(
        moved.predict_proba(images[:3], workers=0, engine="eager"), model.predict_proba(layers[:2])[:3], atol=1e-4
    )


def test_the_line_of_several_layers_and_backbones(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*words):
        assert main([*map(str, words), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    small = ["--weights", "none", "--image-size", 32, "--workers", 0, "--engine", "eager"]
    asked = ["--layers", "default", "--pool", "avg+max", "--backbones", "squeezenet1_1,shufflenet_v2_x0_5", *small]
    fitted = run("fit", photos, *asked, "--head", "centroid")
    names = ("squeezenet1_1", "shufflenet_v2_x0_5")
    found = [run("extract", photos, "--pool", "avg+max", "--backbone", name, *small) for name in names]
    tables = [made["path"] for one in found for made in one["tables"]]
    again = run("fit", *tables, "--head", "centroid", "-o", "again.featx")
    from_tables = run("predict", "again.featx", *tables)["predictions"]
    from_images = run("predict", "again.featx", photos, *small[-4:])["predictions"]
    judged = run("evaluate", "model.featx", photos, *small[-4:])

    assert [one["computed"] for one in found] == [0, 0]
    assert (len(tables), again["joins"]) == (4, fitted["joins"])
    assert [p["label"] for p in from_tables] == [p["label"] for p in from_images]
    assert judged["n"] + judged["trained_on"]["n"] == 12


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["fit", "photos", "--layers", "stages", "--views", "2", "--augment", "light"], "Views go with one layer"),
        (["fit", "photos", "--layers", "stages", "--layer", "x"], "--layer and --layers both say which layers"),
        (["finetune", "photos", "--pool", "avg+max"], "Fine-tuning takes one layer and one pooling"),
    ],
)
def test_what_needs_one_layer_refuses_several_before_any_image_is_computed(words, told, photos, monkeypatch, capsys):
    monkeypatch.chdir(photos.parent)

    assert main(words) == 1

    assert told in capsys.readouterr().err


@pytest.fixture(scope="module")
def halves():
    """Rows of four classes, of which one table tells the first bit, another the second, and a third nothing."""
    random, y = np.random.default_rng(0), np.arange(240) % 4
    bits = [np.outer(y >> bit & 1, np.ones(3)) + random.normal(0, 0.7, (240, 3)) for bit in (0, 1)]
    return beside(*bits, random.normal(0, 1, (240, 200)), y=y, splits=np.repeat(["train", "val", "test"], 80))


def chosen(model):
    (found,) = [one for one in model.report["joins"] if one["chosen"]]
    return found


@pytest.mark.parametrize("head", ["logreg", "knn"])
def test_validation_takes_the_tables_that_are_worth_it(halves, head):
    model = featx.fit(halves, head, test=True)

    tried = model.report["joins"]
    assert chosen(model)["tables"] == ["layer0 avg", "layer1 avg"]
    assert chosen(model)["loss"] == min(one["loss"] for one in tried)
    assert [len(one["tables"]) for one in tried] == [1, 1, 1, 2, 2, 3, 3]
    assert model.report["test"]["accuracy"] > featx.fit(halves[0], head, test=True).report["test"]["accuracy"] + 0.2


def test_one_table_is_taken_where_others_beside_it_bring_nothing(halves):
    y = halves[0].y % 2

    model = featx.fit(beside(halves[0].X, halves[2].X, y=y, splits=halves[0].splits), "logreg")

    assert (len(chosen(model)["tables"]), model.head.n_features_in_) == (1, 3)


def test_the_test_rows_do_not_choose(halves):
    other = halves[0].y.copy()
    other[halves[0].splits == "test"] = 0
    turned = beside(*(part.X for part in halves), y=other, splits=halves[0].splits)

    assert featx.fit(turned, "logreg").report["joins"] == featx.fit(halves, "logreg").report["joins"]


def test_without_validation_rows_all_tables_stand_side_by_side(halves):
    unsplit = beside(*(part.X for part in halves), y=halves[0].y, splits=[""] * 240)

    model = featx.fit(unsplit, "logreg", val=0)

    assert (model.head.n_features_in_, "joins" in model.report) == (206, False)


def test_numbers_and_blocks_of_unit_length_come_back_from_a_file(halves, tmp_path):
    numbers = featx.fit([part.select(np.arange(240)) for part in halves], "ridge", task="regress", test=True)
    near = featx.fit(halves, "centroid")

    for model in (numbers, near):
        again = featx.load(model.save(tmp_path / "m.featx"))
        assert again.report["joins"] == model.report["joins"]
        np.testing.assert_array_equal(again.classify(halves).familiarity, model.classify(halves).familiarity)
    assert numbers.report["test"]["r2"] > 0.3
    assert near.scaler.kind == "l2"


def test_blocks_of_columns_weigh_what_they_are_given():
    X = np.random.default_rng(0).normal(5, 3, (50, 5)).astype(np.float32)

    standard = FeatureScaler("standard", [(2, 1.0), (3, 0.5)]).fit_transform(X)
    lengths = FeatureScaler("l2", [(2, 1.0), (3, 0.5)]).fit_transform(X)

    np.testing.assert_allclose(standard.std(axis=0), [1, 1, 0.5, 0.5, 0.5], rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(lengths[:, :2], axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(lengths[:, 2:], axis=1), 0.5, rtol=1e-5)
