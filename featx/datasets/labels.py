"""From labels as people write them to positions in a list of classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from featx.datasets.dataset import UNLABELLED
from featx.datasets.naming import readable
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
