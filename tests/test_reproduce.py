"""The published walkthroughs run end to end: true architectures with random weights, on stand-ins of the data's form."""

import csv
import io
import json
import runpy
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import featx

SCRIPT = Path(__file__).parents[1] / "examples" / "reproduce.py"
REPRODUCE = runpy.run_path(str(SCRIPT))
RNG = np.random.default_rng(0)


def picture(label, size):
    """Noise tinted by class."""
    pixels = RNG.integers(0, 120, (size[1], size[0], 3), dtype=np.uint8)
    pixels[..., label % 3] += np.uint8(20 * (label + 1) % 130)
    return Image.fromarray(pixels)


def write_folders(root, names, n):
    """Folders of JPEGs of odd sizes."""
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i in range(n):
            picture(label, (61 + 7 * i, 83 - 5 * label)).save(root / name / f"{i}.jpg")


def cifar10(root):
    """Parquet in the Hugging Face form, 32×32, ten classes in any order."""
    root.mkdir()
    for split, n in (("train", 20), ("test", 5)):
        labels = RNG.permutation(np.arange(n) % 10)
        images = []
        for label in labels:
            file = io.BytesIO()
            picture(int(label), (32, 32)).save(file, "PNG")
            images.append({"bytes": file.getvalue(), "path": None})
        pq.write_table(pa.table({"img": images, "label": labels}), root / f"{split}.parquet")


def animals(root):
    names = ["dog", "cat", "butterfly", "chicken", "cow", "elephant", "horse", "sheep", "spider", "squirrel"]
    write_folders(root, names, 2)


def lights(root):
    write_folders(root / "train", ["red", "green", "yellow"], 3)
    write_folders(root / "test", ["red", "green", "yellow"], 1)


def dogs(root):
    """Names without ``.jpg`` in the CSV, unlabelled test images, and a sample submission in another order."""
    breeds = ["beagle", "boxer", "collie"]
    for folder in ("train", "test"):
        (root / folder).mkdir(parents=True)
    rows = [(f"{breed[:2]}{i}f", breed) for breed, n in zip(breeds, (4, 1, 1), strict=True) for i in range(n)]
    for name, breed in rows:
        picture(breeds.index(breed), (97, 71)).save(root / "train" / f"{name}.jpg")
    for name in ("0a", "1b"):
        picture(0, (65, 90)).save(root / "test" / f"{name}.jpg")
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "breed"), *rows])
    (root / "sample_submission.csv").write_text("id,collie,beagle,boxer\n1b,0,0,0\n0a,0,0,0\n")


DATA = {"A": cifar10, "B": animals, "C": lights, "D": dogs, "E": cifar10}


#: Small enough not to need worker processes or another engine, nor batches that are mostly padding.
ALONE = "--workers 0 --engine eager"
QUICK = {"fit": f"{ALONE} --batch-size 4", "predict": f"{ALONE} --batch-size 4", "extract": f"{ALONE} --batch-size 4",
         "compare": ALONE, "finetune": "--workers 0"}  # fmt: skip


@pytest.fixture(scope="module")
def reproduce(tmp_path_factory):
    """Run one system on its stand-in for an epoch, all but the report; return the folder of what came out."""
    root = tmp_path_factory.mktemp("reproduce")

    def run(name):
        data = root / DATA[name[0]].__name__
        if not data.exists():
            DATA[name[0]](data)
        (root / "out").mkdir(exist_ok=True)
        for command in REPRODUCE["commands"](name, data=str(data), out=root / "out", weights="none", epochs=1):
            verb = command.removeprefix("! ").split()[1]
            if verb != "report":
                assert REPRODUCE["run"](f"{command} {QUICK.get(verb, '')}") == 0, command
        return root / "out"

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEATX_CACHE", str(root / "cache"))
        yield run


def scores(report):
    return {split: report[split]["n"] for split in ("train", "val", "test") if report[split]}


@pytest.mark.slow
def test_a_vgg19_is_trained_end_to_end_with_augmentation_and_a_plateau(reproduce):
    model = featx.load(reproduce("A") / "a.featx")
    told = model.report["settings"]

    assert (told["optimizer"], told["batch_size"], told["augment"]) == ("adam", 100, "flip,rotate=2,zoom=0.1")
    assert (told["schedule"], told["factor"], told["patience"], told["min_lr"]) == ("plateau", 0.01, 3, 1e-5)
    assert model.request.normalize == "weights"
    assert model.report["n_parameters"] == 20_024_384 + (512 * 1024 + 3 * 1024) + (1024 * 512 + 3 * 512) + 513 * 10
    assert set(scores(model.report)) == {"train", "val", "test"}


