"""Items: several images make one row, from a table or a CSV to a model file, predictions, evaluation and report."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image

import featx
from featx.cli import main
from featx.datasets import open_dataset
from featx.errors import DataError, ModelFileError, OptionError
from featx.features import Features
from featx.model import load
from featx.model.items import as_items, choose_combining

HOW = {"backbone": "alexnet", "weights": "none", "image_size": 64, "workers": 0}


def rooms(n=90, d=12, missing=0.15, seed=0):
    """Table of `n` homes with up to four rooms, each of which tells the price in a direction of its own, shuffled."""
    rng = np.random.default_rng(seed)
    price, directions = rng.normal(size=n), rng.normal(size=(4, d))
    there = [(i, s) for i in range(n) for s in range(4) if s == i % 4 or rng.random() > missing]
    there = [there[k] for k in rng.permutation(len(there))]
    X = np.array([price[i] * directions[s] + rng.normal(size=d) for i, s in there], np.float32)
    return Features.from_arrays(
        X, targets=[price[i] for i, _ in there], target_names=["price"], task="regress",
        items=[f"home {i}" for i, _ in there], slots=["abcd"[s] for _, s in there],
    )  # fmt: skip


def test_each_way_of_combining_makes_the_row_that_it_says():
    X = np.float32([[1, 5], [3, 1], [9, 9], [5, 3]])
    table = Features.from_arrays(X, [0, 0, 1, 0], items=["p", "p", "q", "p"], slots=["l", "r", "r", "l"])
    means = [[3, 3], [9, 9]]
    most = [[5, 5], [9, 9]]
    for how, rows in {"mean": means, "max": most, "attention": means, "mean+max": np.hstack([means, most])}.items():
        items = as_items(table, choose_combining(table, how))
        assert items.X.tolist() == np.asarray(rows).tolist()
        assert items.ids.tolist() == ["p", "q"]
        assert items.y.tolist() == [0, 1]
        assert items[[1, 0]].tolist() == np.asarray(rows)[[1, 0]].tolist()
    beside = as_items(table, choose_combining(table, "auto"))
    assert beside.X.tolist() == [
        [3, 4, 3, 1],
        [0, 0, 9, 9],
    ]  # two of one slot by their mean; none is for the fit to fill


@pytest.mark.parametrize("how", ["auto", "mean", "max", "mean+max", "attention", "none"])
def test_a_model_file_keeps_how_rows_become_items(how, tmp_path):
    table = rooms()
    model = featx.fit(table, "ridge", combine=how, val=0.3)
    again = load(model.save(tmp_path / "m.featx"))
    np.testing.assert_allclose(again.predict(table), model.predict(table))
    assert len(model.predict(table)) == (90 if how != "none" else len(table))
    assert model.report.val.value > 0.2
    assert model.save(tmp_path / "n.featx").read_bytes() == (tmp_path / "m.featx").read_bytes()


def test_a_missing_slot_counts_as_the_mean_of_training_rows():
    table = rooms(missing=0.4)
    model = featx.fit(table, "ridge")
    known = model.items.learned[0]["fill"]
    one = table.select([0])
    row = as_items(one, model.items).X.reshape(4, -1)
    there = "abcd".index(str(one.slots[0]))
    np.testing.assert_allclose(row[there], one.X[0])
    np.testing.assert_allclose(np.delete(row, there, 0), np.delete(known, there, 0))
    assert np.abs(known).max() > 0


def test_attention_finds_the_one_image_that_tells():
    rng = np.random.default_rng(0)
    n, size = 160, 30
    sick = np.arange(n) % 2
    X = rng.normal(size=(n, size, 16)).astype(np.float32)
    X[sick == 1, 0] += 4  # one tile of thirty
    items = np.repeat([f"slide {k}" for k in range(n)], size)
    table = Features.from_arrays(X.reshape(-1, 16), np.repeat(sick, size), items=items)
    test = np.repeat(np.arange(n) >= 100, size)
    right = {}
    for how in ("mean", "attention"):
        found = featx.fit(table.select(~test), "logreg", combine=how).predict(table.select(test))
        right[how] = (found == sick[100:].astype(str)).mean()
    assert right["attention"] > 0.95
    assert right["attention"] >= right["mean"]


def test_heads_are_tried_on_items_and_settings_on_folds_of_them(tmp_path):
    table = rooms()
    model = featx.fit(table, "auto", settings={"heads": "ridge,knn"})
    assert load(model.save(tmp_path / "m.featx")).predict(table) == pytest.approx(model.predict(table))
    folds = featx.fit(table, "ridge", cv=3, search="alpha=1,100", refit=True)
    assert len(folds.report.cv.scores) == 3
    assert len(folds.predict(table)) == 90


def test_images_of_one_item_must_agree():
    X = np.eye(4, dtype=np.float32)
    table = Features.from_arrays(X, [0, 1, 0, 1], classes=["old", "new"], items=["p", "p", "q", "q"])
    with pytest.raises(DataError, match=r"Item 'p' has images of class 'old' and of class 'new'.*--combine none"):
        featx.fit(table, "ridge")
    table = Features.from_arrays(X, [0, 0, 1, 1], items=["p", "p", "q", "q"], splits=["train", "val"] * 2)
    with pytest.raises(DataError, match="Item 'p' has images of split 'train' and of split 'val'"):
        featx.fit(table, "ridge")
    alone = Features.from_arrays(X, [0, 0, 1, 1])
    with pytest.raises(OptionError, match="--combine mean makes one row .* --item-column"):
        featx.fit(alone, "ridge", combine="mean")
    with pytest.raises(DataError, match="does not say which belong together"):
        featx.fit(rooms(), "ridge", combine="mean").predict(Features.from_arrays(np.zeros((2, 12))))


@pytest.fixture(scope="module")
def homes(tmp_path_factory):
    """Folder of 40 homes with up to three rooms, brighter where they cost more; with a CSV of them."""
    root, rng = tmp_path_factory.mktemp("homes"), np.random.default_rng(0)
    lines = ["file,home,room,price,size"]
    for home in range(40):
        price = 1 + 0.125 * (home % 8)
        for room in ("hall", "kitchen", "yard")[: 2 + home % 2]:
            pixels = rng.integers(0, 60, (16, 16, 3)) + 80 * price
            Image.fromarray(pixels.astype(np.uint8)).save(root / f"{home}_{room}.png")
            lines.append(f"{home}_{room}.png,h{home},{room},{price + 0.001},{home % 5}")
    (root / "homes.csv").write_text("\n".join(lines))
    return root


OPTIONS = [f"--{name.replace('_', '-')}={value}" for name, value in HOW.items()]
COLUMNS = ["--item-column", "home", "--slot-column", "room"]


@pytest.fixture(scope="module")
def made(homes, tmp_path_factory):
    """Cache and model file of `featx fit` on the homes."""
    root = tmp_path_factory.mktemp("made")
    code = main(
        ["fit", str(homes / "homes.csv"), *COLUMNS, "--label-column", "price", "--task", "regress", "--head", "ridge",
         "--cache", str(root), "-o", str(root / "m.featx"), "--json", "-q", *OPTIONS]
    )  # fmt: skip
    assert code == 0
    return root


def test_a_csv_of_items_is_predicted_a_row_an_item_with_what_it_says_of_them(homes, made, tmp_path, capsys):
    image = next(homes.glob("3_*.png"))
    command = ["predict", str(made / "m.featx"), str(homes / "homes.csv"), "--cache", str(made)]
    assert main([*command, *COLUMNS, "--csv", str(tmp_path / "out.csv"), "--workers", "0"]) == 0
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["home", "price", "size", "images", "price_by_model", "error"]
    assert [row["home"] for row in rows] == [f"h{k}" for k in range(40)]
    assert {row["images"] for row in rows} == {"2", "3"}
    capsys.readouterr()

    assert main([*command, *COLUMNS, "--json", "-q", "--workers", "0"]) == 0
    first = json.loads(capsys.readouterr().out)["predictions"][0]
    assert first["id"] == "h0"
    assert first["images"] == ["0_hall.png", "0_kitchen.png"]
    model = load(made / "m.featx")
    files = sorted(map(str, homes.glob("0_*.png")))
    alone = model.predict(files, items=["x"] * 2, slots=["hall", "kitchen"], workers=0)
    assert alone == pytest.approx([first["values"]["price"]], abs=1e-3)

    assert main([*command[:2], str(image), "--workers", "0"]) == 1
    assert "Say which images are of which: --item-column COLUMN" in capsys.readouterr().err


def test_a_room_that_cannot_be_read_is_a_missing_slot(homes, made, tmp_path):
    (tmp_path / "bad.png").write_text("no image")
    good = str(homes / "5_hall.png")
    found = load(made / "m.featx").classify(
        [good, str(tmp_path / "bad.png"), str(tmp_path / "bad.png")],
        items=["a", "a", "b"], slots=["hall", "yard", "hall"], workers=0,
    )  # fmt: skip
    assert found.ids == ("a", "b")
    assert np.isfinite(found.array[0]).all()
    assert "image" in found.errors[1]


def test_evaluation_and_report_are_of_items(made, capsys, tmp_path):
    model = load(made / "m.featx")
    found = featx.evaluate(model)
    assert len(found.truth) == model.report.val.n
    assert len(found.trained_on) == model.report.train.n
    page = featx.report(model).html
    assert page.count("data:image/jpeg") >= 1
    assert main(["evaluate", str(made / "m.featx"), "--csv", str(tmp_path / "e.csv"), "--cache", str(made)]) == 0
    assert (tmp_path / "e.csv").read_text().startswith("item,price,price_predicted")


def test_an_image_that_was_learned_from_marks_its_item_as_known(made):
    model = load(made / "m.featx")
    table = model.table()
    fewer = table.select(table.slots != "hall")
    with pytest.raises(DataError, match="trained on all"):
        featx.evaluate(model, fewer.select(np.isin(fewer.items, found_items(model, table))))


def found_items(model, table):
    trained = {row.tobytes() for row in model.trained_on}
    return [item for item, content in zip(table.items, table.item_ids, strict=True) if content.tobytes() in trained]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--slot-column", "room"], "--slot-column says what an image shows of its item. Name the items too"),
        (
            ["--item-column", "hmoe"],
            "has no column 'hmoe'. It has: file, home, room, price, size. Change --item-column",
        ),
        (["--item-column", "home", "--group-column", "room"], "Item 'h0' lies in the groups 'hall' and 'kitchen'"),
        (["--item-column", "home", "--item-by", "folder"], "--item-by and --item-column both make items"),
    ],
)
def test_wrong_items_get_one_helpful_line(homes, tmp_path, capsys, options, message):
    command = ["extract", str(homes / "homes.csv"), "--label-column", "price", "--dry-run", "--cache", str(tmp_path)]
    assert main([*command, *options]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_folders_are_items_and_an_item_is_on_one_side_of_every_split(homes, tmp_path):
    for path in homes.glob("*.png"):
        home = tmp_path / ("old" if int(path.name.split("_")[0]) % 2 else "new") / path.name.split("_")[0]
        home.mkdir(parents=True, exist_ok=True)
        (home / path.name).write_bytes(path.read_bytes())
    dataset = open_dataset(tmp_path, item_by="folder", val=0.3)
    assert dataset.items.tolist() == [name.rpartition("/")[0] for name in dataset.ids]
    sides = set(zip(dataset.items.tolist(), dataset.splits.tolist(), strict=True))
    assert len(sides) == 40
    assert "val" in dataset.splits


def test_what_is_about_single_images_refuses_items(homes, tmp_path):
    how = {"item_column": "home", "label_column": "room", "cache": tmp_path}
    with pytest.raises(OptionError, match="A comparison is about single images"):
        featx.compare(homes / "homes.csv", backbones=["alexnet"], heads=["ridge"], output=tmp_path, **how)
    with pytest.raises(OptionError, match="Fine-tuning is about single images"):
        featx.finetune(homes / "homes.csv", backbone="alexnet", **how)


def test_a_hostile_combination_is_refused(tmp_path):
    import dataclasses

    model = featx.fit(rooms(), "ridge")
    learned = ({"fill": model.items.learned[0]["fill"][:, :3].copy()},)
    bad = dataclasses.replace(model, items=dataclasses.replace(model.items, learned=learned))
    with pytest.raises(ModelFileError):
        load(bad.save(tmp_path / "m.featx")).predict(rooms())
    nothing = dataclasses.replace(model, items=dataclasses.replace(model.items, learned=()))
    with pytest.raises(ModelFileError, match="combines the images"):
        load(nothing.save(tmp_path / "m.featx"))
