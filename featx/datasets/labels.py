"""From labels as people write them to positions in a list of classes; which column of a table is what."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.datasets.dataset import UNLABELLED, readable
from featx.errors import DataError


def encode_labels(values: Iterable[Any]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Turn labels into positions in the list of the classes that occur.

    Parameters
    ----------
    values : iterable of str, int, bool, float or None
        A label each. None, NaN, the empty string and the whole number -1 are rows without one.

    Returns
    -------
    labels : ndarray of int64, shape (n,)
        Positions in `classes`, -1 for rows without a label.
    classes : tuple of str
        In numerical order when all are whole numbers, else by code point.

    Raises
    ------
    DataError
        If a label is a fraction.

    Examples
    --------
    >>> encode_labels(["dog", "", "cat", "dog"])
    (array([ 1, -1,  0,  1]), ('cat', 'dog'))
    >>> encode_labels([10, 9, -1])
    (array([ 1,  0, -1]), ('9', '10'))
    """
    written = [(type(value), value) for value in values]  # True is not the label 1
    names = {one: _name(one[1]) for one in set(written)}
    found = {name for name in names.values() if name is not None}
    classes = sorted(found, key=_order(found))
    positions: dict[str | None, int] = {name: k for k, name in enumerate(classes)} | {None: UNLABELLED}
    numbers = {one: positions[name] for one, name in names.items()}
    return np.array([numbers[one] for one in written], np.int64).reshape(-1), tuple(classes)


def flat_labels(labels: Sequence[Any] | np.ndarray | None, n: int, what: str) -> list[Any]:
    """Return one label a row, from a list, an array (n,) or (n, 1), a one-hot array (n, k), or None.

    Raises
    ------
    DataError
        If there are not `n` of them.
    """
    if labels is None:
        return [None] * n
    array = labels if isinstance(labels, np.ndarray) else None
    if array is not None and array.ndim == 2 and array.shape[1] > 1 and _is_one_hot(array):
        array = array.argmax(axis=1)
    values = list(labels) if array is None else array.ravel().tolist()
    if len(values) != n:
        raise DataError(f"{what} must be one an image, {n:,}; got {len(values):,}.")
    return values


def _is_one_hot(array: np.ndarray) -> bool:
    return bool(((array == 0) | (array == 1)).all() and (array.sum(axis=1) == 1).all())


def numbered_labels(values: Iterable[Any], classes: Sequence[str], source: str) -> np.ndarray:
    """Check labels that are positions in `classes` already; None is a row without one.

    Raises
    ------
    DataError
        If there is no class of such a number.
    """
    labels = np.array([UNLABELLED if value is None else value for value in values], np.int64).reshape(-1)
    wrong = labels[(labels < UNLABELLED) | (labels >= len(classes))]
    if len(wrong):
        raise DataError(
            f"{source}: label {wrong[0]} is none of the {len(classes)} classes it names, 0 to {len(classes) - 1}."
        )
    return labels


def _name(value: Any) -> str | None:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, str):
        return readable(value.strip()) or None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float):
        if not value.is_integer():
            raise DataError(f"A label must be a name or a whole number, got {value!r}. Round it into classes first.")
        value = int(value)
    return None if value == UNLABELLED and not isinstance(value, bool) else str(value)


def _order(names: set[str]) -> Callable[[str], Any]:
    return _by_number if all(name.isascii() and name.isdecimal() for name in names) else str


def _by_number(name: str) -> tuple[int, str]:
    return int(name), name


IMAGE_NAMES = (
    "image", "img", "file", "filename", "file_name", "filepath", "file_path", "path", "image_path", "img_path",
    "image_name", "image_file", "image_id", "id", "name",
)  # fmt: skip
LABEL_NAMES = (
    "label", "labels", "class", "class_name", "classname", "label_name", "category", "target", "breed", "species",
    "fine_label", "cls", "diagnosis", "y",
)  # fmt: skip
SPLIT_NAMES = ("split", "subset", "partition")


@dataclass(frozen=True)
class Columns:
    """The columns that the user named; None where featx is to find them.

    Parameters
    ----------
    image, label, split : str or None
        Values of ``--image-column``, ``--label-column``, ``--split-column``.
    """

    image: str | None = None
    label: str | None = None
    split: str | None = None

    @property
    def named(self) -> str | None:
        """The first option that was given."""
        options = {"--image-column": self.image, "--label-column": self.label, "--split-column": self.split}
        return next((option for option, value in options.items() if value is not None), None)


def find_column(
    present: Sequence[str], wanted: str | None, known: Sequence[str], *, option: str, source: str
) -> str | None:
    """Return the column that was asked for, or the first known name that is there, whatever its case.

    Raises
    ------
    DataError
        If the column that was asked for is not there.

    Examples
    --------
    >>> find_column(["Id", "Breed"], None, LABEL_NAMES, option="--label-column", source="labels.csv")
    'Breed'
    """
    if wanted is not None:
        if wanted in present:
            return wanted
        raise DataError(f"{source} has no column {wanted!r}. It has: {', '.join(present)}. Change {option}.")
    spelled = {name.lower().strip(): name for name in reversed(present)}
    return next((spelled[name] for name in known if name in spelled), None)
