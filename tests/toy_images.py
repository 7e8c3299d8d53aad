"""Image files of which each has its own colour, and what a dataset says of them."""

import io
from pathlib import Path

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


def labels_of(dataset: Dataset) -> dict[str, str | None]:
    """The name of the class of each row, None where it has none, by the row's id."""
    names = [*dataset.classes, None]  # -1 is the last
    return {i: names[label] for i, label in zip(dataset.ids, dataset.labels, strict=True)}
