"""DATA of other libraries: torchvision, the Hugging Face Hub, datasets in memory that give (image, label)."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featx.datasets.dataset import Dataset, readable, select
from featx.datasets.folders import Files
from featx.datasets.labels import IMAGE_NAMES, Columns, beside_columns, find_column, numbered_labels, read_beside
from featx.datasets.memory import channels_last, check_pixels, join_parts, pixels_in
from featx.datasets.splits import no_splits
from featx.datasets.targets import label_columns, read_targets, with_targets
from featx.errors import DataError, MissingExtraError, OptionError, UnknownNameError
from featx.images import File, ImageData, item_id, pixels_of
from featx.targets import Targets

#: Where torchvision's files go unless ``--images`` says otherwise.
TORCHVISION_FOLDER = Path("~/.cache/featx/torchvision")

_TORCHVISION_SPLITS = ("train", "trainval", "val", "valid", "test")


def open_torchvision(name: str, folder: Path | None = None) -> Dataset:
    """Open a classification dataset of torchvision, all splits of it, downloaded where it can be.

    Parameters
    ----------
    name : str
        A class of `torchvision.datasets`, as ``CIFAR10``.
    folder : Path, optional
        Where its files are, or go; `TORCHVISION_FOLDER` by default.
    """
    from torchvision import datasets

    if name not in datasets.__all__:
        listing = "https://docs.pytorch.org/vision/stable/datasets.html"
        raise UnknownNameError.among("torchvision dataset", name, datasets.__all__, listing)
    parts = _torchvision_parts(name, getattr(datasets, name), (folder or TORCHVISION_FOLDER).expanduser())
    values = [_targets(name, part) for part in parts.values()]
    classes = getattr(next(iter(parts.values())), "classes", None)
    names = None if classes is None else [one if isinstance(one, str) else ", ".join(one) for one in classes]
    return join_parts(
        f"torchvision-{name}", f"torchvision:{name}", parts, values, lambda row: pixels_of(row[0]), names=names
    )


def _torchvision_parts(name: str, kind: Callable[..., Any], folder: Path) -> dict[str, Any]:
    taken = inspect.signature(kind).parameters
    fixed = {key: value for key, value in {"root": str(folder), "download": True}.items() if key in taken}
    variants: dict[str, dict[str, Any]] = {"": {}}
    if "train" in taken:
        variants = {"train": {"train": True}, "test": {"train": False}}
    elif "split" in taken:
        variants = {split: {"split": split} for split in _TORCHVISION_SPLITS}
    parts: dict[str, Any] = {}
    unknown = ""
    for split, choice in variants.items():
        if split == "trainval" and "train" in parts:
            continue
        try:
            with contextlib.redirect_stdout(sys.stderr):  # it reports its downloads there
                parts[split.removesuffix("val") or split] = kind(**fixed, **choice)
        except (TypeError, ValueError) as error:  # no such split
            unknown = _line(error)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"torchvision:{name} is not in {folder} and cannot be downloaded ({_line(error)}). "
                "Put its files there, or name the folder they are in with --images."
            ) from error
    if not parts:
        raise DataError(
            f"torchvision:{name} cannot be opened by its name alone ({unknown}). Save it as a folder of images."
        )
    return parts


def _targets(name: str, part: Any) -> list[Any]:
    targets = getattr(part, "targets", getattr(part, "labels", None))
    if targets is None:
        targets = [part[row][1] for row in range(len(part))]
    array = np.asarray(targets)
    if array.shape != (len(part),):
        raise DataError(f"torchvision:{name} has no single label an image. Choose a classification dataset.")
    return list(array.tolist())


def open_hf(name: str, columns: Columns) -> Dataset:
    """Open a dataset of the Hugging Face Hub, or what else ``datasets.load_dataset`` takes.

    Raises
    ------
    MissingExtraError
        If the package ``datasets`` is not installed.
    DataError
        If it cannot be loaded, or has no column of images.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError.of("datasets", "hf", f"hf:{name}") from error
    try:
        parts = dict(datasets.load_dataset(name))
    except Exception as error:  # whatever the hub, the network or the dataset's own files raise
        raise DataError(f"hf:{name} cannot be loaded: {_line(error)}") from error
    return _open_hf(parts, name.replace("/", "-"), f"hf:{name}", columns)


def open_hf_object(source: Any, columns: Columns) -> Dataset:
    """Open a ``Dataset`` or ``DatasetDict`` of Hugging Face that is loaded already.

    Raises
    ------
    DataError
        If it is streamed, or has no column of images.
    """
    parts = dict(source) if isinstance(source, dict) else {str(source.split or ""): source}
    if not all(hasattr(part, "select_columns") and hasattr(part, "__len__") for part in parts.values()):
        raise DataError("A streamed dataset has no rows to come back to. Load it without streaming=True.")
    fingerprints = " ".join(str(getattr(part, "_fingerprint", "")) for part in parts.values())
    return _open_hf(parts, "dataset", f"The dataset {fingerprints}".rstrip(), columns)


