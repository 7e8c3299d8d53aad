"""DATA in memory: arrays, ``.npz`` files, scikit-learn's digits, lists of objects, other libraries' datasets."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
import zipfile
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from featx.datasets.dataset import Dataset, one_by_one
from featx.datasets.folders import stamps_of_parts
from featx.datasets.labels import encode_labels, flat_labels, numbered_labels
from featx.datasets.splits import no_splits, split_name
from featx.datasets.targets import array_targets, with_targets
from featx.errors import DataError, ImageError
from featx.images import ImageData, item_id, pixels_of
from featx.targets import Targets

_SPLIT = "train|validation|valid|val|test"
_PIXELS = re.compile(rf"(?:({_SPLIT})_)?(?:x|images|data)(?:_({_SPLIT}))?")
_LABELS = re.compile(rf"(?:({_SPLIT})_)?(?:y|labels|targets)(?:_({_SPLIT}))?")
_CLASSES = ("classes", "class_names", "label_names")

#: A compressed array of more bytes that are so many times those in its file is a decompression bomb.
_BOMB_BYTES, _BOMB_RATIO = 1 << 30, 100
#: An array (h, w, 3) of at least so many rows and columns is taken for one image, not for h grey ones.
_LEAST_SIDE = 8


class Parts:
    """Images that are read by number from several sequences, one behind the other.

    Parameters
    ----------
    parts : sequence of sequences
        Arrays of images, lists, other libraries' datasets.
    image_of : callable
        Makes the bytes of a file or uint8 pixels of an element.
    path : Path, optional
        The file they come from, which tells when they have changed.
    """

    def __init__(self, parts: Sequence[Any], image_of: Callable[[Any], ImageData], path: Path | None = None) -> None:
        self._parts = parts
        self._starts = list(accumulate(map(len, parts), initial=0))
        self._image_of = image_of
        self._path = path

    def iterate(self, indices: Iterable[int]) -> Iterator[tuple[int, ImageData | ImageError]]:
        """Read images one by one."""
        return one_by_one(self._read, indices)

    def _read(self, i: int) -> ImageData:
        part = bisect_right(self._starts, i) - 1
        return self._image_of(self._parts[part][i - self._starts[part]])

    def stamps(self) -> np.ndarray | None:
        """Digest the status of the file, if there is one, and the row; nothing else tells whether it has changed."""
        return None if self._path is None else stamps_of_parts([str(self._path)], [self._starts[-1]])


def join_parts(
    title: str,
    identity: str | Callable[[np.ndarray], str],
    parts: Mapping[str, Any],
    values: Sequence[Iterable[Any]],
    image_of: Callable[[Any], ImageData],
    *,
    names: Sequence[str] | None = None,
    path: Path | None = None,
) -> Dataset:
    """Return a dataset of images that are read by number, split by split.

    Parameters
    ----------
    title, identity
        As of a `Dataset`; `identity` may be made of the labels.
    parts : mapping of str to sequence
        Images of each split, empty for none.
    values : sequence of iterables
        Labels of each.
    image_of, path
        As of `Parts`.
    names : sequence of str, optional
        Classes that the labels are numbers of; by default those that occur.
    """
    if names is None:
        labels, classes = encode_labels(chain(*values))
    else:
        labels, classes = numbered_labels(chain(*values), names, title), tuple(map(str, names))
    return Dataset(
        title=title,
        identity=lambda: identity if isinstance(identity, str) else identity(labels),
        ids=[i for split, part in parts.items() for i in row_numbers(len(part), split)],
        classes=classes,
        labels=labels,
        given_splits=np.repeat([split_name(split) or split for split in parts], [len(part) for part in parts.values()]),
        images=Parts(list(parts.values()), image_of, path),
    )


def pixels_in(image: Any) -> ImageData:
    """Return a Pillow image or an array as uint8 pixels; the bytes of a file as they are."""
    if isinstance(image, Image.Image):
        return pixels_of(image)
    return image if isinstance(image, bytes) else as_uint8(image)


def as_uint8(pixels: np.ndarray) -> np.ndarray:
    """Scale floats in 0–1 to 0–255; leave uint8 as it is."""
    return pixels if pixels.dtype == np.uint8 else np.rint(pixels * 255).astype(np.uint8)


def channels_last(image: Any, ndim: int = 3) -> Any:
    """Return a torch tensor as an array, its channels behind if it has `ndim` axes; anything else as it is.

    Examples
    --------
    >>> channels_last("a.jpg")
    'a.jpg'
    """
    if type(image).__module__.partition(".")[0] != "torch" or not hasattr(image, "numpy"):
        return image
    image = image.detach().cpu()
    array: np.ndarray = (image.float() if image.is_floating_point() else image).numpy()
    return np.moveaxis(array, -3, -1) if array.ndim == ndim and array.shape[-3] in (1, 3, 4) else array


def open_array(pixels: np.ndarray, labels: Sequence[Any] | np.ndarray | None = None) -> Dataset:
    """Open an array of images in memory."""
    check_pixels(pixels, "The array")

    def identity(numbers: np.ndarray) -> str:
        return item_id(pixels).hex() + item_id(numbers).hex()

    values = flat_labels(labels, len(pixels), "The labels")
    return join_parts("array", identity, {"": pixels}, [values], as_uint8)


def open_digits() -> Dataset:
    """Open the 1,797 handwritten digits, 8×8, that come with scikit-learn."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    parts = {"": as_uint8(digits.images / 16)}
    return join_parts("digits", "digits", parts, [digits.target], as_uint8, names=digits.target_names)


