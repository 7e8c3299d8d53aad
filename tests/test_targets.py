"""Several labels or numbers an image: from files and Python to a table, and what is said of wrong ones."""

import json

import numpy as np
import pytest
from PIL import Image

import featx
from featx.cli import main
from featx.datasets import open_dataset
from featx.errors import DataError, FeatxError
from featx.features import Features
from featx.targets import Targets

HOW = {"backbone": "alexnet", "weights": "none", "image_size": 64, "workers": 0}
N = 24


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Photos with tags in a cell, labels in columns of 0 and 1, and measurements; some cells are empty."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    lines = ["file,site,tags,cat,dog,price,rooms"]
    for i in range(N):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / f"{i:02}.png")
        tags = ["cat;dog", "cat", "", ";", " dog ; dog"][i % 5]
        price = "" if i == 7 else i / 4
        lines.append(f"{i:02}.png,s{i // 3},{tags},{i % 2},{int(i % 3 == 0)},{price},{i % 4}")
    (folder / "photos.csv").write_text("\n".join(lines))
    return folder / "photos.csv"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize(
    ("how", "task", "names", "first"),
    [
        ({"label_column": "tags", "label_separator": ";"}, "multilabel", ("cat", "dog"), [[1, 1], [1, 0], [-1, -1], [0, 0], [0, 1]]),
        ({"label_column": "cat,dog"}, "multilabel", ("cat", "dog"), [[0, 1], [1, 0], [0, 0], [1, 1], [0, 0]]),
        ({"label_column": "cat", "task": "multilabel"}, "multilabel", ("cat",), [[0], [1], [0], [1], [0]]),
        ({"label_column": "price"}, "regress", ("price",), [[0], [0.25], [0.5], [0.75], [1]]),
        ({"label_column": "rooms", "task": "regress"}, "regress", ("rooms",), [[0], [1], [2], [3], [0]]),
        ({"label_column": "rooms, price"}, "regress", ("rooms", "price"), [[0, 0], [1, 0.25], [2, 0.5], [3, 0.75], [0, 1]]),
    ],
)  # fmt: skip
def test_columns_of_a_csv_are_targets(photos, how, task, names, first):
    dataset = open_dataset(photos, **how)

    assert (dataset.task, dataset.targets.names, dataset.classes) == (task, names, ())
    assert np.nan_to_num(dataset.targets.array[:5], nan=-1).tolist() == first
    assert (dataset.labels == -1).all()
    assert open_dataset(**{**dataset.source, "data": dataset.source["data"]}).task == task  # as a report finds it again


def test_whole_numbers_stay_classes_and_rows_without_a_label_stay_rows(photos):
    assert open_dataset(photos, label_column="rooms").classes == ("0", "1", "2", "3")
    assert open_dataset(photos, label_column="rooms").targets is None
    targets = open_dataset(photos, label_column="price").targets
    assert np.flatnonzero(~targets.known).tolist() == [7]
    assert len(targets) == N


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"label_column": "tags", "task": "regress"}, "column 'tags' holds 'cat;dog' in row 2, where regress takes numbers"),
        ({"label_column": "cat,site"}, "column 'site' holds 's0' in row 2, where multilabel takes 0, 1 and nothing"),
        ({"label_column": "cat,price", "task": "multilabel"}, "holds '0.25' in row 3, where multilabel takes 0, 1 and nothing"),
        ({"label_column": "tags", "task": "multilabel"}, "--label-separator ';'"),
        ({"label_column": "site", "task": "multilabel"}, "--label-column a,b,c"),
        ({"label_column": "cat,dgo"}, "photos.csv has no column 'dgo'. It has: file, site, tags"),
        ({"label_column": "tags", "label_separator": ";", "task": "classify"}, "--label-separator makes more"),
        ({"label_column": "cat,price", "task": "classify"}, "several columns of labels make more"),
        ({"label_column": "cat,dog", "label_separator": ";"}, "Name one: --label-column COLUMN"),
        ({"label_column": "tags", "label_separator": ""}, "--label-separator is empty"),
        ({"task": "rank"}, "--task must be one of auto, classify, multilabel, regress; got 'rank'"),
    ],
)  # fmt: skip
def test_wrong_targets_get_one_helpful_line(photos, how, said):
    with pytest.raises(FeatxError) as raised:
        open_dataset(photos, **how)

    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_columns_with_nothing_to_learn_are_named(photos):
    text = photos.read_text().splitlines()
    table = photos.with_name("more.csv")
    table.write_text("\n".join([f"{text[0]},flat,empty", *(f"{line},3.5," for line in text[1:])]))
    for column, said in {"flat": "'flat' is 3.5 in every row", "price,empty": "'empty' is empty"}.items():
        with pytest.raises(DataError, match=said):
            open_dataset(table, label_column=column)