def _open_hf(parts: dict[str, Any], title: str, source: str, columns: Columns) -> Dataset:
    import datasets

    features = next(iter(parts.values())).features
    if columns.split is not None:
        raise OptionError(f"{source} has splits of its own ({', '.join(parts)}). Leave out --split-column.")
    images = [key for key, feature in features.items() if isinstance(feature, datasets.Image)]
    image = find_column(images, columns.image, IMAGE_NAMES, option="--image-column", source=source) or next(
        iter(images), None
    )
    if image is None:
        raise DataError(f"{source} has no column of images. It has: {', '.join(features)}.")
    rest = [key for key in features if key != image]
    labels = label_columns(rest, columns, source)
    kinds = [getattr(features[name], "feature", features[name]) for name in labels]
    names = getattr(kinds[0], "names", None) if len(kinds) == 1 else None
    cells = {name: [one for part in parts.values() for one in part[name]] for name in labels}
    targets, notes = read_targets(cells, columns, source, first=0)
    if targets is not None and names and all(name.isdecimal() for name in targets.names):  # they were numbers of names
        targets = Targets(targets.task, tuple(names[int(name)] for name in targets.names), targets.array)
    label = labels[0] if labels and targets is None else None
    names = names if label else None
    values = [list(part[label]) if label else [None] * len(part) for part in parts.values()]
    encoded = {
        split: part.select_columns([image]).cast_column(image, datasets.Image(decode=False))
        for split, part in parts.items()
    }

    def image_of(row: Any) -> bytes:
        stored = row[image]
        return stored["bytes"] if stored["bytes"] is not None else File(stored["path"]).read()

    beside = beside_columns(rest, columns, source)
    told: Any = read_beside(
        {role: [one for part in parts.values() for one in part[name]] for role, name in beside.items()}, source
    )
    dataset = join_parts(title, f"{source} {image} {label}", encoded, values, image_of, names=names)
    return with_targets(dataclasses.replace(dataset, **told), targets, notes)


def is_map_style(source: Any) -> bool:
    """Whether `source` gives (image, label) by number, as the datasets of torch and torchvision do."""
    if isinstance(source, Sequence | Mapping | np.ndarray) or not hasattr(source, "__getitem__"):
        return False
    try:
        first = source[0] if len(source) else None
    except Exception:  # noqa: BLE001 - somebody else's code: whatever it is, no such dataset
        return False
    return isinstance(first, tuple) and len(first) >= 2


def open_map_style(source: Any) -> Dataset:
    """Open a dataset that gives (image, label) by number: torchvision's folders by their files, others as they are.

    Parameters
    ----------
    source : torch.utils.data.Dataset, or anything with a length that is read by number
        Images are Pillow images, uint8 arrays (h, w[, 1|3|4]), or tensors (c, h, w) of uint8 or of floats in 0–1.
        A ``Subset`` of one keeps its order.

    Raises
    ------
    DataError
        If an image is something else.
    """
    if hasattr(source, "indices") and hasattr(source, "dataset"):
        return select(open_map_style(source.dataset), np.asarray(source.indices, dtype=np.intp))
    classes = getattr(source, "classes", None)
    samples = getattr(source, "samples", None)
    if classes and samples and all(isinstance(path, str) for path, _ in samples):
        root = str(Path(source.root).resolve())
        paths = [os.path.relpath(Path(path).resolve(), root) for path, _ in samples]
        return Dataset(
            title=Path(root).name,
            identity=lambda: "\0".join([root, *paths]),
            ids=[readable(path) for path in paths],
            classes=tuple(classes),
            labels=numbered_labels([label for _, label in samples], classes, root),
            given_splits=no_splits(len(paths)),
            images=Files(root, paths),
            notes=("Read from its files: the dataset's own transform is not applied.",),
        )
    title = type(source).__name__
    targets = getattr(source, "targets", None)
    if targets is None or len(targets) != len(source):
        targets = [source[row][1] for row in range(len(source))]
    labels = [one.item() if hasattr(one, "item") else one for one in targets]
    names = tuple(map(str, classes)) if classes and all(isinstance(one, int) for one in labels) else None
    first = _pixels_of_row(source[0])

    def identity(numbers: np.ndarray) -> str:
        return f"{title} {len(source)} {item_id(first).hex()} {item_id(numbers).hex()}"

    dataset = join_parts(title, identity, {"": source}, [labels], _pixels_of_row, names=names)
    return dataclasses.replace(dataset, notes=("The dataset's own transform is applied: it must not be random.",))


def _pixels_of_row(row: Any) -> ImageData:
    """Return the pixels of an (image, label) row."""
    image = channels_last(row[0])
    if isinstance(image, np.ndarray):
        check_pixels(image[np.newaxis], "The dataset's image")
    elif not (isinstance(image, bytes) or hasattr(image, "getexif")):
        raise DataError(
            f"The dataset gives images of type {type(image).__name__}; Pillow images, uint8 arrays (h, w, 3) or "
            "tensors (3, h, w) are taken."
        )
    return pixels_in(image)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
