"""A packed model says what the model says: in any ONNX runtime, on images of any size, without PyTorch and featx."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import featx
from featx import Features
from featx.cli import main
from featx.errors import MissingExtraError, ModelFileError, OptionError, ProbeError
from featx.images import fit as fit_image
from featx.images import prepare
from featx.packing import PackedModel, graph, pack
from featx.packing.answers import Answers
from featx.packing.fitting import FitFrame
from featx.recipe import Frame

HOW = {"backbone": "timm/test_vit", "weights": "none", "image_size": 64, "interpolation": "bicubic"}
PAGE = Path(__file__).parents[1] / "docs" / "howto" / "elsewhere.md"
#: Head and settings, which together take every way through `featx.packing.heads`.
HEADS = {
    "logreg": ("logreg", "none", {}),
    "standard": ("logreg", "standard", {}),
    "l2": ("logreg", "l2", {}),
    "mlp": ("mlp", "auto", {"hidden": (16,), "batch_norm": True, "epochs": 5}),
    "conv": ("conv", "standard", {"layers": "conv4 gelu gap", "epochs": 3}),
    "ridge": ("ridge", "auto", {}),
    "svm": ("svm", "auto", {}),
    "centroid": ("centroid", "auto", {}),
    "euclidean": ("centroid", "auto", {"metric": "euclidean"}),
    "knn": ("knn", "auto", {"k": 5}),
    "uniform": ("knn", "auto", {"k": 500, "weights": "uniform", "class_weight": "balanced"}),
    "trees": ("xgboost", "auto", {"n_estimators": 12, "components": 6}),
    "early": ("xgboost", "auto", {"n_estimators": 20, "components": None, "early_stopping_rounds": 2, "max_leaves": 5}),
}
#: The heads whose operators differ; the rest of `HEADS` is held against featx in PyTorch alone, which takes no export.
EXPORTED = ("l2", "euclidean", "knn", "trees")
#: Before and after the code of the page: what PyTorch or featx would do, an error does.
BEFORE = """
import sys
sys.modules.update(dict.fromkeys(["torch", "featx", "onnx"]))
"""
AFTER = """
print(json.dumps([session.run(["probabilities"], {"images": np.asarray(Image.open(path))[None]})[0][0].tolist()
                  for path in sys.argv[1:]]))
