"""Searches and comparisons side by side in processes, and on Ray: several of them did the work, nothing else changed."""

import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import pytest
from model_tables import digits, table
from sklearn.base import BaseEstimator, ClassifierMixin

import featx
from featx.cli import main
from featx.errors import OptionError
from featx.model.search import outcomes

SEARCH = "alpha=0.1,1,10,100 "


class Witness(ClassifierMixin, BaseEstimator):
    """A nearest mean that writes down which process fitted it, and waits there until several have been seen."""

    def __init__(self, folder="", shift=0.0, several=1):
        self.folder = folder
        self.shift = shift
        self.several = several

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.means_ = np.stack([X[y == label].mean(axis=0) for label in self.classes_]) + self.shift
        (self.folder / f"{os.getpid()}-{self.shift}").touch()
        patience = time.monotonic() + 120
        while len(processes(self.folder)) < self.several and time.monotonic() < patience:
            time.sleep(0.02)
        return self

    def predict_proba(self, X):
        distances = ((X[:, None] - self.means_) ** 2).sum(axis=2)
        closeness = np.exp(distances.min(axis=1, keepdims=True) - distances)
        return closeness / closeness.sum(axis=1, keepdims=True)

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


def processes(folder):
    return {int(path.name.split("-")[0]) for path in folder.iterdir()}


def workers(folder):
    """The processes that fitted something, but for this one, which fits what was chosen."""
    return processes(folder) - {os.getpid()}


@pytest.fixture
def features(tmp_path):
    return table(tmp_path / "cache", *digits(300))


@pytest.mark.parametrize("cv", [None, 3])
def test_a_search_in_processes_finds_what_a_serial_one_finds(features, tmp_path, cv):
    alone, together = tmp_path / "alone", tmp_path / "together"
    alone.mkdir(), together.mkdir()
    search = "shift=0,0.05,0.1,0.2,0.4,0.8"

    serial = featx.fit(features, Witness(alone), search=search, cv=cv).report
    with joblib.parallel_config(backend="loky", n_jobs=2):
        parallel = featx.fit(features, Witness(together, several=2), search=search, cv=cv).report

    assert workers(alone) == set()
    assert len(workers(together)) > 1
    assert {name: parallel[name] for name in ("search", "cv", "chosen", "val")} == {
        name: serial[name] for name in ("search", "cv", "chosen", "val")
    }


def test_a_table_travels_as_its_path(features, tmp_path):
    few = features.select("train")
    assert len(few.y) == len(few.ids) == len(few.item_ids) == 240  # columns that were read stay behind

    assert len(pickle.dumps(features)) < 2_000 < len(pickle.dumps(few)) < 2_000 + 9 * 240 < few.X.nbytes
    assert np.array_equal(pickle.loads(pickle.dumps(few)).X, few.X)


def test_rows_of_several_tables_travel_as_their_paths(tmp_path, features):
    from featx.features import Features
    from featx.features.rows import Picks

    other = table(tmp_path / "cache", *digits(100), name="other")
    parts = [Picks(features._table, np.arange(50), np.arange(50)), Picks(other._table, np.arange(20), np.arange(20))]
    together = Features(features._picked(parts))

    copy = pickle.loads(pickle.dumps(together))

    assert np.array_equal(copy.X, np.concatenate([features[:50], other[:20]]))
    assert np.array_equal(copy.y, together.y)


def test_what_a_worker_raises_is_raised_as_it_is(features):
    with joblib.parallel_config(backend="loky", n_jobs=2):
        found = list(outcomes(featx.fit, [(features, "ridge"), (features, "nonsense")]))
        with pytest.raises(OptionError, match="alpha must be"):
            featx.fit(features, "ridge", search="alpha=1,-1")

    assert found[0].report["val"]["accuracy"] > 0.8
    assert isinstance(found[1], featx.errors.UnknownHeadError)


def compare(photos, tmp_path, name, **options):
    return featx.compare(
        photos, backbones=["alexnet"], heads=["centroid", "knn", "ridge"], settings={"ridge": {"alpha": -1}}, val="0.25",
        cache=tmp_path / "cache", output=tmp_path / name, weights="none", image_size=64, workers=0, engine="eager",
        **options,
    )  # fmt: skip


def measured(board):
    return [
        {name: row[name] for name in ("layer", "head", "train_accuracy", "val_accuracy", "ci95", "seeds", "error")}
        for row in board.rows
    ]


def test_a_comparison_in_processes_is_the_serial_one_and_is_kept(photos, tmp_path):
    serial = compare(photos, tmp_path, "serial")
    with joblib.parallel_config(backend="loky", n_jobs=2):
        parallel = compare(photos, tmp_path, "parallel")
    notes = []
    again = compare(photos, tmp_path, "parallel", note=notes.append)

    errors = {row["head"]: row["error"] and row["error"]["type"] for row in parallel.rows}
    assert errors == {"centroid": None, "knn": None, "ridge": "OptionError"}
    assert measured(parallel) == measured(serial) == measured(again)
    assert sum(note.endswith("as kept") for note in notes) == 2


@pytest.mark.parametrize("command", ["fit", "compare"])
def test_the_command_line_takes_jobs_and_backends_that_exist(command, capsys, features, photos, tmp_path):
    source = str(features.path) if command == "fit" else str(photos)

    assert main([command, source, "--jobs", "0"]) == 1
    assert "--jobs takes a number of fits side by side" in capsys.readouterr().err
    assert main([command, source, "--backend", "slurm"]) == 1
    assert "no backend 'slurm'" in capsys.readouterr().err


def test_fit_with_jobs_gives_the_report_of_one_without(capsys, features, tmp_path):
    found = []
    for jobs in ([], ["--jobs", "2"]):
        words = [
            "fit",
            str(features.path),
            "--head",
            "ridge",
            "--search",
            SEARCH,
            *jobs,
            "-o",
            str(tmp_path / "m.featx"),
        ]
        assert main([*words, "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))

    assert found[0]["search"] == found[1]["search"]
    assert found[0]["chosen"] == found[1]["chosen"]


RAY = """
import json, sys
from pathlib import Path

import joblib, ray
from ray.util.joblib import register_ray

import featx
from test_parallel_fits import Witness, workers

table, folder = map(Path, sys.argv[1:])
ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=80 << 20, log_to_driver=False)
register_ray()
with joblib.parallel_config(backend="ray", n_jobs=2):
    report = featx.fit(table, Witness(folder, several=2), search="shift=0,0.05,0.1,0.2,0.4,0.8").report
print(json.dumps({"workers": len(workers(folder)), "search": report["search"]}))
ray.shutdown()
"""


def test_a_search_on_ray_finds_what_a_serial_one_finds(features, tmp_path):
    pytest.importorskip("ray")
    alone, together = tmp_path / "alone", tmp_path / "together"
    alone.mkdir(), together.mkdir()
    serial = featx.fit(features, Witness(alone), search="shift=0,0.05,0.1,0.2,0.4,0.8").report
    # A cluster of another test may be up: nothing of it is for this one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])

    done = subprocess.run(
        [sys.executable, "-c", RAY, features.path, together],
        capture_output=True, text=True, env=environment, timeout=400, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["workers"] > 1
    assert found["search"] == serial["search"]