def test_lists_in_parquet_are_labels_by_the_names_that_it_gives_them(photos, tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images = [{"bytes": path.read_bytes(), "path": path.name} for path in sorted(photos.parent.glob("*.png"))[:3]]
    feature = {"_type": "Sequence", "feature": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    told = {"info": {"features": {"image": {"_type": "Image"}, "tags": feature}}}
    table = pa.table({"image": images, "tags": [[0, 1], [1], None], "json": ['["a"]', "[]", None], "size": [1.5, 2, 3]})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(told)}), tmp_path / "t.parquet")

    found = {name: open_dataset(tmp_path / "t.parquet", label_column=name).targets for name in ("tags", "json", "size")}
    assert found["tags"].names == ("cat", "dog")
    assert np.nan_to_num(found["tags"].array, nan=-1).tolist() == [[1, 1], [0, 1], [-1, -1]]
    assert np.nan_to_num(found["json"].array, nan=-1).tolist() == [[1], [0], [-1]]
    assert found["size"].task == "regress"


@pytest.mark.parametrize(
    ("labels", "task", "expected"),
    [
        ([[1, 1], [0, 1], [0, 0]], "multilabel", [[1, 1], [0, 1], [0, 0]]),
        ([["b", "a"], [], ["b"]], "multilabel", [[1, 1], [0, 0], [0, 1]]),
        ([1.5, 2, np.nan], "regress", [[1.5], [2], [-1]]),
        (np.array([[1.5, 2], [3, 4], [5, 6]]), "regress", [[1.5, 2], [3, 4], [5, 6]]),
        (np.eye(3), "classify", None),
        ([0, 1, 0], "classify", None),
    ],
)
def test_labels_in_python_are_targets(labels, task, expected):
    images = np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8)
    dataset = open_dataset(images, labels=labels)

    assert dataset.task == task
    assert expected is None or np.nan_to_num(dataset.targets.array, nan=-1).tolist() == expected
    assert dataset.name != open_dataset(images).name


def test_numbers_that_name_classes_are_numbers_to_a_regression(tmp_path):
    np.savez(tmp_path / "ages.npz", X=np.zeros((4, 8, 8), np.uint8), y=[30, 7, 30, -1])
    assert open_dataset(tmp_path / "ages.npz").classes == ("7", "30")
    assert open_dataset(tmp_path / "ages.npz", task="regress").targets.y[:3].tolist() == [30, 7, 30]
    with pytest.raises(DataError, match="--task multilabel"):
        open_dataset(tmp_path / "ages.npz", task="multilabel")
    np.savez(tmp_path / "f.npz", x_train=np.zeros((2, 8, 8), np.uint8), y_train=[0.5, 1], x_test=np.zeros((1, 8, 8)))
    assert np.nan_to_num(open_dataset(tmp_path / "f.npz").targets.array, nan=-1).tolist() == [[0.5], [1], [-1]]


def test_a_draw_has_its_share_of_each_label():
    rng = np.random.default_rng(0)
    labels = (rng.random((400, 3)) < [0.5, 0.3, 0.05]).astype(np.float32)
    images = rng.integers(0, 256, (400, 8, 8), dtype=np.uint8)
    drawn = open_dataset(images, labels=labels, val=0.25).splits == "val"

    assert labels[drawn].mean(axis=0) == pytest.approx(labels.mean(axis=0), abs=0.06)
    assert 4 <= labels[drawn, 2].sum() <= 6


