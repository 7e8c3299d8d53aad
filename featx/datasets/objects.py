"""DATA that is a list of Python objects, or another library's dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from featx.datasets.arrays import as_uint8, check_pixels, flat_labels, row_numbers
from featx.datasets.dataset import Dataset, ImageData, item_id, one_by_one
from featx.datasets.labels import encode_labels, numbered_labels
from featx.datasets.splits import no_splits
from featx.errors import DataError, ImageError
from featx.images import pixels_of


class Objects:
    """Pillow images, arrays, and the bytes of image files, in any mixture."""

    def __init__(self, objects: Sequence[Any]) -> None:
        self._objects = objects

    def iterate(self, indices: Iterable[int]) -> Iterator[tuple[int, ImageData | ImageError]]:
        """Give each image as bytes or uint8 pixels."""
        return one_by_one(self._read, indices)

    def _read(self, i: int) -> ImageData:
        image = self._objects[i]
        if isinstance(image, Image.Image):
            return pixels_of(image)
        return image if isinstance(image, bytes) else as_uint8(image)

    def stamps(self) -> None:
        """Say nothing: an object does not tell whether it has changed."""


def open_objects(objects: Sequence[Any], labels: Sequence[Any] | np.ndarray | None = None) -> Dataset:
    """Open a list of Pillow images, arrays (h, w) or (h, w, 1|3|4), and encoded images.

    Raises
    ------
    DataError
        If an element is something else.
    """
    for i, image in enumerate(objects):
        if isinstance(image, np.ndarray):
            check_pixels(image[np.newaxis], f"Image {i}")
        elif not isinstance(image, Image.Image | bytes):
            raise DataError(
                f"Image {i} is of type {type(image).__name__}. A list of images holds paths, Pillow images, "
                "uint8 arrays or the bytes of files."
            )
    images = Objects(objects)
    numbers, classes = encode_labels(flat_labels(labels, len(objects), "The labels"))

    def identity() -> str:
        digest = hashlib.sha256(item_id(numbers))
        for _, image in images.iterate(range(len(objects))):
            digest.update(b"?" if isinstance(image, ImageError) else item_id(image))
        return digest.hexdigest()

    return Dataset(
        title="images",
        identity=identity,
        ids=row_numbers(len(objects)),
        classes=classes,
        labels=numbers,
        given_splits=no_splits(len(objects)),
        images=images,
    )


@runtime_checkable
class Foreign(Protocol):
    """The least that another library's dataset must have."""

    ids: Sequence[str]
    labels: Sequence[Any]

    def read(self, i: int) -> ImageData:
        """Return the image of row `i`."""


class ForeignImages:
    """Images of a `Foreign` dataset, by its own `iterate` and `stamps` where it has them."""

    def __init__(self, dataset: Foreign) -> None:
        self._dataset = dataset

    def iterate(self, indices: Iterable[int]) -> Iterator[tuple[int, ImageData | ImageError]]:
        """Read images by the dataset's `iterate`, or one by one."""
        own = getattr(self._dataset, "iterate", None)
        return own(indices) if own else one_by_one(self._dataset.read, indices)

    def stamps(self) -> np.ndarray | None:
        """Ask the dataset, if it can tell."""
        own = getattr(self._dataset, "stamps", None)
        return own() if own else None


def open_foreign(source: Foreign) -> Dataset:
    """Adopt any object with `ids`, `labels` and `read(i)`; `classes`, `splits`, `name` are used if there."""
    n = len(source.ids)
    given = getattr(source, "classes", None)
    values = flat_labels(source.labels, n, "The dataset's labels")
    if given is None:
        labels, classes = encode_labels(values)
    else:
        classes = tuple(str(name) for name in given)
        labels = numbered_labels(values, classes, "The dataset")
    title = str(getattr(source, "name", type(source).__name__))
    ids = [str(i) for i in source.ids]
    return Dataset(
        title=title,
        identity=lambda: "\0".join([type(source).__module__, title, *ids]) + item_id(labels).hex(),
        ids=ids,
        classes=classes,
        labels=labels,
        given_splits=np.array([str(split) for split in getattr(source, "splits", no_splits(n))]).reshape(n),
        images=ForeignImages(source),
    )
