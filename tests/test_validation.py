"""One validation draw: the same data and seed give the same rows in every command."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import featx
from featx.datasets import item_id

HOW = {"backbone": "alexnet", "weights": "none", "image_size": 64, "workers": 0}
SEED, VAL = 3, "0.3"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Thirty images of two classes, each there twice, a damaged one, and one in both classes."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for k in range(30):
        folder = root / "ab"[k % 2]
        folder.mkdir(exist_ok=True)
        image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        for copy in "xy":
            image.save(folder / f"{k}{copy}.png")
    (root / "a" / "damaged.png").write_bytes((root / "a" / "0x.png").read_bytes()[:60])
    (root / "b" / "also-a.png").write_bytes((root / "a" / "2x.png").read_bytes())
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def extracted(photos, cache):
    """Contents that ``extract --val`` takes for validation."""
    table = featx.extract(photos, val=VAL, seed=SEED, cache=cache, max_errors="50%", name="drawn", **HOW)
    drawn, others = (contents(table.item_ids[table.splits == split]) for split in ("val", "train"))
    assert len(table.errors) == 1
    assert len(drawn) >= 7
    assert not drawn & others
    return drawn


def contents(item_ids) -> set[bytes]:
    return {row.tobytes() for row in item_ids}


def test_fit_draws_the_rows_that_extract_draws(photos, cache, extracted):
    table = featx.extract(photos, cache=cache, seed=SEED, max_errors="50%", **HOW)
    model = featx.fit(table, "centroid", val=VAL, seed=SEED)

    assert set(table.splits.tolist()) == {""}
    assert contents(model.chosen_on) == extracted
    assert not contents(model.trained_on) & extracted


@pytest.mark.parametrize("how", [{}, {"from_cache": True, "unfreeze": "1"}])
def test_finetune_draws_the_rows_that_extract_draws(photos, cache, extracted, how):
    how = {**HOW, "epochs": 1, "init_head": "none", "max_errors": "50%", "cache": cache} | how
    model = featx.finetune(photos, val=VAL, seed=SEED, **how)

    assert contents(model.chosen_on) == extracted
    assert not contents(model.trained_on) & extracted


def test_compare_draws_the_rows_that_extract_draws(photos, cache, extracted, tmp_path):
    how = {name: value for name, value in HOW.items() if name != "backbone"}
    featx.compare(
        photos, backbones=["alexnet"], heads=["centroid"], val=VAL, seed=SEED, output=tmp_path, cache=cache,
        max_errors="50%", **how,
    )  # fmt: skip
    (path,) = (tmp_path / "models").iterdir()
    model = featx.load(path)

    assert contents(model.chosen_on) == extracted
    assert not contents(model.trained_on) & extracted


def test_without_a_share_all_draw_the_same_tenth(cache, tmp_path):
    images = np.random.default_rng(1).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    data = tmp_path / "images.npz"
    np.savez(data, X=images, y=np.arange(40) % 2)
    how = {name: value for name, value in HOW.items() if name != "backbone"}
    fitted = featx.fit(featx.extract(data, cache=cache, **HOW), "centroid")
    tuned = featx.finetune(data, epochs=1, init_head="none", cache=cache, **HOW)
    featx.compare(data, backbones=["alexnet"], heads=["centroid"], output=tmp_path, cache=cache, **how)
    (path,) = (tmp_path / "models").iterdir()
    drawn = featx.datasets.open_dataset(data, val=featx.datasets.DEFAULT_VAL)
    expected = {item_id(drawn.read(i)) for i in np.flatnonzero(drawn.splits == "val")}

    assert len(expected) == 4
    assert [contents(model.chosen_on) for model in (fitted, tuned, featx.load(path))] == [expected] * 3


@pytest.mark.parametrize(("n", "warned"), [(40, True), (400, False)])
def test_few_validation_rows_are_warned_of(n, warned):
    X = np.random.default_rng(0).normal(size=(n, 4))
    model = featx.fit(featx.Features.from_arrays(X, np.arange(n) % 2), "ridge")
    said = [text for text in model.report.warnings if "to validate on" in text]
    assert len(said) == warned
    if warned:
        n_val = model.report.val.n
        uncertain = f"accuracy there is uncertain by ±{100 / n_val**0.5:.0f} points."
        assert said == [f"Only {n_val} images to validate on: {uncertain}"]
