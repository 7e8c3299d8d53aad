"""The command line as a user types it: outputs, exit codes, one-line errors."""

import json
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest
from PIL import Image
from toy_images import write_photos

from featx.cli import cli, main
from featx.cli.common import ProgressLine, facts
from featx.progress import Progress


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATX_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def featx(capsys, *args):
    """Run one command; return its exit status, stdout and stderr."""
    code = main([str(arg) for arg in args])
    out = capsys.readouterr()
    return code, out.out, out.err


def featx_json(capsys, *args):
    code, out, err = featx(capsys, *args, "--json")
    assert code == 0, err
    return json.loads(out)


SMALL = ("--image-size", "32", "--workers", "0", "--engine", "eager")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A cache with the rows of `photos`."""
    folder = tmp_path_factory.mktemp("rows")
    command = ["extract", write_photos(folder / "photos"), *SMALL, "--cache", folder / "cache", "-q"]
    assert main(list(map(str, command))) == 0
    return folder / "cache"


@pytest.fixture
def found(rows, tmp_path):
    """The rows of `photos` are in the cache, so that their extraction computes nothing."""
    shutil.copytree(rows, tmp_path / "cache")


computed_before = pytest.mark.usefixtures("found")


def test_the_whole_line_from_photos_to_labels(capsys, photos, tmp_path):
    """extract → fit → predict → evaluate, each the next command a user would type."""
    extracted = featx_json(capsys, "extract", photos, *SMALL)
    assert (extracted["images"], extracted["computed"], extracted["errors"]) == (12, 12, 0)
    assert extracted["tables"][0]["shape"] == [12, 1280]

    fitted = featx_json(capsys, "fit", "--head", "centroid", "-o", "model.featx")
    assert fitted["table"] == extracted["tables"][0]["path"]
    assert fitted["train"]["n"] + fitted["val"]["n"] == 12
    assert fitted["test"] is None

    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    paths = [photos / "red" / "0.jpg", photos / "blue" / "3.jpg", photos / "broken.jpg"]
    predicted = featx_json(capsys, "predict", "model.featx", *paths, "--workers", "0")["predictions"]
    assert [p["label"] for p in predicted] == ["red", "blue", None]
    assert predicted[2]["error"]
    assert predicted[0]["top"][0][1] == predicted[0]["probability"]

    evaluated = featx_json(capsys, "evaluate", "model.featx")
    assert evaluated["n"] + evaluated["trained_on"]["n"] == 12


def test_an_extraction_says_where_its_limit_was_if_it_computed_anything(capsys, photos):
    code, out, _ = featx(capsys, "extract", photos, *SMALL)

    assert code == 0
    assert "The limit was" in out.splitlines()[-1]
    assert "The limit was" not in featx(capsys, "extract", photos, *SMALL)[1]


def test_the_limit_says_what_a_faster_extraction_would_need(monkeypatch):
    module = import_module("featx.cli.extract")
    advice = "The limit was reading and decoding: 50 % of the time it waited for images. Large JPEGs decode faster with"

    assert module._limit_text(0.1) == "The limit was the network: 10 % of the time it waited for images."
    assert module._limit_text(0.5) == f"{advice} --decode draft."
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert module._limit_text(0.5) == f"{advice} --decode draft, images resize faster after pip install 'featx[fast]'."


@computed_before
def test_predict_from_the_table_and_from_the_images_agree(capsys, photos):
    table = featx_json(capsys, "extract", photos, *SMALL)["tables"][0]["path"]
    featx_json(capsys, "fit", table, "--head", "logreg", "-o", "m.featx")

    from_table = featx_json(capsys, "predict", "m.featx", table)["predictions"]
    from_images = featx_json(capsys, "predict", "m.featx", photos, "--workers", "0")["predictions"]

    assert [p["label"] for p in from_table] == [p["label"] for p in from_images]
    for a, b in zip(from_table, from_images, strict=True):
        assert a["id"] == b["id"]
        assert a["probability"] == pytest.approx(b["probability"], abs=1e-4)


@computed_before
def test_predict_in_another_process_prints_label_and_probability(capsys, photos, tmp_path):
    featx_json(capsys, "extract", photos, *SMALL)
    featx_json(capsys, "fit", "--head", "logreg", "-o", "m.featx")
    Image.open(photos / "green" / "1.jpg").save(tmp_path / "photo.png")

    done = subprocess.run(
        [sys.executable, "-m", "featx", "predict", "m.featx", "photo.png"],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip

    assert "green" in done.stdout
    assert "%" in done.stdout


@computed_before
def test_predictions_are_written_in_three_csv_forms(capsys, photos, tmp_path):
    featx_json(capsys, "extract", photos, *SMALL)
    featx_json(capsys, "fit", "--head", "centroid", "-o", "m.featx")
    (tmp_path / "sample.csv").write_text("id,red,blue,green\n1,0,0,0\n0,0,0,0\n")

    forms = {
        "long": ("id,rank,label,probability,error", 12),
        "wide": ("id,label,probability,error,blue,green,red", 4),
        "submission": ("id,red,blue,green", 2),  # two of the four images of the folder are in the sample
    }
    for form, (header, n) in forms.items():
        sample = ["--sample", "sample.csv"] if form == "submission" else []
        source = photos / "red"
        code, _, err = featx(capsys, "predict", "m.featx", source, "--csv", "p.csv", "--format", form, *sample)

        assert code == 0, err
        first, *others = (tmp_path / "p.csv").read_text().splitlines()
        assert (first, len(others)) == (header, n)


def test_extract_without_data_says_loudly_that_digits_stand_in(capsys):
    code, _, err = featx(capsys, "extract", "--dry-run", *SMALL)

    assert code == 0
    assert "stand-in" in err
    assert "featx extract photos/" in err


def test_vgg16_out_of_reach_says_what_to_type_instead(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    code, _, err = featx(capsys, "extract", "digits", "--backbone", "vgg16")

    assert code == 1
    (line,) = [line for line in err.splitlines() if line.startswith("Error")]
    assert "--weights none" in line
    assert "--backbone efficientnet_lite0" in line


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["extract", "nowhere/"], ["nowhere"]),
        (["extract", "empty/"], ["empty", "image"]),
        (["extract", "digits", "--backbone", "resnet5"], ["Did you mean 'resnet50'", "featx backbones"]),
        (["extract", "digits", "--layer", "blocks.99"], ["blocks.99", "featx layers"]),
        (["extract", "digits", "--pool", "mean"], ["--pool", "avg"]),
        (["extract", "digits", "--precision", "fp64"], ["--precision", "fp32"]),
        (["extract", "digits", "--normalize", "sideways"], ["--normalize", "unit"]),
        (["extract", "digits", "--image-size", "zero"], ["image-size"]),
        (["extract", "digits", "--max-errors", "some"], ["--max-errors", "1%"]),
        (["extract", "digits", "--weights", "nowhere.pth"], ["nowhere.pth"]),
        (["extract", "digits", "--backbone", "inception_v3", "--weights", "none", "--image-size", "32"],
         ["75×75", "got 32×32", "Drop --image-size"]),
        (["fit"], ["featx extract"]),
        (["fit", "nowhere.h5"], ["nowhere.h5"]),
        (["predict", "nowhere.featx", "a.jpg"], ["nowhere.featx"]),
        (["evaluate", "nowhere.featx"], ["nowhere.featx"]),
        (["layers", "vgg161"], ["vgg16"]),
        (["cache", "gc", "--max-size", "huge"], ["2GiB"]),
    ],
)  # fmt: skip
def test_a_wrong_value_is_one_helpful_line_and_exit_1(capsys, tmp_path, args, words):
    (tmp_path / "empty").mkdir()
    code, out, err = featx(capsys, *args, "-q")

    assert (code, out) == (1, "")
    assert "Traceback" not in err
    assert "unexpected" not in err
    assert len([line for line in err.splitlines() if line.startswith("Error")]) == 1
    for word in words:
        assert word in err


@pytest.mark.parametrize(
    "wrong",
    [("--head", "logref"), ("--protocol", "nosuch"), ("--set", "hiden=3"), ("--search", "C="), ("--memory", "lots")],
)
def test_what_cannot_be_fitted_is_refused_before_any_image_is_computed(capsys, photos, tmp_path, wrong):
    code, _, err = featx(capsys, "fit", photos, *SMALL, *wrong)

    assert (code, err.count("\n")) == (1, 1)
    assert not (tmp_path / "cache").exists()


@computed_before
def test_evaluation_judges_the_models_own_table_and_fits_go_on_with_theirs(capsys, photos):
    own = featx_json(capsys, "extract", photos, *SMALL)["tables"][0]["path"]
    featx_json(capsys, "fit", "--head", "centroid", "-o", "model.featx")
    other = featx_json(capsys, "evaluate", "model.featx", photos, "--name", "other", "--workers", "0")["table"]

    assert other != own
    assert featx_json(capsys, "fit", "--head", "centroid")["table"] == own
    featx_json(capsys, "extract", photos, "--name", "other", *SMALL)
    assert featx_json(capsys, "evaluate", "model.featx")["table"] == own


@pytest.mark.parametrize("command", ["list", "verify", "gc"])
def test_a_cache_that_is_not_there_is_not_taken_for_an_empty_one(capsys, command):
    code, _, err = featx(capsys, "cache", command, "--cache", "nowhere")

    assert (code, err) == (1, "Error: There is no cache at nowhere. Name it: --cache DIR, or fill it: featx extract\n")


def test_what_a_csv_is_for_needs_a_csv(capsys, tmp_path):
    code, _, err = featx(capsys, "predict", "model.featx", "a.jpg", "--format", "wide")

    assert code == 2
    assert "--csv OUT" in err


@computed_before
def test_a_device_that_is_not_there_is_an_error_even_if_nothing_is_computed(capsys, photos):
    featx_json(capsys, "extract", photos, *SMALL)

    code, _, err = featx(capsys, "extract", photos, *SMALL, "--device", "cuda:99")

    assert (code, "Type --device cpu" in err) == (1, True)


def test_export_of_what_is_no_table_says_so(capsys, photos):
    code, _, err = featx(capsys, "export", photos, "-o", "o.npz")

    assert (code, err) == (1, f"Error: {photos} is no table. Name its .h5 file; all of them: featx cache list\n")


@computed_before
def test_one_class_and_no_labels_and_unknown_heads_say_so(capsys, photos):
    featx_json(capsys, "extract", photos / "red", *SMALL)
    code, _, err = featx(capsys, "fit", "-q")
    assert code == 1
    assert "label" in err

    for name in ("green", "blue"):
        for path in (photos / name).iterdir():
            path.unlink()
        (photos / name).rmdir()
    featx_json(capsys, "extract", photos, *SMALL)
    code, _, err = featx(capsys, "fit", "-q")
    assert code == 1
    assert "class" in err

    code, _, err = featx(capsys, "fit", "--head", "xgbost", "-q")
    assert code == 1
    assert "Did you mean 'xgboost'" in err


def test_two_tables_to_choose_from_are_listed(capsys, photos):
    tables = featx_json(capsys, "extract", photos, "--layer", "blocks.2", "--layer", "blocks.6", *SMALL)["tables"]

    code, _, err = featx(capsys, "fit", "-q")

    assert code == 1
    for table in tables:
        assert table["path"] in err


@pytest.mark.parametrize("args", [["extrct"], ["extract", "--bakcbone", "x"], ["predict"], ["fit", "a", "b", "c"]])
def test_a_wrong_command_or_option_is_usage_and_exit_2(capsys, args):
    assert featx(capsys, *args)[0] == 2


def test_json_errors_are_one_object(capsys):
    code, out, _ = featx(capsys, "extract", "nowhere/", "--json")

    assert code == 1
    assert json.loads(out)["error"]["type"] == "MissingDataError"


def test_every_command_is_described_with_an_example(capsys):
    def commands(group, path=()):
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if isinstance(command, click.Group):
                yield from commands(command, (*path, name))
            yield (*path, name), command

    for path, command in commands(cli):
        assert f"featx {path[0]}" in command.help, path


def test_layers_lists_keras_names_and_shapes(capsys):
    layers = {e["keras"]: e for e in featx_json(capsys, "layers", "vgg16", "--image-size", "32")["layers"]}

    assert layers["block3_pool"]["shape"] == [256, 4, 4]
    assert layers["block5_pool"]["shape"] == [512, 1, 1]
    assert 0 < layers["block3_pool"]["share"] < layers["block5_pool"]["share"] <= 1


def test_heads_and_backbones_are_listed(capsys):
    assert {"mlp", "logreg", "xgboost", "knn", "ridge", "centroid", "svm", "conv"} <= {
        head["name"] for head in featx_json(capsys, "heads")["heads"]
    }
    assert "vgg16" in [b["name"] for b in featx_json(capsys, "backbones", "vgg")["backbones"]]


def test_the_demo_ranks_by_validation():
    def report(head, accuracy):
        scores = {"accuracy": accuracy, "ci95": [0.9, 1.0]}
        return {"head": head, "train": scores, "val": scores, "n_parameters": 1, "seconds": 0.1}

    board = import_module("featx.cli.demo")._leaderboard([report("mlp", 0.953), report("logreg", 1.0)])

    assert board.index("logreg  100.0 %") < board.index("mlp      95.3 %")


def test_the_cache_can_be_listed_verified_exported_and_cleared(capsys, photos, tmp_path):
    path = featx_json(capsys, "extract", photos, *SMALL)["tables"][0]["path"]

    (entry,) = featx_json(capsys, "cache", "list")["entries"]
    assert (entry["path"], entry["shape"]) == (path, [12, 1280])
    assert featx_json(capsys, "cache", "verify")["damaged"] == []
    assert featx_json(capsys, "cache", "info")["classes"] == {"blue": 4, "green": 4, "red": 4, "unlabelled": 0}
    assert featx_json(capsys, "export", "-o", "t.npz")["rows"] == 12
    featx_json(capsys, "cache", "rm", path)
    assert featx_json(capsys, "cache", "list")["entries"] == []


def test_a_flipped_bit_is_found_named_and_repaired(capsys, photos, tmp_path):
    path = featx_json(capsys, "extract", photos, *SMALL)["tables"][0]["path"]
    data = bytearray(Path(path).read_bytes())
    data[len(data) // 2] ^= 1
    Path(path).write_bytes(data)

    code, _, err = featx(capsys, "cache", "verify", "-q")
    assert code == 1
    assert path in err
    assert err.count("featx cache verify --repair") == 1
    assert f"--repair --cache {tmp_path / 'cache'}," in err

    featx_json(capsys, "cache", "verify", "--repair")
    assert featx_json(capsys, "extract", photos, *SMALL)["images"] == 12
    assert featx_json(capsys, "cache", "verify")["damaged"] == []


@pytest.fixture
def table(capsys, found, photos):
    """A table in the cache."""
    return Path(featx_json(capsys, "extract", photos, *SMALL)["tables"][0]["path"])


def test_fit_refuses_to_ignore_options_of_an_extraction(capsys, table):
    code, _, stderr = featx(capsys, "fit", table, "--backbone", "vgg16", "--head", "ridge")

    assert code == 1
    assert "--backbone says how features are made" in stderr


def test_a_model_is_never_judged_on_another_table_unasked(capsys, table, tmp_path):
    featx(capsys, "fit", table, "--head", "ridge", "-o", "m.featx")
    table.rename(tmp_path / "elsewhere.h5")
    code, _, stderr = featx(capsys, "evaluate", "m.featx")

    assert code == 1
    assert "is not there any more" in stderr
    assert featx(capsys, "evaluate", "m.featx", "elsewhere.h5")[0] == 0


def test_a_name_that_is_too_long_is_called_that(capsys, table):
    code, _, err = featx(capsys, "export", "-o", f"{'a' * 300}.npz", "-q")

    assert code == 1
    assert "File name too long. File systems take 255 bytes a name: choose a shorter one." in err


def test_nothing_is_exported_into_a_cache(capsys, table):
    before = table.read_bytes()
    code, _, stderr = featx(capsys, "export", table, "-o", table)

    assert code == 1
    assert "is in a cache" in stderr
    assert table.read_bytes() == before


def test_off_a_terminal_the_first_results_after_long_preparations_are_said_at_once(capsys):
    line = ProgressLine()
    for progress in (Progress("extract", done, 60_000, done / 100) for done in (0, 128, 256)):
        line(progress)

    assert capsys.readouterr().err == f"extract {facts(Progress('extract', 128, 60_000, 1.28))}\n"


@computed_before
def test_a_fit_names_images_that_it_learns_from_and_is_scored_on(capsys, photos, tmp_path):
    for split in ("train", "test"):
        for image in photos.glob("*/*"):
            copy = tmp_path / "split" / split / image.parent.name / image.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(image.read_bytes())
    featx_json(capsys, "extract", tmp_path / "split", *SMALL)
    asked = ("fit", "--head", "centroid", "--val", "0", "-o", tmp_path / "m.featx")

    assert featx_json(capsys, *asked)["warnings"] == []  # nothing is scored on the test split
    code, out, err = featx(capsys, *asked, "--test")
    assert code == 0, err
    assert "Warning: 12 images are in train and in test" in err
    assert "Warning" not in out


def commands(group=cli, path=()):
    """Yield the words and the click command of everything that can be typed."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


