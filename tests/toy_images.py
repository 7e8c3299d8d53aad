"""Image files of which each has its own colour, and what a dataset says of them."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from featx.datasets import Dataset


def png(level: int = 0) -> bytes:
    """An image file; another level is another colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (level % 256, level // 256, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def tree(root: Path, *names: str) -> Path:
    """A folder of image files, each of its own colour."""
    for level, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(level))
    return root


def write_photos(folder: Path) -> Path:
    """Write 12 JPEGs of 40 to 62 pixels in three classes: noise tinted blue, green or red."""
    rng = np.random.default_rng(0)
    for channel, name in enumerate(["red", "green", "blue"]):
        (folder / name).mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 120, (40 + 2 * i, 56 + 2 * channel, 3), dtype=np.uint8)
            pixels[..., channel] += 100
            Image.fromarray(pixels).save(folder / name / f"{i}.jpg")
    return folder


def labels_of(dataset: Dataset) -> dict[str, str | None]:
    """The name of the class of each row, None where it has none, by the row's id."""
    names = [*dataset.classes, None]  # -1 is the last
    return {i: names[label] for i, label in zip(dataset.ids, dataset.labels, strict=True)}
