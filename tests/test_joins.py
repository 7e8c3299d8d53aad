"""Tables side by side: rows matched by content, and models of several inputs."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_tables import digits, recipe_for, table

import featx
from featx.cli import main
from featx.errors import DataError, ModelFileError

HOW = {"image_size": 32, "workers": 0, "engine": "eager"}


def item_of(number):
    return np.frombuffer(hashlib.sha256(b"%d" % number).digest(), np.uint8)


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


@given(tables=st.lists(st.tuples(items, st.integers(1, 3)), min_size=2, max_size=4), data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_row_stands_with_its_own_image_whatever_it_is_called(tables, data):
    parts = []
    for layer, (of, width) in enumerate(tables):
        names = data.draw(st.permutations([f"{layer}-{i}" for i in range(len(of))]))
        parts.append(rows_of(of, layer, width, names))
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
    again = run("fit", *fitted["tables"], "--head", "centroid", "-o", "again.featx")
    from_tables = run("predict", "again.featx", *fitted["tables"])["predictions"]
    from_images = run("predict", "again.featx", photos, *small[-4:])["predictions"]
    judged = run("evaluate", "model.featx", photos, *small[-4:])

    assert (fitted["table"], len(fitted["tables"]), again["tables"]) == (None, 4, fitted["tables"])
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