#: What each command with numbers is given, so that a number it takes is followed by another error at once.
ON_NOTHING = {
    "extract": ["nowhere/"], "fit": ["nowhere.h5"], "predict": ["nowhere.featx", "a.jpg"],
    "evaluate": ["nowhere.featx"], "finetune": ["nowhere/"], "compare": ["nowhere/"], "layers": ["nosuchnet"],
    "search": ["nowhere.h5", "a.jpg"], "duplicates": ["nowhere.h5"], "doubts": ["nowhere.h5"], "suggest": ["nowhere.h5"],
    "serve": ["nowhere.featx"], "drift": ["nowhere.featx", "nowhere/"], "explore": ["nowhere.h5"],
    "ensemble": ["nowhere.featx", "neither.featx"],
}  # fmt: skip
NUMBERS = [
    (words, option.opts[-1])
    for words, command in commands()
    for option in command.params
    if isinstance(option, click.Option)
    and isinstance(option.type, click.types.IntParamType | click.types.FloatParamType)
]


@pytest.mark.parametrize(
    ("words", "flag"), NUMBERS, ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_a_number_that_cannot_be_is_one_line_that_says_so(capsys, words, flag):
    for value in ("-1", "0", "1e30", "nan", "many", "9" * 30):
        code, out, err = featx(capsys, *words, *ON_NOTHING[words[0]], f"{flag}={value}", "-q")

        assert (code, out) == (1, ""), (value, err)
        assert "Traceback" not in err
        assert "unexpected" not in err, (value, err)
        assert len([line for line in err.splitlines() if "Error:" in line]) == 1
        if value in ("nan", "many"):
            assert flag in err


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--image-size", "100000"], "--image-size must be a whole number, at least 1, at most 8,192; got 100000"),
        (["--seed", "9" * 23], "--seed must be a whole number, at least 0, at most 4,294,967,295"),
        (["--engine", "nope"], "--engine must be one of auto, eager, compile, openvino"),
        (["--workers", "-1"], "--workers must be a whole number, at least 0"),
        (["--batch-size", "0"], "--batch-size must be a whole number, at least 1"),
    ],
)
def test_options_are_checked_even_if_nothing_is_computed(capsys, table, photos, args, told):
    code, _, err = featx(capsys, "extract", photos, *SMALL, *args)

    assert code == 1
    assert told in err


