"""FAULTS rows 13 and 14: other weights, other preprocessing, another library. And row 24: numbers that are none."""

import dataclasses
import json

import numpy as np
import pytest
import tiny_network
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_tables import recipe_for
from PIL import Image
from tiny_network import album, photo, rows_by_content, run

from featx import backbones
from featx.errors import ProbeError
from featx.extraction import Options, open_dataset
from featx.extraction import run as extract
from featx.images import resizing
from featx.recipe import Frame, Recipe, Request, View

TEXT = st.text(max_size=20)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
TRIPLES = st.tuples(NUMBERS, NUMBERS, NUMBERS)
SIDES = st.integers(1, 10_000)
FRAME_FIELDS = {
    "height": SIDES,
    "width": SIDES,
    "resize": TEXT,
    "shorter": SIDES,
    "interpolation": TEXT,
    "background": st.tuples(*[st.integers(0, 255)] * 3),
    "decode": TEXT,
    "white": st.none() | st.integers(255, 65535),
}
FIELDS = {
    "backbone": TEXT,
    "weights": TEXT,
    "weights_digest": TEXT,
    "layer": TEXT,
    "pool": TEXT,
    "shape": st.lists(SIDES, min_size=1, max_size=3).map(tuple),
    "dtype": st.sampled_from(["float32", "float16"]),
    "precision": TEXT,
    "frame": st.builds(Frame, **FRAME_FIELDS),
    "mean": TRIPLES,
    "std": TRIPLES,
    "version": st.none() | TEXT,
    "view": st.none() | st.builds(View, number=SIDES, augment=TEXT, seed=SIDES),
}
RECIPES = st.builds(Recipe, **FIELDS)


def test_row_13_the_lists_of_fields_are_complete():
    assert set(FIELDS) == {field.name for field in dataclasses.fields(Recipe)}
    assert set(FRAME_FIELDS) == {field.name for field in dataclasses.fields(Frame)}


@given(RECIPES, st.data())
def test_row_13_each_field_of_the_recipe_changes_the_key(recipe, data):
    name = data.draw(st.sampled_from([*FIELDS, *(f"frame.{name}" for name in FRAME_FIELDS)]))
    outer, _, inner = name.partition(".")
    if inner:
        value = data.draw(FRAME_FIELDS[inner].filter(lambda value: value != getattr(recipe.frame, inner)))
        changed = dataclasses.replace(recipe, frame=dataclasses.replace(recipe.frame, **{inner: value}))
    else:
        value = data.draw(FIELDS[outer].filter(lambda value: value != getattr(recipe, outer)))
        changed = dataclasses.replace(recipe, **{outer: value})

    assert changed.key != recipe.key


@given(RECIPES, RECIPES)
def test_row_13_keys_are_equal_exactly_when_recipes_are(a, b):
    assert (a.key == b.key) == (a == b)
    assert Recipe.from_json(a.to_json()) == a


def test_row_13_what_came_later_is_not_in_the_key_of_a_recipe_without_it():
    recipe = recipe_for((4,))

    assert not {"view", "white"} & (json.loads(recipe.to_json()).keys() | json.loads(recipe.to_json())["frame"].keys())


def test_row_13_format_and_epoch_are_in_the_key(monkeypatch):
    before = recipe_for((4,)).key
    for name in ("FORMAT", "EPOCH"):
        with monkeypatch.context() as raised:
            raised.setattr(f"featx.recipe.{name}", 99)
            assert recipe_for((4,)).key != before


REQUESTS = {
    "the weights": {"weights": "none", "seed": 1},
    "the layer": {"layers": ("features.3",)},
    "the pooling": {"pool": "max"},
    "the size": {"image_size": 96},
    "the resize": {"resize": "pad"},
    "the normalisation": {"normalize": "unit"},
    "the interpolation": {"interpolation": "nearest"},
    "the background": {"background": "black"},
    "the dtype": {"dtype": "float16"},
    "the precision": {"precision": "bf16"},
    "another backbone": {"backbone": "squeezenet1_1"},
}


def test_row_13_each_thing_that_a_user_asks_for_makes_another_key():
    asked = {"backbone": "squeezenet1_0", "weights": "none", "image_size": 80}
    keys = {what: backbones.resolve(Request(**(asked | change)))[1][0].key for what, change in REQUESTS.items()}
    keys["nothing"] = backbones.resolve(Request(**asked))[1][0].key
    keys["another version"] = backbones.resolve(tiny_network.request())[1][0].key
    keys["a version"] = backbones.resolve(dataclasses.replace(tiny_network.request(), version="2"))[1][0].key

    assert len(set(keys.values())) == len(keys)


