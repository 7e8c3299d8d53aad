"""What a model goes by: places of an image, from a score back through the head and the network."""

import numpy as np
import pytest
import torch
from PIL import Image

import featx
from featx import plots
from featx.errors import OptionError

SIDE = 96


LEFT, RIGHT = (slice(16, 48), slice(8, 40)), (slice(48, 80), slice(56, 88))  # down and across


def drawn(thing, pixels, place):
    """Draw a blue ring or a red cross on 32 × 32 pixels."""
    down, across = np.mgrid[-16:16, -16:16]
    ring, cross = np.abs(np.hypot(down, across) - 11) < 4, np.minimum(np.abs(down), np.abs(across)) < 4
    pixels[place][ring if thing == "ring" else cross] = (40, 60, 230) if thing == "ring" else (220, 40, 40)


@pytest.fixture(scope="module")
def images():
    """Noise with a ring or, every other time, a cross somewhere on it."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(90, 140, (60, SIDE, SIDE, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        top, left = rng.integers(0, SIDE - 32, 2)
        drawn(("ring", "cross")[i % 2], image, (slice(top, top + 32), slice(left, left + 32)))
    return pixels


@pytest.fixture(scope="module")
def both():
    """Four images of noise with a ring on the left and a cross on the right."""
    pixels = np.random.default_rng(1).integers(90, 140, (4, SIDE, SIDE, 3), dtype=np.uint8)
    for image in pixels:
        drawn("ring", image, LEFT)
        drawn("cross", image, RIGHT)
    return pixels


def fitted(images, head, cache, **options):
    tables = featx.extract(
        images, labels=["ring", "cross"] * (len(images) // 2), image_size=SIDE, cache=cache, **options
    )
    table = featx.join(tables) if isinstance(tables, list) else tables
    return featx.fit(table, head, val=0.2, settings={"epochs": 5} if head == "conv" else {})


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize(
    ("head", "options"),
    [
        ("logreg", {}),
        ("mlp", {"layer": "blocks.4"}),
        ("centroid", {"layer": "blocks.4"}),
        ("conv", {"layer": "blocks.4", "pool": "none"}),
        ("ridge", {"layer": ["blocks.2", "blocks.4", "default"]}),
    ],
)
def test_each_label_is_found_where_its_thing_is(images, both, cache, head, options):
    model = fitted(images, head, cache, **options)

    for label, here, there in (("ring", LEFT, RIGHT), ("cross", RIGHT, LEFT)):
        for one in featx.saliency(model, both, label).maps:
            assert one.max() == 1
            assert one.min() >= 0
            assert one[here].mean() > 2 * one[there].mean()


def test_on_an_averaged_map_places_add_up_to_the_score_but_for_a_constant(images, cache):
    pixels = images
    model = fitted(pixels, "logreg", cache)
    features = featx.extract(pixels[:6], image_size=SIDE, pool="none", cache=cache)  # (n, c, h, w)
    weights = np.diff(np.vstack([np.zeros_like(model.head.coef_), model.head.coef_]), axis=0)[0] / model.scaler.scale_
    cam = np.einsum("c,nchw->nhw", weights / 2, features.X)  # of the second class, above the mean of both

    maps = featx.saliency(model, pixels[:6], model.classes[1]).maps

    expected = torch.nn.functional.interpolate(
        torch.from_numpy(cam)[:, None].float(), (SIDE, SIDE), mode="bilinear", align_corners=False
    )[:, 0].numpy()
    expected = expected.clip(0) / np.maximum(expected.max((1, 2), keepdims=True), 1e-30)
    assert np.allclose(maps, expected, atol=1e-4)


def test_a_class_token_took_something_from_the_patches(images, cache):
    pixels = images
    model = fitted(pixels[:12], "ridge", cache, backbone="timm/vit_tiny_patch16_224", weights="none")

    seen = featx.saliency(model, pixels[:3])

    assert (seen.maps.max((1, 2)) == 1).all()
    assert (np.unique(seen.maps[0]).size) > 6 * 6
    assert seen.labels == tuple(model.predict(list(pixels[:3])))


def test_one_label_for_all_is_asked_for_of_each_and_no_image_is_no_map(images, cache):
    model = fitted(images, "logreg", cache)

    assert featx.saliency(model, images[:2], "cross").labels == ("cross", "cross")
    assert featx.saliency(model, []).maps.shape == (0, SIDE, SIDE)


@pytest.mark.parametrize(
    ("head", "label", "told"),
    [
        ("logreg", "crosss", "label must be one of cross, ring"),
        ("logreg", ["ring"], "There are 1 labels for 2 images: give one for all or one for each."),
        ("xgboost", None, "A xgboost head has no gradients. One that has: featx fit --head logreg"),
    ],
)
def test_what_cannot_be_shown_is_said(images, cache, head, label, told):
    with pytest.raises(OptionError, match=told):
        featx.saliency(fitted(images, head, cache), images[:2], label)


def test_heads_that_vote_are_asked_one_by_one(images, cache):
    together = featx.ensemble([fitted(images, head, cache) for head in ("logreg", "ridge")])

    with pytest.raises(OptionError, match="in this model several vote"):
        featx.saliency(together, images[:2])


def test_a_model_of_rows_has_seen_no_image():
    table = featx.Features.from_arrays(np.random.default_rng(0).random((40, 3)), np.arange(40) % 2)

    with pytest.raises(OptionError, match="without a recipe"):
        featx.saliency(featx.fit(table, "ridge"), [])


def test_beside_each_image_stands_what_counts_in_it(images, cache):
    seen = featx.saliency(fitted(images, "logreg", cache), images[:3])

    ax = plots.plot_saliency(seen, wrong=[False, True, False], columns=2)

    assert len(ax.images) == 6
    assert [text.get_text() for text in ax.texts][::2] == list(seen.labels)
    assert ax.texts[2].get_color() != ax.texts[0].get_color()
    dim = seen.overlays()[seen.maps == 0]
    assert (dim == dim[:, :1]).all(), "grey"
    assert (seen.overlays()[seen.maps == 1] == seen.images[seen.maps == 1]).all()


def test_a_report_shows_it_where_it_is_asked_for(tmp_path, images, cache):
    for i, pixels in enumerate(images):
        path = tmp_path / "data" / ("test" if i < 20 else "train") / ("ring", "cross")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    table = featx.extract(str(tmp_path / "data"), image_size=SIDE, cache=tmp_path / "cache")
    model = featx.fit(table, "ridge")

    shown, plain = (featx.report(model, table=table, saliency=asked) for asked in (True, False))

    assert [one.name for one in shown.drawings if one not in plain.drawings and one.name == "saliency"] == ["saliency"]
    assert "What the model goes by" in shown.html
    assert "What the model goes by" not in plain.html
