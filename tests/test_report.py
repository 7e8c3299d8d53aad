"""Reports: complete in one file, right about the model, and unmoved by names that mean harm."""

import io
import json
import re
import shutil
from base64 import b64decode
from collections import Counter
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import toy_report
from PIL import Image

import featx
from featx.cli import main
from featx.curation import less_probable
from featx.datasets import open_dataset
from featx.errors import DataError, MissingDataError
from featx.evaluation import evaluate, held_out
from featx.features import Features
from featx.model import Accuracy
from featx.reporting import report_predictions
from featx.reporting.choice import duplicates


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_report.make(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def page(toy):
    return toy.report(command="featx report model.featx -o report.html")


class _Elements(HTMLParser):
    """Collects the attributes of every element, and the text between them."""

    def __init__(self, text):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def values(self, name):
        return [attributes[name] for _, attributes in self.found if name in attributes]


def _data(page):
    return json.loads(re.search(r'id="page-data">(.*?)</script>', page.html, re.DOTALL)[1])


def test_no_reference_leaves_the_page(page):
    for forbidden in ("http://", "https://", "//cdn", "url(", "@import", "<iframe", "fetch(", "XMLHttpRequest"):
        assert forbidden not in page.html, forbidden
    elements = _Elements(page.html)
    assert [a for tag, a in elements.found if tag == "link"] == [{"rel": "icon", "href": "data:,"}]
    assert all(value.startswith(("#", "data:")) for value in elements.values("href"))
    assert elements.values("src") == []


def test_no_two_elements_have_one_id(page):
    ids = Counter(_Elements(page.html).values("id"))

    assert [name for name, n in ids.items() if n > 1] == []


def test_names_are_only_text(page):
    elements = _Elements(page.html)

    assert [tag for tag, _ in elements.found].count("script") == 2
    assert "<b>bold" not in page.html
    assert toy_report.CLASSES[0] in elements.text
    assert set(_data(page)["classes"]) == set(toy_report.CLASSES)


def test_an_id_cannot_end_the_script(toy):
    name = "</script><script>alert(2)</script>"
    rng = np.random.default_rng(0)
    table = Features.from_arrays(rng.normal(size=(40, 4)), [0, 1] * 20, ids=[f"{name}{i}" for i in range(40)])
    made = featx.report(featx.fit(table, "centroid"), table=table)

    assert "alert(2)</script>" not in made.html
    assert [tag for tag, _ in _Elements(made.html).found].count("script") == 2


def test_the_headline_is_what_evaluate_says(toy, page):
    found = evaluate(toy.model, toy.table)
    shown = _Elements(page.html).text.replace("\u202f", " ")

    assert f"{100 * found.accuracy.value:.1f} %" in shown
    assert f"{found.accuracy.n} test images" in shown
    assert np.array(_data(page)["confusion"]["counts"]).sum() == found.accuracy.n


def test_every_cell_of_the_confusion_matrix_has_its_own_images(toy, page):
    data = _data(page)
    label = {name: toy.table.classes[y] for name, y in zip(toy.table.ids, toy.table.y, strict=True)}
    for cell, rows in data["confusion"]["cells"].items():
        true, predicted = map(int, cell.split(","))
        for row in rows:
            name, truth, guess, probability = data["rows"][str(row)]
            assert (truth, guess) == (true, predicted)
            assert label[name] == data["classes"][true]
            assert 0 < probability <= 1
            assert str(row) in data["thumbnails"]


def test_a_thumbnail_shows_the_image_of_its_row(toy, page):
    data = _data(page)
    for row, (name, *_) in list(data["rows"].items())[:10]:
        shown = np.asarray(Image.open(io.BytesIO(b64decode(data["thumbnails"][row]))).convert("L"), dtype=float)
        original = np.asarray(Image.open(toy.images / name).convert("L"), dtype=float)
        assert np.abs(shown - original).mean() < 8


def test_an_image_with_other_content_is_not_shown(toy, page, tmp_path):
    edited = shutil.copytree(toy.images, tmp_path / "edited")
    name = _data(page)["rows"]["1"][0]
    Image.new("RGB", (16, 16), "red").save(edited / name)
    data = _data(toy.report(data=open_dataset(toy.csv, images=edited)))
    shown = {data["rows"][key][0] for key in data["thumbnails"]}

    assert name not in shown
    assert len(shown) > 50


def test_without_images_the_page_says_how_to_give_them(toy, tmp_path):
    elsewhere = toy.images.rename(tmp_path / "elsewhere")
    try:
        without = toy.report()
    finally:
        elsewhere.rename(toy.images)

    assert "--data DATA" in _Elements(without.html).text
    assert _data(without)["thumbnails"] == {}


def test_wrong_labels_are_suspected(toy, page):
    held = held_out(toy.model, toy.table)
    names = [str(name) for name in held.rows.ids]
    wrong = {i for i, name in enumerate(names) if int(name.split("-")[1][:-4]) % toy_report.MISLABELLED == 1}
    doubted = less_probable(held.y, toy.model.predict_proba(held.rows))[: len(wrong)]
    caught = sum(row in wrong for row in doubted.tolist())

    assert caught >= 0.7 * len(doubted)
    assert caught >= 0.5 * len(wrong)


def test_one_image_in_two_splits_or_under_two_labels_is_found(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "train" / "a").mkdir(parents=True)
    for folder in ("train/b", "test/a", "test/b"):
        (tmp_path / folder).mkdir(parents=True)
    for i, folder in enumerate(["train/a", "train/b", "test/a", "test/b"] * 2):
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(tmp_path / folder / f"{i}.png")
    (tmp_path / "test" / "a" / "twin.png").write_bytes((tmp_path / "train" / "a" / "0.png").read_bytes())
    table = featx.extract(
        tmp_path,
        backbone="shufflenet_v2_x0_5",
        weights="none",
        image_size=64,
        cache=tmp_path / "c",
        workers=0,
        engine="eager",
    )
    n, groups = duplicates(table)

    assert n == 1
    assert sorted(table.ids[groups[0]].tolist()) == ["test/a/twin.png", "train/a/0.png"]


def test_pictures_are_written_as_png_and_svg(page, tmp_path):
    paths = page.save_figures(tmp_path / "figures")
    names = {path.stem for path in paths}

    assert {"confusion", "confusion-normalized", "reliability", "classes", "map-pca", "predictions", "samples"} <= names
    for path in paths:
        if path.suffix == ".svg":
            assert ET.parse(path).getroot().tag.endswith("svg")
        else:
            with Image.open(path) as image:
                assert min(image.size) > 200


def test_a_notebook_shows_the_page_in_a_frame(toy, page):
    shown = page._repr_html_()

    assert len(repr(page)) < 100
    assert [tag for tag, _ in _Elements(shown).found] == ["iframe"]
    assert _Elements(shown).values("srcdoc") == [page.html]
    for thing in (toy.table, toy.model):
        assert "<script>" not in thing._repr_html_()
        assert toy_report.CLASSES[0] in _Elements(thing._repr_html_()).text


def test_a_comparison_becomes_a_leaderboard_with_its_best_model(toy, tmp_path):
    rows = [
        _row("mlp", 0.7, 0.72, model=None),
        _row("logreg", 0.9, 0.88, model="models/best.featx"),
        _row("<i>knn</i>", 0.5, None, model=None),
    ]
    (tmp_path / "comparison.json").write_text(json.dumps({"rows": rows, "best": rows[1]}))
    toy.model.save(tmp_path / "models" / "best.featx")
    made = featx.report(tmp_path)
    text = _Elements(made.html).text.replace("\u202f", " ")

    assert "90.0 %" in text
    assert "<i>knn</i>" in text
    assert "test images" in text
    assert {"leaderboard", "row-0-loss-epoch"} <= {drawing.name for drawing in made.drawings}
    order = [
        text.index(name)
        for name in ("vgg16 frozen, logistic regression, 50 images a class ★", "dense network", "<i>knn</i>")
    ]
    assert order == sorted(order)


def _row(head, val, test, model):
    return {
        "kind": "frozen", "backbone": "vgg16", "layer": "block3_pool", "pool": "flatten", "head": head, "image_size": 32,
        "images_per_class": 50, "train_accuracy": 1.0, "val_accuracy": val, "test_accuracy": test, "ci95": [val - 0.1, val + 0.1],
        "extract_seconds": 1.5, "fit_seconds": 0.5, "n_parameters": 1000, "settings": {}, "model": model,
        "mcnemar": None, "history": {"loss": [1.0, 0.5], "val_loss": [1.1, 0.7]}, "error": None,
    }  # fmt: skip


def test_several_models_are_set_side_by_side(toy, tmp_path):
    other = featx.fit(toy.table, "centroid")
    made = featx.report([other, toy.path])

    assert "Leaderboard" in _Elements(made.html).text
    assert "leaderboard" in {drawing.name for drawing in made.drawings}


def test_the_curves_of_every_model_are_shown_where_the_best_has_none(toy):
    """A head without epochs won; the networks beside it have curves all the same."""
    network = featx.fit(toy.table, "mlp", settings={"hidden": 4, "epochs": 2})
    made = featx.report([toy.model, network.with_report(val=Accuracy(10, 0))])
    found = _Elements(made.html)

    assert "curves" in found.values("id")
    assert {"row-1-loss-epoch", "row-1-accuracy-epoch"} <= {drawing.name for drawing in made.drawings}
    assert made.html.count('<figure class="plot">') > 2
    assert "dense network" in found.text


def test_ways_of_training_are_compared_over_numbers_of_images(toy, tmp_path):
    rows = [_row("logreg", 0.7, 0.7, model=None) | {"images_per_class": n, "kind": kind}
            for n in (5, 50) for kind in ("frozen", "scratch")]  # fmt: skip
    (tmp_path / "comparison.json").write_text(json.dumps({"rows": rows, "best": rows[0]}))
    made = featx.report(tmp_path)

    assert "shots" in {drawing.name for drawing in made.drawings}
    assert "Accuracy against training images a class: frozen, from scratch." in made.html


def test_what_is_no_comparison_is_refused(tmp_path):
    (tmp_path / "comparison.json").write_text("[]")

    with pytest.raises(DataError, match="featx compare"):
        featx.report(tmp_path)
    with pytest.raises(MissingDataError, match="featx compare DATA -o"):
        featx.report(tmp_path / "nothing.json")


def test_a_model_without_its_table_is_still_described(toy, tmp_path):
    lost = toy.model.with_report(table=str(tmp_path / "gone.h5"))
    made = featx.report(lost)

    assert "--data DATA" in _Elements(made.html).text
    assert toy.model.recipe.weights_digest in made.html


def test_a_page_tells_how_long_a_fit_took_as_long_as_that_is_known(toy):
    fitted = featx.fit(toy.table, "centroid")

    assert "fitting took" in _Elements(featx.report(fitted).html).text
    assert "fitting took" not in _Elements(featx.report(toy.path).html).text


def test_predictions_are_shown_by_class_and_by_confidence(toy):
    found = toy.model.classify(str(toy.images), workers=0, engine="eager")
    made = report_predictions(found, str(toy.images))
    data = _data(made)

    assert len(data["thumbnails"]) == len(data["rows"]) > 24
    assert "Least confident" in made.html
    for name, truth, predicted, _ in data["rows"].values():
        assert truth is None
        assert found.best[found.ids.index(name)] == predicted


def test_commands_write_reports(toy, tmp_path, capsys):
    cache = ["--cache", str(toy.cache)]
    page, figures = tmp_path / "new" / "r.html", tmp_path / "figures"

    assert main(["report", str(toy.path), "-o", str(page), "--figures", str(figures), "--json", *cache]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["report"] == str(page)
    assert len(told["figures"]) == len(list(figures.iterdir()))
    assert main(["evaluate", str(toy.path), "--report", str(tmp_path / "e.html"), "-q", *cache]) == 0
    how = ["--workers", "0", "--engine", "eager", "-q", *cache]
    assert main(["predict", str(toy.path), str(toy.images), "--report", str(tmp_path / "p.html"), *how]) == 0
    assert "Least confident" in (tmp_path / "p.html").read_text()
    assert "Confusion" in (tmp_path / "e.html").read_text()


def test_a_report_without_a_place_to_go_is_a_usage_error(toy):
    assert main(["report", str(toy.path)]) == 2
