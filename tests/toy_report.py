"""A small labelled folder, a model of it and its report: with class names and labels that mean harm."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

import featx
from featx.features import Features

#: Names of the classes; the first would run if it were ever more than text.
CLASSES = ("<script>alert(1)</script>", "& <b>bold</b>", '"quoted"', "plain")
PER_CLASS = 60
#: Every so many-th test image bears the label of the next class.
MISLABELLED = 6


@dataclass
class Toy:
    """Where the parts of a small experiment are."""

    csv: Path
    images: Path
    cache: Path
    table: Features
    model: featx.Model
    path: Path

    def report(self, **options):
        """Return the report of its model."""
        return featx.report(self.model, **options)


def make(folder: Path) -> Toy:
    """Write images of four digits, extract them with a small random network, and fit a head."""
    images = folder / "images"
    images.mkdir(parents=True)
    pixels, digits = load_digits(return_X_y=True)
    rows = []
    for digit in range(len(CLASSES)):
        for k, image in enumerate(pixels[digits == digit][:PER_CLASS]):
            name = f"{digit}-{k}.png"
            Image.fromarray((image.reshape(8, 8) * 15.9).astype(np.uint8)).resize((16, 16)).save(images / name)
            split = "test" if k % 2 else "train"
            label = CLASSES[(digit + (split == "test" and k % MISLABELLED == 1)) % len(CLASSES)]
            rows.append((name, label, split))
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "label", "split"), *rows])
    request = {"backbone": "shufflenet_v2_x0_5", "weights": "none", "image_size": 64}
    table = featx.extract(
        folder / "labels.csv", images=images, cache=folder / "cache", workers=0, engine="eager", **request
    )
    model = featx.fit(table, "logreg")
    return Toy(folder / "labels.csv", images, folder / "cache", table, model, model.save(folder / "model.featx"))