def test_other_labels_over_the_same_images_cost_no_forward_pass(photos, cache, tmp_path):
    say = HOW | {"cache": cache}
    numbers = featx.extract(photos, label_column="price", val="0.25", group_column="site", **say)
    assert (numbers.task, numbers.target_names, numbers.classes) == ("regress", ("price",), ())
    assert np.isnan(numbers.targets).ravel().tolist() == [i == 7 for i in range(N)]
    sites = {split: set(numbers.groups[numbers.splits == split]) for split in ("train", "val")}
    assert sites["val"]
    assert not sites["val"] & sites["train"]

    words = [f"--{name.replace('_', '-')}={value}" for name, value in say.items()]
    assert main(["extract", str(photos), "--label-column", "tags", "--label-separator", ";", *words, "-q"]) == 0
    tagged = featx.extract(photos, label_column="tags", label_separator=";", **say)
    assert tagged.provenance["computed"] == 0
    assert tagged.target_names == ("cat", "dog")
    assert np.array_equal(tagged.X, numbers.X)
    again = featx.extract(photos, label_column="rooms", task="regress", **say)
    as_classes = featx.extract(photos, label_column="rooms", **say)
    assert (again.task, as_classes.task, as_classes.targets.shape) == ("regress", "classify", (N, 0))

    picked = tagged.select([3, 1])
    assert picked.targets.tolist() == [[0, 0], [1, 0]]
    X, y = numbers.split("train")
    assert y.shape == (len(X),)
    copy = Features.open(tagged.export(tmp_path / "copy.h5"))
    assert (copy.task, copy.target_names) == ("multilabel", ("cat", "dog"))
    assert np.array_equal(copy.targets, tagged.targets, equal_nan=True)
    assert np.load(numbers.export(tmp_path / "copy.npz"))["target_names"].tolist() == ["price"]
    assert "target_dog" in tagged.to_pandas().columns
    assert "multilabel: cat, dog" in repr(tagged)


@pytest.fixture(scope="module")
def tagged(photos, cache, tmp_path_factory):
    """Files of a model of labels and of one of numbers, from the command line."""
    folder = tmp_path_factory.mktemp("models")
    say = [f"--{name.replace('_', '-')}={value}" for name, value in (HOW | {"cache": cache}).items()]
    for name, how in {"tags": ["--label-separator", ";"], "rooms,price": []}.items():
        words = ["fit", str(photos), "--label-column", name, *how, "--val", "0.3", "--head", "ridge"]
        assert main([*words, "-o", str(folder / f"{name}.featx"), *say, "-q"]) == 0
    return folder


def test_models_of_the_command_line_predict_and_are_evaluated(photos, cache, tagged, tmp_path, capsys):
    say = ["--cache", str(cache), "-q"]
    numbers, labels = tagged / "rooms,price.featx", tagged / "tags.featx"
    assert main(["predict", str(numbers), str(photos.parent), "--csv", str(tmp_path / "p.csv"), *say]) == 0
    assert main(["predict", str(labels), str(photos), "--csv", str(tmp_path / "l.csv"), *say]) == 0
    lines = (tmp_path / "p.csv").read_text().splitlines()
    assert lines[0] == "file,rooms,price,error"
    assert len(lines) == N + 1
    assert [float(cell) for cell in lines[1].split(",")[1:3]]
    header, first, *_ = (tmp_path / "l.csv").read_text().splitlines()
    assert header == "file,site,tags,cat,dog,price,rooms,labels,cat_by_model,dog_by_model,error"
    assert first.startswith("00.png,s0,cat;dog,0,1,0.0,0,")
    capsys.readouterr()
    assert main(["predict", str(labels), str(photos.parent / "00.png"), "--json", *say]) == 0
    (found,) = json.loads(capsys.readouterr().out)["predictions"]
    assert set(found["labels"]) <= {"cat", "dog"}
    assert main(["predict", str(numbers), str(photos.parent / "00.png"), *say]) == 0
    assert "rooms" in capsys.readouterr().out
    assert main(["evaluate", str(numbers), "--json", "--csv", str(tmp_path / "e.csv"), *say]) == 0
    assert json.loads(capsys.readouterr().out)["per_target"][1]["name"] == "price"
    assert (tmp_path / "e.csv").read_text().startswith("file,rooms,rooms_predicted,price,price_predicted")
    for words in (["predict", str(labels), str(photos), "--csv", str(tmp_path / "x.csv"), "--format", "wide"],
                  ["predict", str(numbers), str(photos), "--min-probability", "0.5"],
                  ["evaluate", str(labels), "--hierarchy", str(photos)],
                  ["evaluate", str(labels), "--mislabelled", str(tmp_path / "x.csv")]):  # fmt: skip
        assert main([*words, *say]) == 1
        assert capsys.readouterr().err.count("\n") == 1