@pytest.mark.slow
def test_b_stands_a_cnn_of_25_layers_beside_a_fine_tuned_alexnet(reproduce):
    out = reproduce("B1")
    alone = json.loads((out / "b" / "comparison.json").read_text())["rows"]
    reproduce("B2")
    rows = {row["kind"]: row for row in json.loads((out / "b" / "comparison.json").read_text())["rows"]}

    assert [row["kind"] for row in alone] == ["scratch"]
    cnn, alexnet = rows["scratch"], rows["finetune"]
    assert (cnn["image_size"], cnn["images_per_class"], cnn["settings"]["lr"]) == (100, 1500, 0.01)
    assert (cnn["settings"]["optimizer"], cnn["settings"]["momentum"]) == ("sgd", 0.9)
    assert (alexnet["image_size"], alexnet["images_per_class"], alexnet["settings"]["lr"]) == (227, 500, 1e-4)
    assert alexnet["settings"]["head_lr_mult"] == 20
    assert alexnet["n_parameters"] == 57_003_840 + 4097 * 10
    assert cnn["model"] == alone[0]["model"]
    assert {"train_accuracy", "val_accuracy"} <= set(alexnet)


@pytest.mark.slow
def test_c_puts_a_convolutional_head_on_unpooled_maps_and_their_mirror_images(reproduce):
    model = featx.load(reproduce("C") / "c.featx")

    assert model.recipe.shape == (512, 7, 7)
    assert model.request.normalize == "weights"
    assert (model.report["views"], model.report["augment"]) == (2, "flip")
    kinds = [step.layer.kind for step in model.head.network_steps()]
    assert kinds == ["conv", "relu", "max", "conv", "relu", "max", "flat", "dense", "relu", "dense"]
    assert model.classes == ("green", "red", "yellow")
    assert scores(model.report)["test"] == 3


@pytest.mark.slow
def test_d_ends_in_a_submission_of_the_samples_form(reproduce):
    out = reproduce("D")
    model = featx.load(out / "d.featx")
    header, *rows = csv.reader((out / "submission.csv").read_text().splitlines())

    assert model.recipe.shape == (1536, 9, 9)
    assert [step.layer.kind for step in model.head.network_steps()] == ["bn", "gap", "dense", "relu", "drop", "dense"]
    assert header == ["id", "collie", "beagle", "boxer"]
    assert [row[0] for row in rows] == ["1b", "0a"]
    assert [sum(map(float, row[1:])) for row in rows] == pytest.approx([1, 1])


@pytest.mark.parametrize(
    ("name", "n_parameters", "lr"), [("E1", 2_105_066, 0.005), ("E2", 2_105_066, 0.005), ("E3", 1_084_234, 0.001)]
)
def test_e1_to_e3_have_the_published_networks_and_recipes(reproduce, name, n_parameters, lr):
    model = featx.load(reproduce(name) / f"{name.lower()}.featx")
    told = model.report["settings"]

    assert model.report["n_parameters"] == n_parameters
    assert (told["optimizer"], told["eps"], told["lr"], told["batch_size"]) == ("adamax", 1e-7, lr, 32)
    assert (model.recipe.mean, model.recipe.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert scores(model.report) == {"train": 18, "val": 2, "test": 5}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shape"), [("E4", (4096,)), ("E5", (512,)), ("E6", (2048,)), ("E7", (2048,))])
def test_e4_to_e7_fit_the_published_head_on_frozen_features(reproduce, name, shape):
    model = featx.load(reproduce(name) / f"{name.lower()}.featx")
    kinds = [step.layer.kind for step in model.head.network_steps()]

    assert model.recipe.shape == shape
    assert kinds == ["dense", "relu", "dense", "relu", "drop", "dense", "relu", "bn", "dense"]
    assert (model.head.optimizer, model.head.eps, model.head.lr) == ("adamax", 1e-7, 5e-4)
    assert (model.head.batch_size, model.head.schedule, model.scaler.kind) == (250, "none", "none")
    assert (model.recipe.mean, model.recipe.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert scores(model.report) == {"train": 18, "val": 2, "test": 5}


@pytest.mark.slow
def test_a_system_ends_in_a_report_and_its_pictures(reproduce):
    out = reproduce("E3")
    *_, report = REPRODUCE["commands"]("E3", data=str(out.parent / "cifar10"), out=out, weights="none", epochs=1)

    assert REPRODUCE["run"](report) == 0
    assert (out / "e3.html").stat().st_size > 50_000
    pictures = {path.stem for path in (out / "e3").glob("*.png")}
    assert {"loss-epoch", "accuracy-epoch", "confusion", "confusion-normalized", "predictions"} <= pictures


def test_every_system_is_listed_and_shown_before_anything_runs(capsys, tmp_path):
    assert REPRODUCE["main"]([]) == 0
    listed = capsys.readouterr().out
    for name in ("A", "B1", "B2", "C", "D", *(f"E{i}" for i in range(1, 8))):
        assert f"{name:3}" in listed
        assert REPRODUCE["main"]([name, "--data", "my data", "--out", str(tmp_path / "out"), "--print"]) == 0
        commands = capsys.readouterr().out.splitlines()
        assert all(shlex.split(command.removeprefix("! "))[0] == "featx" for command in commands)
        assert all(
            "my data" in command for command in commands if " report " not in command and "evaluate" not in command
        )
        assert commands[-1].startswith("featx report")

    assert not (tmp_path / "out").exists()


def test_a_command_that_fails_ends_its_system(capsys, tmp_path):
    code = REPRODUCE["main"](["E1", "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path), "--weights", "none"])
    said = capsys.readouterr().err

    assert code == 1
    assert "RANDOM WEIGHTS" in said
    assert "$ featx report" not in said
