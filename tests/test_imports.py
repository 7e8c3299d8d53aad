"""What commands import: seconds of a command's start are a handful of libraries that it may not need."""

import subprocess
import sys

import numpy as np
import pytest

import featx
from featx import Features, backbones
from featx.engines import kept, open_engine, openvino
from featx.recipe import Request

#: What takes longer to import than a small command needs for its work.
HEAVY = {"torch", "torchvision", "timm", "pandas", "scipy.stats", "scipy.optimize", "matplotlib", "xgboost", "numba"}
#: What knows images, networks and data frames, or serves others: a table that is there needs none of it.
OF_IMAGES = {"PIL", "featx.images", "featx.datasets.opening", "featx.engines", "featx.extraction.plan"}
OF_OTHERS = {"h5py", "rich", "narwhals", "asyncio", "numpy.testing", "scipy.special"}
#: Runs commands of one word a list item, and prints which of some libraries the process then has.
RUN = """
import sys
from featx.cli import main
for words in sys.argv[2:]:
    assert main(words.split()) == 0
print(*sorted({*sys.argv[1].split()} & {*sys.modules}))
"""


def imported(heavy, *commands, folder):
    """Return which libraries of `heavy` a process has imported that ran `commands` one after another in `folder`."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, " ".join(heavy), *commands], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a table of 60 rows, three classes, and a test split."""
    folder, rng = tmp_path_factory.mktemp("tables"), np.random.default_rng(0)
    y = np.arange(60) % 3
    splits = np.where(np.arange(60) < 45, "train", "test")
    Features.from_arrays(rng.standard_normal((60, 8)) + y[:, None], y, splits=splits).export(folder / "t.h5")
    return folder


def test_heads_without_a_network_are_fitted_and_judged_by_numpy_and_scikit_learn(folder):
    """They predict from tables too, and the cache is looked after."""
    commands = [f"fit t.h5 --head {head} -o {head}.featx -q" for head in ("logreg", "ridge", "lda", "knn", "centroid")]
    commands += ["evaluate ridge.featx t.h5 -q", "predict knn.featx t.h5 -q", "cache list -q --cache ."]

    assert not imported(HEAVY | {"openvino"}, *commands, folder=folder)


def test_a_table_is_fitted_and_predicted_without_what_knows_images_and_data_frames(folder):
    commands = [f"fit t.h5 --head {head} -o {head}.featx -q" for head in ("logreg", "ridge", "knn", "mlp")]

    assert not imported(OF_IMAGES | OF_OTHERS, *commands, "predict ridge.featx t.h5 -q", folder=folder)


def test_trees_want_their_own_library_alone(folder):
    found = imported(HEAVY, "fit t.h5 --head xgboost -o t.featx -q", "predict t.featx t.h5 -q", folder=folder)

    assert "torch" not in found
    assert "xgboost" in found


def test_a_report_is_made_without_torch(folder):
    commands = "fit t.h5 --head ridge -o r.featx -q", "report r.featx -o r.html -q"

    assert "torch" not in imported({"torch"}, *commands, folder=folder)


@pytest.mark.skipif(not openvino.installed(), reason="openvino is not installed")
def test_a_photo_is_predicted_without_torch_where_its_network_was_converted(photos, tmp_path, monkeypatch):
    options = {"backbone": "timm/test_resnet", "weights": "none", "image_size": 32}
    table = featx.extract(photos, cache=tmp_path / "cache", workers=0, engine="eager", **options)
    model = featx.fit(table, head="ridge", val=0)
    model.save(tmp_path / "m.featx")
    open_engine(*backbones.resolve(Request(**options)), engine="openvino", networks=kept.folder())
    extract = f"extract {photos} --backbone timm/test_resnet --weights none --image-size 32 -q --cache"
    words = f"m.featx {photos / 'red' / '0.jpg'} --cache elsewhere"
    image = photos / "red" / "0.jpg"

    assert imported(HEAVY | {"h5py"}, f"predict {words} --csv p.csv", folder=tmp_path) == set()
    assert imported(HEAVY, f"{extract} another", folder=tmp_path) == set()
    eager = imported(["torch", "torch._dynamo"], f"predict {words} --engine eager", folder=tmp_path)
    assert eager == {"torch"}  # without its compiler
    found = model.predict_proba([image], workers=0)
    assert model._row_maker._makers[0][1]._engine.name == "openvino"
    expected = model.predict_proba([image], workers=0, engine="eager")
    assert np.abs(found - expected).max() < 1e-5
    model.save(tmp_path / "whole.featx", bundle=True)
    monkeypatch.setenv("FEATX_NETWORKS", str(tmp_path / "never-seen"))
    words = words.replace("m.featx", "whole.featx")
    assert imported(HEAVY, f"predict {words} -q", folder=tmp_path) == set()
    assert imported(HEAVY, f"predict {words} -q --engine openvino", folder=tmp_path) == set()
    np.testing.assert_allclose(featx.load(tmp_path / "whole.featx").predict_proba([image], workers=0), found, atol=1e-6)
    assert not (tmp_path / "never-seen").exists()  # what somebody else has converted is this model's alone