def open_npz(path: Path, task: str = "auto") -> Dataset:
    """Open ``X, y``, ``x_train, y_train, x_test, y_test`` or ``train_images, train_labels, …`` of a file.

    Parameters
    ----------
    path : Path
    task : str
        What the labels are for, as ``--task``.

    Raises
    ------
    DataError
        If the file is damaged, holds Python objects, or no such arrays.
    """
    arrays = _load(path)
    pixels, labels = _by_split(arrays, _PIXELS), _by_split(arrays, _LABELS)
    if not pixels:
        raise DataError(
            f"{path.name} holds {', '.join(arrays) or 'nothing'}. "
            "It needs X and y, or x_train, y_train, x_test and y_test."
        )
    for split, part in pixels.items():
        check_pixels(part, f"{path.name}: X {split}".rstrip())
    targets = _npz_targets(pixels, labels, task)
    labels = labels if targets is None else {}
    values = [flat_labels(labels.get(split), len(part), f"{path.name}: y {split}") for split, part in pixels.items()]
    names = next((arrays[name] for name in arrays if name.lower() in _CLASSES), None)
    dataset = join_parts(
        path.stem,
        f"npz {path.resolve()}",
        pixels,
        values,
        as_uint8,
        names=None if names is None or targets is not None else names.ravel().tolist(),
        path=path.resolve(),
    )
    if targets is not None and names is not None and names.size == len(targets.names):
        targets = dataclasses.replace(targets, names=tuple(map(str, names.ravel().tolist())))
    return with_targets(dataset, targets)


def _npz_targets(pixels: dict[str, np.ndarray], labels: dict[str, np.ndarray], task: str) -> Targets | None:
    """Return the targets that the labels of all splits are together; None for classes."""
    arrays = [labels[split] for split, part in pixels.items() if len(labels.get(split, ())) == len(part)]
    if len(arrays) < len(labels) or not arrays or len({array.shape[1:] for array in arrays}) > 1:
        return None  # of other lengths, which is refused where they are read as classes
    if any(array.dtype.kind not in "fiub" for array in arrays):
        return None
    rest = arrays[0].shape[1:]
    whole = [labels.get(split, np.full((len(part), *rest), np.nan)) for split, part in pixels.items()]
    return array_targets(np.concatenate(whole), task, sum(map(len, pixels.values())))


def _load(path: Path) -> dict[str, np.ndarray]:
    damaged = f"{path.name} is no .npz file, or a damaged one. Save it with np.savez(path, X=X, y=y)"
    if not zipfile.is_zipfile(path):
        raise DataError(damaged)
    try:
        with zipfile.ZipFile(path) as file:
            for entry in file.infolist():
                _check_entry(file, entry, path.name)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"{path.name} does not fit in memory. Write its images as files, or split it.") from error
    except Exception as error:  # zipfile, zlib, numpy and the tokenizer that it reads headers with: a dozen types
        raise DataError(damaged) from error