def test_row_13_other_weights_under_the_same_name_are_found(tmp_path):
    """A file swapped for another of the same name, size and time of change; the same tensors under another name agree."""
    photos, cache, file = album(tmp_path / "photos"), tmp_path / "cache", tmp_path / "weights.pth"

    def computed(path):
        request = dataclasses.replace(tiny_network.request(), weights=str(path))
        how = Options(workers=0, engine="eager", batch_size=4)
        return extract(open_dataset(photos), request, cache=cache, options=how).computed

    state = tiny_network.tiny()[0].state_dict()
    torch.save(state, file)
    assert computed(file) == 12
    assert computed(file) == 0
    torch.save(state, tmp_path / "copy.pth")
    assert computed(tmp_path / "copy.pth") == 0
    state["0.bias"][0] += 1e-6
    torch.save(state, file)
    assert computed(file) == 12


@pytest.fixture
def drifted():
    """Let every feature change by a part, as another library might."""

    def drift(part):
        tiny_network.drift = part

    yield drift
    tiny_network.drift = 0.0


def test_row_14_features_that_drift_past_the_tolerance_are_not_mixed(tmp_path, drifted):
    photos = album(tmp_path / "photos")
    before = rows_by_content(run(photos, tmp_path / "cache").tables[0])
    photo(photos / "cat" / "new.png", 77)

    drifted(3e-4)
    with pytest.raises(ProbeError, match=r"differ by 3\.0e-04 .*1e-04 is allowed.*--refresh"):
        run(photos, tmp_path / "cache")
    assert rows_by_content(run(album(tmp_path / "same"), tmp_path / "cache").tables[0]) == before
    drifted(3e-5)
    assert run(photos, tmp_path / "cache").computed == 1

    drifted(3e-4)
    photo(photos / "cat" / "newer.png", 78)
    assert run(photos, tmp_path / "cache", refresh=True).computed == 14


def test_row_14_one_grey_level_of_a_resize_is_not_mixed(tmp_path, monkeypatch):
    photos = album(tmp_path / "photos")
    run(photos, tmp_path / "cache")
    photo(photos / "cat" / "new.png", 77)
    resize = Image.Image.resize

    def newer_pillow(image, *arguments, **options):
        resized = resize(image, *arguments, **options)
        r, g, b = resized.getpixel((0, 0))
        resized.putpixel((0, 0), (r ^ 1, g, b))
        return resized

    assert resizing.Image is Image
    monkeypatch.setattr(Image.Image, "resize", newer_pillow)
    with pytest.raises(ProbeError, match=r"other pixels of the probe images .*Pillow.*--refresh"):
        run(photos, tmp_path / "cache")


def black_and_white(folder):
    for i, level in enumerate([0, 50, 255, 20]):
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (20, 20), (level,) * 3).save(folder / f"{i}.png")
    return folder


@pytest.mark.parametrize(
    ("network", "dtype", "bad"),
    [
        ("logarithm", "float32", ["0.png"]),
        ("undefined", "float32", ["0.png", "3.png"]),
        ("huge", "float32", []),
        ("huge", "float16", ["2.png"]),
    ],
    ids=["infinite", "not a number", "large in float32", "overflow of float16"],
)
def test_row_24_what_is_not_finite_is_an_error_and_never_a_row(tmp_path, network, dtype, bad):
    done = run(black_and_white(tmp_path / "photos"), tmp_path / "cache", network, dtype=dtype, max_errors="50%")

    (table,) = done.tables
    assert [name for name, _ in table.errors] == bad
    assert all("not finite" in reason for _, reason in table.errors)
    assert sorted([*table.ids, *bad]) == ["0.png", "1.png", "2.png", "3.png"]
    assert np.isfinite(table.X).all()
    assert table.dtype == dtype
    assert json.loads(json.dumps(table.errors)) == [[name, reason] for name, reason in table.errors]


def test_row_24_a_layer_is_not_robbed_of_rows_by_another_that_is_not_finite(tmp_path):
    photos, layers = black_and_white(tmp_path / "photos"), ("0", "1")
    options = Options(workers=0, engine="eager", batch_size=4, max_errors="50%")
    together = tiny_network.request("logarithm", layers=layers)
    done = extract(open_dataset(photos), together, cache=tmp_path / "cache", options=options)

    plain, logarithm = done.tables
    assert (len(plain), plain.errors) == (4, [])
    assert (len(logarithm), [name for name, _ in logarithm.errors]) == (3, ["0.png"])
    assert (done.computed, done.reused) == (4, 0)
    again = extract(open_dataset(photos), together, cache=tmp_path / "cache", options=options)
    assert (again.computed, again.reused) == (0, 4)


def test_row_24_layers_that_lose_different_images_count_each_once(tmp_path):
    photos = black_and_white(tmp_path / "photos")
    options = Options(workers=0, engine="eager", batch_size=4, max_errors="50%")
    request = tiny_network.request("crossed", layers=("0", "1"))
    done = extract(open_dataset(photos), request, cache=tmp_path / "cache", options=options)

    assert [[name for name, _ in table.errors] for table in done.tables] == [["0.png"], ["2.png"]]
    assert (done.computed, done.reused) == (4, 0)
