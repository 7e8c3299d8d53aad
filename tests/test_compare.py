"""The transfer comparison: one pass for all layers, choice by validation, nested subsets, nothing done twice."""

import dataclasses
import json
import shutil
import types

import numpy as np
import pytest
from PIL import Image

import featx
from featx.cli import main
from featx.comparison.board import as_text, name_of
from featx.comparison.outcome import Row, Run, rank
from featx.comparison.plan import Trial
from featx.comparison.run import ComparisonContext
from featx.comparison.subsets import keep_shots, with_validation
from featx.datasets import open_dataset
from featx.errors import OptionError, UnknownBackboneError, UnknownHeadError, UnknownLayerError
from featx.recipe import Views

SMALL = {"weights": "none", "image_size": 64, "workers": 0, "engine": "eager"}
#: A class has this many images in train, val and test.
SIZES = {"train": 10, "val": 5, "test": 5}


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    """Folders train, val and test of small PNGs in three classes, noise tinted red, green or blue."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split, n in SIZES.items():
        for channel, name in enumerate(["red", "green", "blue"]):
            (root / split / name).mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 120, (20, 20, 3), dtype=np.uint8)
                pixels[..., channel] += rng.integers(0, 60, dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def compare(data, cache, **options):
    return featx.compare(
        data, **{"backbones": ["squeezenet1_1"], "heads": ["centroid"], "cache": cache, **SMALL, **options}
    )


def test_every_head_is_fitted_on_every_layer_from_one_pass(shots, tmp_path):
    steps = []
    board = compare(
        shots, tmp_path, layers=["default", "features.8"], heads=["centroid", "ridge"], on_progress=steps.append
    )

    assert {(row["layer"], row["head"]) for row in board.rows} == {
        (layer, head) for layer in ("features", "features.8") for head in ("centroid", "ridge")
    }
    assert max(step.done for step in steps if step.step == "extract") == 3 * sum(SIZES.values())
    assert len({row["extract_seconds"] for row in board.rows}) == 1


def test_rows_have_the_documented_form(shots, cache, tmp_path):
    board = compare(shots, cache, heads=["ridge", "mlp"], settings={"mlp": {"hidden": 8, "epochs": 2}}, output=tmp_path)
    kept = json.loads((tmp_path / "comparison.json").read_text())

    assert kept == json.loads(json.dumps(board.to_dict()))
    for row in kept["rows"]:
        assert {
            "kind", "backbone", "layer", "pool", "head", "image_size", "images_per_class", "train_accuracy",
            "val_accuracy", "test_accuracy", "ci95", "extract_seconds", "fit_seconds", "n_parameters", "settings", "name",
        } <= set(row)  # fmt: skip
        assert (row["kind"], row["image_size"], row["images_per_class"]) == ("frozen", 64, 10)
        assert row["ci95"][0] <= row["test_accuracy"] <= row["ci95"][1]
    (mlp,) = [row for row in kept["rows"] if row["head"] == "mlp"]
    assert mlp["n_parameters"] == 512 * 8 + 8 + 8 * 3 + 3
    assert len(mlp["history"]["val_accuracy"]) == 2
    assert kept["best"] == kept["rows"][0]


def test_models_of_a_comparison_predict_what_its_rows_say(shots, cache, tmp_path):
    board = compare(shots, cache, heads=["ridge"], output=tmp_path)
    model = featx.load(tmp_path / board.best["model"])

    labels = model.predict(shots / "test", workers=0)
    truth = [path.parent.name for path in sorted((shots / "test").rglob("*.png"))]
    assert np.mean(labels == np.array(truth)) == board.best["test_accuracy"]
    assert model.report["test"]["accuracy"] == board.best["test_accuracy"]


def test_validation_alone_chooses(shots, cache):
    with_test = compare(shots, cache, heads=["centroid", "ridge", "knn"])
    without = compare(shots, cache, heads=["centroid", "ridge", "knn"], test=False)

    assert [row["head"] for row in with_test.rows] == [row["head"] for row in without.rows]
    assert [row["val_accuracy"] for row in with_test.rows] == sorted(
        (row["val_accuracy"] for row in with_test.rows), reverse=True
    )
    assert {row["test_accuracy"] for row in without.rows} == {None}


def run_of(val, test, predicted):
    def part(accuracy):
        return {"n": 10, "accuracy": accuracy, "ci95": [0.0, 1.0]}

    return Run(
        seed=0, layer="features", pool="avg", image_size=32, train=part(1.0), val=part(val),
        test=None if test is None else part(test),
        predicted=predicted, extract_seconds=1.0, extract_seconds_now=0.0, fit_seconds=1.0, n_parameters=1,
        settings={}, history={}, model=None,
    )  # fmt: skip


def trial_of(head):
    return Trial(kind="frozen", backbone="toy", head=head, request=featx.Request(backbone="toy"))


DATA = {"classes": ["a", "b"], "judged": "test", "train": 10, "val": 10, "test": 6, "name": "toy"}


def test_a_high_test_accuracy_does_not_win():
    rows = [
        Row(trial_of("lucky"), [run_of(0.5, 1.0, [0] * 6)]),
        Row(trial_of("good"), [run_of(0.9, 0.5, [0] * 6)]),
    ]
    board = rank(rows, np.zeros(6, int), DATA)

    assert board.best["head"] == "good"


def test_each_row_is_tested_against_the_best_on_rows_that_both_could_read():
    rows = [
        Row(trial_of("best"), [run_of(0.9, 1.0, [0, 0, 0, 0, 0, 0])]),
        Row(trial_of("worse"), [run_of(0.8, 0.0, [1, 1, 1, 1, 1, 1])]),
        Row(trial_of("blind"), [run_of(0.7, 0.0, [-1, -1, -1, 1, 0, 0])]),
    ]
    board = rank(rows, np.zeros(6, int), DATA)

    assert [row["mcnemar"] for row in board.rows] == [None, pytest.approx(2 / 2**6), 1.0]


def test_each_way_of_training_has_a_line_over_the_images_that_it_had():
    def row(kind, n, val, test):
        run = dataclasses.replace(run_of(val, test, [0] * 6), train={"n": n * 2, "accuracy": 1.0, "ci95": [0.0, 1.0]})
        return Row(dataclasses.replace(trial_of("mlp"), kind=kind, shots=n), [run])

    rows = [
        row("frozen", 50, 0.8, 0.7),
        row("frozen", 5, 0.6, 0.5),
        row("frozen", 5, 0.7, 0.4),
        row("scratch", 5, 0.3, None),
    ]
    lines = rank(rows, np.zeros(6, int), DATA).to_dict()["lines"]

    assert [line["name"] for line in lines] == ["frozen", "from scratch"]
    assert (lines[0]["images_per_class"], lines[0]["accuracy"]) == ([5, 50], [0.4, 0.7])
    assert lines[1]["accuracy"] == [0.3]


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"kind": "frozen", "backbone": "vgg16", "layer": "fc1", "pool": "avg", "head": "logreg"},
         "vgg16 frozen at fc1, logistic regression"),
        ({"kind": "frozen", "backbone": "vgg16", "layer": "default", "pool": "max", "head": "my.module:Head"},
         "vgg16 frozen (max), my.module:Head"),
        ({"kind": "finetune", "backbone": "vgg16", "head": "one dense layer", "images_per_class": 1},
         "vgg16 fine-tuned, 1 image a class"),
        ({"kind": "finetune", "backbone": "vgg16", "head": "layers 256 relu"}, "vgg16 fine-tuned, new layers 256 relu"),
        ({"kind": "scratch", "backbone": "scratch/leaky", "head": "its own layers"}, "leaky from scratch"),
    ],
)  # fmt: skip
def test_rows_are_called_what_they_are(row, name):
    assert name_of(row) == name


def test_several_seeds_show_the_run_of_median_validation_and_the_range():
    runs = [run_of(val, test, [0] * 6) for val, test in ((0.7, 0.9), (0.8, 0.6), (0.6, 0.7))]
    (row,) = rank([Row(trial_of("mlp"), runs)], np.zeros(6, int), DATA).rows

    assert (row["val_accuracy"], row["test_accuracy"]) == (0.7, 0.9)
    assert (row["val_range"], row["test_range"]) == ([0.6, 0.8], [0.6, 0.9])


def test_few_images_are_among_those_of_more(shots):
    dataset = open_dataset(shots)
    few, more, other = (keep_shots(dataset, n, seed=seed) for n, seed in ((3, 0), (7, 0), (3, 1)))

    def trained(of):
        return {of.ids[i] for i in np.flatnonzero(of.splits == "train")}

    assert trained(few) < trained(more) < trained(dataset)
    assert trained(few) != trained(other)
    assert np.bincount(few.labels[few.splits == "train"]).tolist() == [3, 3, 3]
    for subset in (few, more):
        for split in ("val", "test"):
            assert (subset.splits == split).sum() == 3 * SIZES[split]


def test_a_part_of_a_dataset_has_the_images_of_its_rows(shots):
    dataset = open_dataset(shots)
    few = keep_shots(dataset, 2, seed=0)

    for i, (place, data) in enumerate(few.iterate(range(len(few)))):
        assert (place, data) == (i, dataset.read(list(dataset.ids).index(few.ids[i])))
    assert (few.stamps() == dataset.stamps()[np.isin(dataset.ids, few.ids)]).all()
    assert few.name != dataset.name


def test_validation_rows_are_the_same_for_every_row_whatever_it_trains_on(shots, cache):
    dataset = with_validation(open_dataset(shots / "train"))
    board = compare(shots / "train", cache, heads=["ridge"], shots=[2, None], seeds=[0, 1])

    assert (dataset.splits == "val").sum() == board.data["val"] == board.data[board.data["judged"]]
    assert {row["images_per_class"] for row in board.rows} == {2, round(board.data["train"] / 3)}


def test_a_finished_row_is_not_done_again(shots, cache, tmp_path):
    first = compare(shots, cache, heads=["ridge", "knn"], output=tmp_path)
    ages = {path: path.stat().st_mtime_ns for path in (tmp_path / "models").iterdir()}
    again = compare(shots, cache, heads=["ridge", "knn", "centroid"], output=tmp_path)

    assert all(path.stat().st_mtime_ns == age for path, age in ages.items())
    timing = {"extract_seconds_now", "mcnemar"}
    for row in first.rows:
        (same,) = [other for other in again.rows if other["head"] == row["head"]]
        assert {k: v for k, v in same.items() if k not in timing} == {k: v for k, v in row.items() if k not in timing}
        assert same["extract_seconds_now"] == 0


def test_another_setting_label_or_seed_is_another_run(shots, cache, tmp_path):
    compare(shots, cache, heads=["knn"], settings={"knn": {"k": 1}}, output=tmp_path)
    compare(shots, cache, heads=["knn"], settings={"knn": {"k": 3}}, output=tmp_path)
    compare(shots, cache, heads=["knn"], settings={"knn": {"k": 3}}, seeds=[1], output=tmp_path)
    compare(shots / "train", cache, heads=["knn"], settings={"knn": {"k": 3}}, output=tmp_path)

    assert len(list((tmp_path / "runs").iterdir())) == 4


def test_a_damaged_run_is_done_again(shots, cache, tmp_path):
    first, said = compare(shots, cache, output=tmp_path), []
    (path,) = (tmp_path / "runs").iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    again = compare(shots, cache, output=tmp_path, note=said.append)

    assert "as kept" not in said[-1]
    assert again.best["val_accuracy"] == first.best["val_accuracy"]
    compare(shots, cache, output=tmp_path, note=said.append)
    assert "as kept" in said[-1]


def test_runs_of_earlier_versions_are_found_under_the_same_names():
    """Folders written before this code was rewritten go on: what a name is made of must not change."""
    context = ComparisonContext(
        dataset=None, item_ids=None, tables="", folder=None, cache=None, views=Views(n=2, augment="flip")
    )
    context.__dict__["fingerprint"] = "f" * 64
    recipe = types.SimpleNamespace(key="k" * 64)
    request = featx.Request(backbone="toy")
    frozen = Trial(kind="frozen", backbone="toy", head="mlp", request=request, layer="default", pool="auto",
                   settings={"hidden": 8}, shots=5, seed=1, recipes=(recipe,))  # fmt: skip
    tuned = Trial(
        kind="finetune",
        backbone="toy",
        head="one dense layer",
        request=request,
        settings={"lr": 0.1},
        recipes=(recipe,),
    )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("featx.comparison.run.__version__", "0.1.0")
        assert context.key(frozen) == "9de61359e9363ba74426c9123e6a0227"
        assert context.key(tuned) == "d2750e3281dcf9f8cd1522444ded2fbf"


def test_a_backbone_that_cannot_take_the_images_is_a_row_with_its_reason(shots, cache):
    board = compare(shots, cache, backbones=["squeezenet1_1", "inception_v3"])
    good, bad = board.rows

    assert board.best is good
    assert bad["error"]["type"] == "ImageSizeError"
    assert bad["val_accuracy"] is None
    assert "75×75" in str(board)


def test_misspelt_names_end_it_before_anything_is_computed(shots, tmp_path):
    with pytest.raises(UnknownHeadError, match="ridge"):
        compare(shots, tmp_path, heads=["ridg"])
    with pytest.raises(UnknownLayerError):
        compare(shots, tmp_path, layers=["pool55"])
    with pytest.raises(OptionError, match="'mlp', which is not compared"):
        compare(shots, tmp_path, settings={"mlp": {"hidden": 8}})

    assert not list(tmp_path.rglob("*.h5"))


def test_an_image_that_cannot_be_read_costs_no_row_its_judges(tmp_path, cache, shots):
    data = tmp_path / "data"
    for path in shots.rglob("*.png"):
        target = data / path.relative_to(shots)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (data / "test" / "red" / "0.png").write_bytes(b"no image")
    board = compare(data, cache, heads=["ridge"], output=tmp_path / "out", max_errors="10%")

    assert featx.load(tmp_path / "out" / board.best["model"]).report["test"]["n"] == 14


def test_the_board_fits_the_terminal_and_keeps_what_tells_rows_apart(shots, cache):
    board = compare(shots, cache, layers=["features", "features.8"], heads=["centroid", "ridge"], shots=[5, None])
    rows = [row | {"is_best": row is board.best} for row in board.rows]

    for width in (60, 80, 120, 300):
        assert max(map(len, as_text(rows, width).splitlines())) <= width
    assert {"layer", "head"} <= set(as_text(rows, 60).split())
    assert {"backbone", "parameters", "pixels"} <= set(as_text(rows, 300).split())


def test_a_notebook_shows_names_as_text(shots, cache):
    board = compare(shots, cache, heads=["ridge"])
    board.rows[0]["head"] = "<script>"

    assert "<script>" not in board._repr_html_()
    assert "&lt;script&gt;" in board._repr_html_()


def test_compare_on_the_command_line(shots, cache, tmp_path, capsys):
    command = ["compare", shots, "--backbones", "squeezenet1_1", "--layers", "default,squeezenet1_1:features.8", "--heads", "ridge,mlp",
               "--set", "mlp.hidden=8", "--set", "mlp.epochs=2", "--shots", "5,all", "--weights", "none",
               "--image-size", 64, "--workers", 0, "--engine", "eager", "--scratch", "leaky", "--set", "leaky.epochs=1",
               "--finetune", "--ft-epochs", 1, "--ft-shots", 5, "--cache", cache, "-o", tmp_path / "out"]  # fmt: skip
    assert main([*map(str, command), "--json"]) == 0
    out = capsys.readouterr()

    found = json.loads(out.out)
    assert found == json.loads((tmp_path / "out" / "comparison.json").read_text())
    kinds = [(row["kind"], row["images_per_class"]) for row in found["rows"]]
    assert (len(kinds), kinds.count(("scratch", 10)), kinds.count(("finetune", 5))) == (11, 1, 1)
    assert {row["settings"].get("hidden") for row in found["rows"] if row["head"] == "mlp"} == {"8"}
    assert "squeezenet1_1 frozen at features.8, ridge regression, 5 images a class: validation" in out.err

    assert main(list(map(str, command))) == 0
    assert "as kept" in capsys.readouterr().err


def test_heads_learn_from_augmented_views_where_these_are_asked_for(shots, cache, tmp_path):
    plain = compare(shots, cache, heads=["ridge"], output=tmp_path)
    viewed = compare(shots, cache, heads=["ridge"], views=3, augment="flip,rotate=5", output=tmp_path)
    (model,) = (featx.load(tmp_path / row["model"]) for row in viewed.rows)

    assert len(list((tmp_path / "runs").iterdir())) == 2
    assert model.report["views"] == viewed.best["settings"]["views"] == 3
    assert "views" not in plain.best["settings"]
    assert viewed.best["val_accuracy"] is not None


ONE_EPOCH = {"epochs": 1, "lr": 1e-3}


def test_frozen_tuned_and_scratch_rows_learn_from_the_same_few_images(shots, cache, tmp_path):
    board = compare(
        shots, cache, heads=["ridge"], finetune=True, ft=ONE_EPOCH, scratch=["leaky"], settings={"leaky": ONE_EPOCH},
        shots=[4], output=tmp_path,
    )  # fmt: skip
    rows = {row["kind"]: row for row in board.rows}
    models = {kind: featx.load(tmp_path / row["model"]) for kind, row in rows.items()}
    taught = {kind: {item.tobytes() for item in model.trained_on} for kind, model in models.items()}

    assert set(rows) == {"frozen", "scratch", "finetune"}
    assert len(taught["frozen"]) == 12
    assert taught["frozen"] == taught["scratch"] == taught["finetune"]
    for kind, row in rows.items():
        assert row["images_per_class"] == 4
        assert row["mcnemar"] is None or 0 <= row["mcnemar"] <= 1
        assert models[kind].report["test"]["accuracy"] == row["test_accuracy"]
    assert (rows["scratch"]["image_size"], rows["finetune"]["image_size"]) == (32, 64)
    assert rows["finetune"]["n_parameters"] > 700_000 > 300 > rows["frozen"]["n_parameters"] // 10


def test_scratch_networks_are_trained_as_published_unless_something_else_is_said(shots, cache):
    board = compare(
        shots, cache, heads=[], scratch=["scratch/leaky-deep"], settings={"leaky-deep": {"epochs": "1"}}, shots=[4]
    )
    (row,) = board.rows

    told = {name: row["settings"][name] for name in ("optimizer", "eps", "lr", "batch_size", "epochs", "schedule")}
    assert told == {
        "optimizer": "adamax", "eps": 1e-7, "lr": 0.001, "batch_size": 32, "epochs": 1, "schedule": "none"
    }  # fmt: skip


def test_training_may_have_numbers_of_images_of_its_own(shots, cache):
    board = compare(
        shots, cache, heads=["ridge"], scratch=["leaky"], settings={"leaky": {**ONE_EPOCH, "shots": 3}}, shots=[2, 5]
    )

    assert {(row["kind"], row["images_per_class"]) for row in board.rows} == {
        ("frozen", 2), ("frozen", 5), ("scratch", 3)
    }  # fmt: skip


def test_a_training_that_was_stopped_goes_on_where_it_was(shots, cache, tmp_path):
    trained = {"heads": [], "scratch": ["leaky"], "settings": {"leaky": {"epochs": 3, "lr": 1e-3}}}
    whole = compare(shots, cache, **trained, output=tmp_path / "whole")
    steps = []

    def stop(progress):
        if progress.step != "decode":
            steps.append(progress.done)
            if len(steps) == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(shots, cache, **trained, output=tmp_path / "stopped", on_progress=stop)
    assert list((tmp_path / "stopped" / "runs").glob("*.checkpoint"))
    gone_on = compare(shots, cache, **trained, output=tmp_path / "stopped")

    assert gone_on.best["history"] == whole.best["history"]
    assert not list((tmp_path / "stopped" / "runs").glob("*.checkpoint"))


def test_a_comparison_that_was_stopped_keeps_the_rows_that_were_done(shots, cache, tmp_path):
    said = []

    def stop(text):
        said.extend([text] if ": validation" in text else [])
        if len(said) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(shots, cache, heads=["ridge", "knn", "centroid"], output=tmp_path, note=stop)
    said.clear()
    compare(shots, cache, heads=["ridge", "knn", "centroid"], output=tmp_path, note=said.append)

    assert [text.endswith("as kept") for text in said if ": validation" in text] == [True, True, False]


def test_a_misspelt_option_of_training_ends_it_before_anything_is_computed(shots, tmp_path):
    with pytest.raises(OptionError, match="epoch"):
        compare(shots, tmp_path, finetune=True, ft={"epoch": 1})
    with pytest.raises(OptionError, match="leaky has no setting 'epoch'"):
        compare(shots, tmp_path, scratch=["leaky"], settings={"leaky": {"epoch": 1}})
    with pytest.raises(UnknownBackboneError, match="leaky-deep"):
        compare(shots, tmp_path, scratch=["leaky-dep"])

    assert not list(tmp_path.rglob("*.h5"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--shots", "few"], ["--shots", "few"]),
        (["--shots", "0"], ["--shots"]),
        (["--seeds", "0,0"], ["--seeds"]),
        (["--set", "hidden=8"], ["NAME.KEY=VALUE"]),
        (["--backbones", "alexnett"], ["alexnet"]),
        (["--backbones", "alexnet", "--image-size", "16"], ["None of the", "63×63"]),
    ],
)
def test_what_cannot_be_compared_is_one_helpful_line(shots, cache, tmp_path, capsys, options, words):
    command = ["compare", shots, "--weights", "none", "--image-size", 64, "--cache", cache, "-o", tmp_path, "-q"]
    code = main([*map(str, command), *options])
    out = capsys.readouterr()

    assert (code, out.out) == (1, "")
    assert "Traceback" not in out.err
    for word in words:
        assert word in out.err


def test_two_names_of_one_layer_do_not_shift_the_others(shots, tmp_path):
    names = ["default", "features", "features.8"]
    alone = compare(shots, tmp_path, layers=["features.8"]).rows[0]
    rows = {row["layer"]: row for row in compare(shots, tmp_path, layers=names).rows}

    assert not any(row["error"] for row in rows.values())
    assert rows["features.8"]["n_parameters"] == alone["n_parameters"]
    assert rows["features.8"]["val_accuracy"] == alone["val_accuracy"]


def test_more_images_a_class_than_there_are_is_said(shots, cache):
    notes = []
    compare(shots, cache, shots=[10_000], note=notes.append)

    assert "no class has more than 10 images" in notes[0]


def test_a_model_that_cannot_be_kept_is_named_before_it_is_fitted(shots, cache, tmp_path):
    notes = []
    board = compare(shots, cache, heads=["ridge", "sklearn.svm.SVC"], output=tmp_path, note=notes.append)

    assert notes[0].startswith("No model is kept of sklearn.svm.SVC")
    assert {row["head"]: row["model"] is None for row in board.rows} == {"ridge": False, "sklearn.svm.SVC": True}


def test_images_in_two_splits_are_named(shots, tmp_path):
    copy = shutil.copytree(shots, tmp_path / "data")
    shutil.copy(copy / "train/red/0.png", copy / "test/red/again.png")
    notes = []
    compare(copy, tmp_path / "cache", note=notes.append)

    assert any("train" in note and "test" in note for note in notes)


def test_a_table_of_the_same_images_keeps_its_splits(shots, tmp_path):
    own = featx.extract(shots / "train", backbone="squeezenet1_1", cache=tmp_path, val=0.5, **SMALL)
    compare(shots / "train", tmp_path)

    assert sorted(featx.Features.open(own.path).splits) == ["train"] * 15 + ["val"] * 15
