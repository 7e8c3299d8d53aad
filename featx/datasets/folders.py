"""DATA that is a folder of images: class folders, split folders over them, or a flat one; or a list of files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featx.datasets.arrays import flat_labels
from featx.datasets.dataset import UNLABELLED, Dataset
from featx.datasets.files import Files
from featx.datasets.labels import encode_labels
from featx.datasets.listing import Listing
from featx.datasets.naming import readable
from featx.datasets.placing import place
from featx.datasets.splits import no_splits
from featx.errors import DataError


def open_folder(root: Path, listing: Listing) -> Dataset:
    """Open a listed folder of image files; its class and split folders are read by `placing.place`."""
    ids = unique_ids(listing.images)
    names, splits = place(ids)
    labels, classes = encode_labels(names)
    return Dataset(
        title=root.name,
        identity=lambda: f"folder {root}",
        ids=ids,
        classes=classes,
        labels=labels,
        given_splits=np.array(splits, dtype=str),
        images=Files(str(root), listing.images),
        notes=(*listing.notes, *_hints(root, listing, labels, classes)),
    )


def open_paths(paths: Sequence[str], labels: Sequence[Any] | np.ndarray | None = None) -> Dataset:
    """Open image files one by one, in the order given; ids are the paths as given."""
    for path in paths:
        if Path(path).is_dir():
            raise DataError(f"A list of images holds the folder {path!r}. Give the folder alone, or list its files.")
    root = str(Path.cwd())
    values = flat_labels(labels, len(paths), "The labels")
    numbers, classes = encode_labels(values)
    return Dataset(
        title=Path(paths[0]).stem if len(paths) == 1 else "images",
        identity=lambda: "\0".join([root, *paths, *map(str, values)]),
        ids=[readable(Path(path).as_posix()) for path in paths],
        classes=classes,
        labels=numbers,
        given_splits=no_splits(len(paths)),
        images=Files(root, paths),
    )


def unique_ids(paths: Sequence[str]) -> list[str]:
    """Return paths as ids that all systems spell alike; as they are where two of them would become one."""
    ids = [path if path.isascii() else readable(path) for path in paths]
    return ids if len(set(ids)) == len(ids) else list(paths)


def _hints(root: Path, listing: Listing, labels: np.ndarray, classes: tuple[str, ...]) -> list[str]:
    hints = []
    n_without = int((labels == UNLABELLED).sum())
    tables = [path for path in listing.tables if path.lower().endswith((".csv", ".tsv"))]
    if classes and n_without:
        hints.append(f"Images in no class folder, and so without a label: {n_without:,}.")
    if not classes and tables:
        hints.append(f"No class folders, so no labels. If they are in {tables[0]}: {root / tables[0]} --images {root}")
    if len(classes) == 1:
        deeper = {path.split("/")[-2] for path in listing.images} - {classes[0]}
        if len(deeper) > 1:
            hints.append(
                f"There is one class only, {classes[0]!r}. If the folders in it are the classes, give that folder."
            )
    return hints