"""


def rows(n_classes, n=180, d=12, *, maps=False):
    """A table in memory whose classes overlap."""
    rng = np.random.default_rng(n_classes)
    y = np.arange(n) % n_classes
    X = rng.standard_normal((n, d)) + 1.5 * np.eye(n_classes, d)[y]
    splits = np.where(np.arange(n) < n - 60, "train", "val")
    X = X.astype(np.float32)
    return Features.from_arrays(X[..., None, None] if maps else X, y, splits=splits)


@pytest.fixture(scope="module")
def models():
    """A model of each head of four classes, or of two, that knows one more, of which it has seen nothing."""
    fits = {
        (name, n): featx.fit(rows(n, maps=head == "conv"), head=head, scale=scale, settings=settings)
        for name, (head, scale, settings) in HEADS.items()
        for n in (2, 4)
        if n == 4 or name in ("logreg", "euclidean", "early")
    }
    return {key: dataclasses.replace(model, classes=(*model.classes, "unseen")) for key, model in fits.items()}


def rows_of(model, X):
    """Rows as a head takes them: maps of one pixel, or vectors."""
    return X[..., None, None] if model.head_name == "conv" else X


def agree(model, found, X):
    """Whether probabilities and familiarity are those of the model."""
    probabilities, familiarity = model._predict_rows(rows_of(model, X))
    assert (found[0][:, -1] == 0).all()
    return np.abs(found[0] - probabilities).max() < 1e-5 and np.abs(found[1] - familiarity).max() < 0.02


def test_every_head_says_the_same(models):
    X = np.random.default_rng(9).standard_normal((50, 12)).astype(np.float32) * 1.5
    for key, model in models.items():
        with torch.no_grad():
            found = Answers(model).eval()(torch.from_numpy(rows_of(model, X)))
        assert agree(model, [output.numpy() for output in found], X), key


@pytest.mark.parametrize(("task", "n"), [("multilabel", 3), ("multilabel", 1), ("regress", 2)])
def test_labels_numbers_and_ensembles_say_the_same(task, n):
    rng = np.random.default_rng(n)
    X = rng.standard_normal((200, 6)).astype(np.float32)
    given = X @ rng.standard_normal((6, n)) + rng.standard_normal((200, n))
    targets = given > 0.5 if task == "multilabel" else 1900 + 50 * given
    table = Features.from_arrays(
        X, targets=targets, target_names=list("abc")[:n], splits=np.where(np.arange(200) < 140, "train", "val")
    )
    heads = {"ridge": {}, "knn": {"k": 5}, "xgboost": {"n_estimators": 5}, "mlp": {"hidden": (8,), "epochs": 3}}
    models = [featx.fit(table, head=head, settings=settings) for head, settings in heads.items()]
    models.append(featx.ensemble([models[0], models[1]], weights="2,1"))
    for model in models:
        with torch.no_grad():
            found = Answers(model).eval()(torch.from_numpy(X[:50]))
        expected, familiarity = model._predict_rows(X[:50])
        assert np.allclose(found[0].numpy(), expected, rtol=1e-5, atol=1e-5), model.head_name
        if len(found) > 1:
            assert np.abs(found[1].numpy() - familiarity).max() < 0.02


class Side(nn.Module):
    """Several classifiers on the same rows, so that one export is one of all."""

    def __init__(self, models):
        super().__init__()
        self.classifiers = nn.ModuleList(map(Answers, models))

    def forward(self, X):
        return tuple(found for classifier in self.classifiers for found in classifier(X))


def test_the_operators_of_heads_are_those_of_onnx(models):
    import onnxruntime

    X = np.random.default_rng(9).standard_normal((50, 12)).astype(np.float32) * 1.5
    some = [models[name, 4] for name in EXPORTED]
    outputs = [f"{name} {what}" for name in EXPORTED for what in ("probabilities", "familiarity")]
    sides = ({0: torch.export.Dim("n")},)
    file = graph._exported(Side(some), (torch.from_numpy(X[:2]),), sides, ["rows"], outputs)
    found = onnxruntime.InferenceSession(file.SerializeToString()).run(None, {"rows": X})

    for i, model in enumerate(some):
        assert agree(model, found[2 * i : 2 * i + 2], X), EXPORTED[i]


@pytest.mark.parametrize("down_first", [None, False])
def test_images_are_resized_as_pillow_does_to_the_bit(down_first):
    """Enlarged and reduced, cropped beyond their edge, and in the shapes for which Pillow turns its passes around."""
    rng = np.random.default_rng(0)
    n_turned = 0
    for number in range(60):
        height, width, side, shorter = (int(n) for n in rng.integers([1, 1, 2, 2], [150, 150, 50, 60]))
        resize = ("crop", "squash", "pad")[number % 3]
        frame = Frame(
            height=side, width=side, resize=resize, shorter=shorter if resize == "crop" else 0,
            interpolation=("box", "bilinear", "bicubic")[number // 3 % 3], background=(1, 200, 77),
        )  # fmt: skip
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        found = FitFrame(frame, down_first=down_first)(torch.from_numpy(image)[None])[0].numpy()
        same = np.array_equal(found, fit_image(Image.fromarray(image), frame))
        n_turned += not same
        assert same or down_first is False

    assert (n_turned > 0) == (down_first is False)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Photos of three classes, PNG and of many sizes."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for channel, name in enumerate(["red", "green", "blue"]):
        (folder / name).mkdir()
        for i in range(24):
            pixels = rng.integers(0, 140, (9 + 11 * i, 250 - 10 * i, 3), dtype=np.uint8)
            pixels[..., channel] += 60
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def packed(images, tmp_path_factory):
    """A model, its packed file, and what came of packing."""
    folder = tmp_path_factory.mktemp("packed")
    table = featx.extract(images, cache=folder / "cache", workers=0, engine="eager", val=0.2, **HOW)
    model = featx.fit(table, head="logreg")
    return model, folder / "model.onnx", pack(model, folder / "model.onnx")


def test_a_packed_model_says_the_same_without_torch_and_featx(packed, images):
    model, path, done = packed
    photos = sorted(images.rglob("*.png"))
    (code,) = re.findall(r"^```python\n(import json\n.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    Image.open(photos[-1]).save(path.with_name("new-photo.jpg"))
    words = [sys.executable, "-c", BEFORE + code + AFTER, *map(str, photos)]
    answer = subprocess.run(words, capture_output=True, text=True, check=True, cwd=path.parent)
    expected = model.predict_proba(photos, workers=0, engine="eager")
    label, probabilities = answer.stdout.splitlines()
    found = np.array(json.loads(probabilities))

    assert label.split()[0] in model.classes
    assert np.array_equal(found.argmax(axis=1), expected.argmax(axis=1))
    assert np.abs(found - expected).max() < 1e-4
    assert (done.n_checked, done.apart < 1e-4) == (8 + 16, True)
    assert answer.stderr == ""
    # Images of one size go through together.
    pair = np.random.default_rng(1).integers(0, 256, (2, 90, 70, 3), np.uint8)
    apart = PackedModel(path).run(pair)[0] - model.predict_proba(pair, workers=0, engine="eager")
    assert np.abs(apart).max() < 1e-4
    # A service hands over what is fitted already.
    opened = PackedModel(path)
    fitted = np.stack([prepare(photo.read_bytes(), opened.frames[0]) for photo in photos[:5]])
    said, familiarity = opened.answers([fitted])
    assert np.abs(said - expected[:5]).max() < 1e-4
    assert (familiarity is None) == (model.ood is None)


RUN = """
import sys
from featx.cli import main
assert main(sys.argv[1:]) == 0
assert not {"torch", "onnxscript", "timm", "xgboost"} & {*sys.modules}, "imported"
"""


def test_the_command_predicts_from_a_packed_model_as_from_a_model_file(packed, images, tmp_path, capsys):
    model, path, _ = packed
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff torn")
    subjects = [str(images / "red" / "3.png"), str(tmp_path / "torn.jpg"), str(images / "blue" / "9.png")]
    words = ["predict", str(path), *subjects, "--json", "-q", "--csv", str(tmp_path / "p.csv"), "--format", "wide"]
    done = subprocess.run([sys.executable, "-c", RUN, *words], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    expected = model.classify(subjects, workers=0, engine="eager").to_dict()

    assert found["classes"] == expected["classes"]
    for ours, theirs in zip(found["predictions"], expected["predictions"], strict=True):
        assert (ours["id"], ours["label"], ours["error"]) == (theirs["id"], theirs["label"], theirs["error"])
        if ours["label"]:
            assert abs(ours["probability"] - theirs["probability"]) < 1e-4
            assert ours["familiarity"] == theirs["familiarity"] is None  # of 14 validation rows nobody can tell
    assert (tmp_path / "p.csv").read_text().startswith("id,label,probability,error,blue,green,red\n")
    assert (
        repr(PackedModel(path)) == f"<PackedModel: {model.head_name} on {model.inputs[0].recipe.backbone}, 3 classes>"
    )


def test_half_precision_halves_the_file_and_keeps_the_labels(packed, images, tmp_path):
    import onnx

    model, path, _ = packed
    half = onnx.load(path)
    graph._halve(half)
    onnx.save(half, tmp_path / "half.onnx")
    photos = sorted(images.rglob("*.png"))
    found, expected = (PackedModel(one).predict_proba(photos, workers=0) for one in (tmp_path / "half.onnx", path))

    assert (tmp_path / "half.onnx").stat().st_size < 0.75 * path.stat().st_size
    assert 0 < np.abs(found - expected).max() < 2e-2
    assert np.array_equal(found.argmax(axis=1), expected.argmax(axis=1))


def test_a_file_that_says_something_else_never_takes_its_name(packed, monkeypatch, tmp_path):
    import onnx

    model, path, _ = packed
    # Probabilities that are some thousandths off, which would do for fp16.
    temperature = 1.02 * model.calibration.temperature
    other = dataclasses.replace(model, calibration=dataclasses.replace(model.calibration, temperature=temperature))
    monkeypatch.setattr(graph, "graph_of", lambda *_: onnx.load(path))
    (tmp_path / "m.onnx").write_text("what was there")

    with pytest.raises(ProbeError, match=r"else than featx about \d+ of 24 images, by up to \d\.\de-03 \(1e-04"):
        pack(other, tmp_path / "m.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert (tmp_path / "m.onnx").read_text() == "what was there"


def test_what_cannot_be_packed_is_refused_in_one_line(packed, images, tmp_path):
    cache = packed[1].with_name("cache")
    table = featx.extract(images, cache=cache, workers=0, engine="eager", **HOW)
    stranger = featx.fit(table, head="sklearn.naive_bayes:GaussianNB", val=0)
    sine = featx.extract(images, cache=cache, workers=0, engine="eager", **HOW | {"interpolation": "lanczos"})

    with pytest.raises(OptionError, match=r"GaussianNB head cannot be packed. These can: logreg, mlp"):
        pack(stranger, tmp_path / "m.onnx")
    with pytest.raises(OptionError, match=r"resized by lanczos here, which a packed model cannot"):
        pack(featx.fit(sine, head="ridge", val=0), tmp_path / "m.onnx")
    with pytest.raises(OptionError, match=r"no network to pack"):
        pack(featx.fit(rows(3), head="ridge"), tmp_path / "m.onnx")
    with pytest.raises(OptionError, match=r"32 at least, and there are 3. Name a folder: --check DATA"):
        pack(
            packed[0], tmp_path / "m.onnx", precision="int8", check=[str(images / "red" / f"{i}.png") for i in range(3)]
        )
    for name, how, reason in (
        ("m.bin", {}, "-o m.onnx"),
        ("m.onnx", {"format": "openvino"}, "-o m.xml"),
        ("m.pt2", {"precision": "fp16"}, "is of ONNX and OpenVINO"),
    ):
        with pytest.raises(OptionError, match=reason):
            pack(packed[0], tmp_path / name, **how)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"tta": True}, "--tta averages over views"),
        ({"engine": "eager"}, "runs on onnxruntime"),
        ({"device": "cuda"}, "on the CPU"),
    ],
)
def test_what_only_a_model_file_does_is_refused(packed, option, words, images):
    _, path, _ = packed

    with pytest.raises(OptionError, match=words):
        PackedModel(path).predict(images, **option)


def test_files_that_featx_has_not_packed_are_refused(packed, tmp_path, capsys):
    import onnx

    _, path, _ = packed
    torn = tmp_path / "torn.onnx"
    torn.write_bytes(path.read_bytes()[:-5000])
    other = onnx.load(path)
    del other.metadata_props[:]
    onnx.save(other, tmp_path / "other.onnx")

    assert main(["predict", str(tmp_path / "none.onnx"), "a.jpg"]) == 1
    assert "No model at" in capsys.readouterr().err
    for name in ("torn", "other"):
        with pytest.raises(ModelFileError, match=r"featx pack"):
            PackedModel(tmp_path / f"{name}.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_what_installs_it(package, packed, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(MissingExtraError, match=rf"'{package}'. Install it: pip install 'featx\[onnx\]'"):
        pack(packed[0], Path("m.onnx"))
