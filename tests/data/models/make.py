"""Write a small model file of each kind of head, and what it predicts, with the featx that is on the path.

    python tests/data/models/make.py FOLDER

The files beside this script were written by featx 0.1 (format 1) and stay as they are: they show that later versions
read them. A new format gets files of its own.
"""

import os
import sys
import tempfile
from pathlib import Path

import numpy as np

import featx
from featx.features import Features

sys.path.insert(0, str(Path(__file__).parents[2]))
from model_tables import table

#: Name of the file → head and settings of `featx.fit`.
HEADS = {
    "logreg": ("logreg", {}),
    "logreg-C": ("logreg", {"C": 1}),
    "ridge": ("ridge", {}),
    "centroid": ("centroid", {}),
    "knn": ("knn", {"k": 3}),
    "svm": ("svm", {}),
    "mlp": ("mlp", {"layers": "4 relu bn drop.2", "epochs": 3}),
    "xgboost": ("xgboost", {"n_estimators": 3, "max_depth": 2, "components": 4}),
}


def rows(*shape):
    """Return 150 rows of three classes, whose numbers have few digits, and their labels."""
    y = np.arange(150) % 3
    X = np.random.default_rng(7).normal(size=(150, *shape)).round(2).astype(np.float32)
    X.reshape(150, -1)[np.arange(150), y] += 2
    return X, y


def tables():
    """Return a table of vectors and one of maps, both in the current folder's ``cache``, and vectors without a file."""
    place = np.arange(150) % 10
    splits = np.where(place == 0, "test", np.where(place < 5, "val", "train"))
    classes = ("ash", "beech", "çédille")
    X, y = rows(6)
    maps, _ = rows(2, 4, 4)
    return (
        table(Path("cache"), X, y, splits, classes=classes, name="vectors"),
        table(Path("cache"), maps, y, splits, classes=classes, name="maps"),
        Features.from_arrays(X, y),
    )


def pixels():
    """Return 24 images of noise."""
    return np.random.default_rng(0).integers(0, 255, (24, 12, 12, 3), dtype=np.uint8)


def main(folder):
    """Write the files."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(tempfile.mkdtemp())  # a model names its table as it was given: here by a path that says nothing
    vectors, maps, arrays = tables()
    made = {name: featx.fit(vectors, head, settings=settings, test=True) for name, (head, settings) in HEADS.items()}
    made["search"] = featx.fit(vectors, "ridge", search="alpha=1,100", cv=3, refit=True)
    made["arrays"] = featx.fit(arrays, "ridge")
    made["conv"] = featx.fit(maps, "conv", settings={"layers": "conv2 relu gap", "epochs": 2})
    made["protocol"] = featx.run_protocol(vectors, "dino-knn")
    expected = {}
    for name, model in made.items():
        model.save(folder / f"{name}.featx")
        expected[name] = model.predict_proba({"conv": maps, "arrays": arrays}.get(name, vectors))
    labels = [("red", "green", "blue")[i % 3] for i in range(24)]
    how = {"backbone": "scratch/leaky", "weights": "none", "image_size": 8, "head_layers": "4 relu", "unfreeze": "1"}
    tuned = featx.finetune(pixels(), labels=labels, epochs=2, batch_size=8, workers=0, val=0.25, **how)
    tuned.save(folder / "finetuned.featx")
    expected["finetuned"] = tuned.predict_proba(pixels(), workers=0, engine="eager")
    np.savez_compressed(folder / "expected.npz", **{name: found.astype(np.float32) for name, found in expected.items()})


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