def test_reports_show_scores_pictures_and_images(tagged, tmp_path):
    labels, numbers = (featx.report(tagged / f"{name}.featx") for name in ("tags", "rooms,price"))
    assert [d.name for d in numbers.drawings] == ["predicted-0", "residuals-0", "predicted-1", "residuals-1"]
    assert "Predicted against true rooms" in numbers.html
    assert "average precision" in labels.html
    assert labels.html.count('class="shot"') == labels.html.count("<img data-thumb") > 0
    assert len(numbers.save_figures(tmp_path)) == 8


def test_tables_of_classes_have_nothing_new_in_their_file(photos, cache):
    table = featx.extract(photos, label_column="rooms", cache=cache, **HOW)
    h5py = pytest.importorskip("h5py")
    with h5py.File(table.path) as file:
        assert "task" not in file.attrs
        assert not {"targets", "target_names"} & set(file)
    numbers = featx.extract(photos, label_column="rooms,price", cache=cache, **HOW)
    with h5py.File(numbers.path) as file:
        assert (file.attrs["task"], file["targets"].shape) == ("regress", (N, 2))
        assert [name.decode() for name in file["target_names"]] == ["rooms", "price"]
        assert file.attrs["format"] == 1
        assert (file["y"][:] == -1).all()  # as an older featx reads them: rows without a class


def test_what_is_about_classes_refuses_targets(photos, tmp_path):
    for about in (featx.compare, featx.finetune):
        with pytest.raises(DataError, match="takes one class an image, and these have numbers"):
            about(photos, label_column="price", cache=tmp_path)


@pytest.mark.parametrize(
    ("array", "names", "task", "said"),
    [
        ([[1, 0]], ("a",), "multilabel", "a column for each of 1 names"),
        ([[1, 0]], ("a", "a"), "multilabel", "Two targets are called 'a'"),
        ([[1, 0]], ("a", "b"), "rank", "got 'rank'"),
    ],
)
def test_targets_are_checked(array, names, task, said):
    with pytest.raises(DataError, match=said):
        Targets(task, names, np.float32(array))


def test_tables_in_memory_take_targets():
    X = np.eye(4, dtype=np.float32)
    assert Features.from_arrays(X, targets=[0.5, 1, 2, np.nan]).task == "regress"
    assert Features.from_arrays(X, targets=[[0, 1]] * 4, target_names=["a", "b"]).task == "multilabel"
    assert Features.from_arrays(X, targets=[0, 1, 1, 0], task="regress").task == "regress"
    for wrong, said in [
        ({"targets": ["a"] * 4}, "Targets are numbers of shape"),
        ({"targets": [1, 2, 3, 4], "task": "multilabel"}, "Labels are 0 and 1"),
        ({"targets": [1, 2, 3]}, "X has 4 rows, targets has 3"),
        ({"targets": [1, 2, 3, 4], "y": [0, 0, 1, 1]}, "not both"),
    ]:
        with pytest.raises(DataError, match=said):
            Features.from_arrays(X, **wrong)