def _check_entry(file: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> None:
    """Hold an array's header against its bytes, before memory is taken for what it says.

    Raises
    ------
    DataError
        If it holds Python objects, or inflates to far more than images do.
    ValueError
        If its bytes are not those of such an array.
    """
    if entry.file_size > max(_BOMB_BYTES, _BOMB_RATIO * entry.compress_size):
        raise DataError(
            f"{name} is a decompression bomb: {entry.compress_size:,} bytes that become {entry.file_size:,}. "
            "If they are images, save them with np.savez, which does not compress."
        )
    with file.open(entry) as member:
        first = np.lib.format.read_magic(member) == (1, 0)
        header = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(member)
        if dtype.hasobject:
            raise DataError(f"{name} holds Python objects. Save plain arrays: np.savez(path, X=X, y=y)")
        if min(shape, default=0) < 0 or member.tell() + math.prod(shape) * dtype.itemsize != entry.file_size:
            raise ValueError("its header is not that of its bytes")


def _by_split(arrays: dict[str, np.ndarray], pattern: re.Pattern[str]) -> dict[str, np.ndarray]:
    """Return the arrays whose names fit, by ``train``, ``val``, ``test`` or the empty string."""
    found = {}
    for name, array in arrays.items():
        match = pattern.fullmatch(name.lower())
        if match:
            found[split_name(match[1] or match[2] or "") or ""] = array
    return {split: found[split] for split in ("", "train", "val", "test") if split in found}


def row_numbers(n: int, split: str = "") -> list[str]:
    """Return ids for rows without names.

    Examples
    --------
    >>> row_numbers(2), row_numbers(1, "test")
    (['0', '1'], ['test/0'])
    """
    prefix = f"{split}/" if split else ""
    return [f"{prefix}{i}" for i in range(n)]


def _how_to_scale(pixels: np.ndarray) -> str:
    """Say what makes uint8 or floats in 0–1 of other numbers; a plain conversion wraps round what is above 255."""
    if pixels.dtype.kind in "iu" and pixels.min() >= 0 and pixels.max() <= 255:
        return "Convert it: X.astype('uint8')"
    return "Scale it: X / 65535" if pixels.dtype == np.uint16 else "Scale it: X / X.max()"


def check_pixels(pixels: np.ndarray, what: str) -> None:
    """Refuse arrays that are no images, a block of them at a time.

    Raises
    ------
    DataError
        Unless the shape is (n, h, w) or (n, h, w, 1|3|4), and the values are uint8 or floats in 0–1.
    """
    if pixels.ndim not in (3, 4) or (pixels.ndim == 4 and pixels.shape[3] not in (1, 3, 4)) or pixels.size == 0:
        channels_first = pixels.ndim == 4 and pixels.shape[1] in (1, 3, 4)
        hint = " Put the channels last: X.transpose(0, 2, 3, 1)" if channels_first else ""
        raise DataError(f"{what} must be of shape (n, h, w) or (n, h, w, 1|3|4), got {pixels.shape}.{hint}")
    if pixels.ndim == 3 and pixels.shape[2] in (3, 4) and min(pixels.shape[:2]) >= _LEAST_SIDE:
        raise DataError(
            f"{what} of shape {pixels.shape} looks like one image in colour: X[np.newaxis]. If these are grey images "
            f"{pixels.shape[2]} pixels wide: X[..., np.newaxis]"
        )
    if pixels.dtype == np.uint8:
        return
    if pixels.dtype.kind != "f":
        raise DataError(f"{what} must be uint8, or floats in 0–1; got {pixels.dtype}. {_how_to_scale(pixels)}")
    for start in range(0, len(pixels), 1024):
        low, high = pixels[start : start + 1024].min(), pixels[start : start + 1024].max()
        if not (low >= 0 and high <= 1):
            centred = -1 <= low < 0 and high <= 1
            hint = "Scale it: (X + 1) / 2" if centred else "Scale it: X / 255"
            hint = "Leave those images out." if np.isnan(low) else hint
            raise DataError(f"{what} has floats from {low:g} to {high:g}; they must lie in 0–1. {hint}")


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

    def identity(numbers: np.ndarray) -> str:
        digest = hashlib.sha256(item_id(numbers))
        for _, image in dataset.iterate(range(len(objects))):
            digest.update(b"?" if isinstance(image, ImageError) else item_id(image))
        return digest.hexdigest()

    values = flat_labels(labels, len(objects), "The labels")
    dataset = join_parts("images", identity, {"": objects}, [values], pixels_in)
    return dataset


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