def test_every_option_has_a_help_text():
    silent = [
        (" ".join(words), option.opts[-1])
        for words, command in commands()
        for option in command.params
        if isinstance(option, click.Option) and not option.help
    ]

    assert silent == []


def test_quiet_prints_results_only(capsys, photos, tmp_path):
    _, out, err = featx(capsys, "extract", photos, *SMALL, "-q")
    assert err == ""
    assert "images: 12 computed" in out.replace("12 images", "images")
    for split in ("train", "test"):
        for image in photos.glob("*/*.jpg"):
            copy = tmp_path / "split" / split / image.parent.name / image.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(image.read_bytes())

    for command in (["extract", tmp_path / "split", *SMALL], ["fit", "--head", "centroid", "--test"]):
        code, out, err = featx(capsys, *command, "-q")
        assert (code, err) == (0, "")
        assert "are in train and in test" not in out


def test_a_missing_file_beside_good_ones_is_exit_1(capsys, photos, table):
    featx_json(capsys, "fit", "--head", "centroid", "-o", "model.featx")
    good = photos / "red" / "0.jpg"

    code, out, err = featx(capsys, "predict", "model.featx", good, "no where.jpg", "--workers", "0")

    assert code == 1
    assert [line.split()[1] for line in out.splitlines()[1:2]] == ["red"]
    assert "Error: no such file: 'no where.jpg'" in err


def test_a_dry_run_names_the_columns(capsys, photos, tmp_path):
    (tmp_path / "labels.csv").write_text("id,breed\nred/0,a\nblue/0,b\n")

    code, _, err = featx(capsys, "extract", "labels.csv", "--images", photos, *SMALL, "--dry-run")

    assert code == 0
    assert "'id'" in err
    assert "'breed'" in err


def test_a_full_disk_behind_the_output_is_one_line():
    for args in (["cache", "path"], ["cache", "path", "--json"], ["--help"]):
        done = subprocess.run(
            ["sh", "-c", 'exec "$0" -m featx "$@" > /dev/full', sys.executable, *args],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

        assert done.returncode == 1, done.stderr
        assert "No space left on device" in done.stderr
        assert done.stderr.count("\n") == 1


def test_too_little_memory_is_called_that():
    done = subprocess.run(
        ["sh", "-c", 'ulimit -v 1500000; exec "$0" -m featx "$@"', sys.executable, "layers", "alexnet"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: Too little memory: ")
    assert done.stderr.count("\n") == 1


def test_a_fit_prints_its_folds_and_its_alternatives(capsys, photos, table):
    code, out, _ = featx(
        capsys, "fit", "--head", "ridge", "--cv", "2", "--search", "alpha=0.1,10", "-o", "my model.featx"
    )

    assert code == 0
    assert " ± " in out
    assert "over 2 folds" in out
    assert "alpha = 0.1" in out
    assert "Next: featx predict 'my model.featx' IMAGE" in out


def test_names_that_would_move_the_cursor_are_shown_escaped(capsys, photos, table):
    featx_json(capsys, "fit", "--head", "centroid", "-o", "model.featx")
    odd = photos / "red" / "a\x1b[31m\nb.jpg"
    odd.write_bytes((photos / "red" / "0.jpg").read_bytes())

    code, out, err = featx(capsys, "predict", "model.featx", odd, photos / "blue" / "0.jpg", "--workers", "0")

    assert code == 0, err
    assert "\x1b" not in out
    assert r"a\x1b[31m\nb.jpg" in out
    assert len(out.splitlines()) == 3


def test_layers_names_every_row(capsys):
    _, out, _ = featx(capsys, "layers", "alexnet", "--image-size", "64")

    assert out.splitlines()[-1].startswith("output ")

    code, _, err = featx(
        capsys, "extract", "digits", "--backbone", "resnet18", "--weights", "none", "--layer", "block3_pool"
    )
    assert code == 1
    assert "Where its maps become smaller: relu, layer1, layer2, layer3, layer4" in err


def test_on_a_terminal_a_bar_is_drawn_and_words_go_above_it(tmp_path):
    code = (
        "from featx.cli.common import ProgressLine; from featx.progress import Progress\n"
        "with ProgressLine() as line:\n"
        "    for done in (0, 50, 100): line(Progress('extract', done, 100, done / 10))\n"
        "    line.note('a note')\n"
    )
    reader, writer = os.openpty()
    done = subprocess.run([sys.executable, "-c", code], stderr=writer, env=os.environ | {"TERM": "xterm"}, check=True)
    drawn = os.read(reader, 1 << 16).decode()

    assert done.returncode == 0
    assert "extract" in drawn
    assert "100/100" in drawn
    assert "a note\r\n" in drawn
