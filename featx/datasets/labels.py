"""From labels as people write them to positions in a list of classes; which column of a table is what."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
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


#: What pandas reads as a missing value.
MISSING_WORDS = frozenset({
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
})  # fmt: skip
_SEPARATORS = ";|,"


def read_label_cells(cells: Sequence[str], column: str, source: str) -> tuple[list[str | None], list[str]]:
    """Read the labels in a column of text.

    Parameters
    ----------
    cells : sequence of str
        The words that pandas takes for missing values are no labels. Whole numbers written as ``1.0`` are ``1``
        where all cells are numbers.
    column, source : str
        How to name the column and the file.

    Returns
    -------
    labels : list of str or None
    notes : list of str
        What a user should know of them: missing ones, several in a cell.

    Raises
    ------
    DataError
        If all are numbers, and one is a fraction.
    """
    labels = [None if cell in MISSING_WORDS else cell for cell in cells]
    distinct = {label for label in labels if label is not None}
    notes = []
    n_words = sum(1 for cell in cells if cell and cell in MISSING_WORDS)
    if n_words:
        word = next(cell for cell in cells if cell and cell in MISSING_WORDS)
        notes.append(f"{n_words:,} cells of {column!r} say {word!r} or the like: rows without a label.")
    numbers = {label: number_in(label) for label in distinct}
    if all(number is not None for number in numbers.values()):
        fraction = next((label for label, number in sorted(numbers.items()) if not (number or 0.0).is_integer()), None)
        if fraction is not None:
            raise DataError(
                f"{source}: column {column!r} holds measurements such as {fraction}, and each would be a class of its "
                "own. Predict them as numbers: --task regress; or round them into classes first."
            )
        spelled = {
            label: label if label.lstrip("-").isdecimal() else str(int(numbers[label] or 0)) for label in distinct
        }
        labels = [None if label is None else spelled[label] for label in labels]
    for separator in _SEPARATORS:
        parts = {label: {part.strip() for part in label.split(separator)} for label in distinct}
        counts = Counter(part for of_label in parts.values() for part in of_label)
        several = {
            label
            for label, of_label in parts.items()
            if len(of_label) > 1 and min(counts[part] for part in of_label) > 1
        }
        if several:
            notes.append(
                f"{sum(label in several for label in labels):,} cells of {column!r} seem to hold several labels, as "
                f"{min(several)!r}: each such combination is a class of its own. To part them: "
                f"--label-separator {separator!r}"
            )
            break
    return labels, notes


def numbers_as_classes(column: str, classes: Sequence[str]) -> list[str]:
    """Return a note, if `classes` are the numbers of a column: they may have been meant as measurements."""
    if len(classes) < 2 or any(number_in(name) is None for name in classes):
        return []
    taken = f"The {len(classes):,} different numbers in column {column!r} are taken as {len(classes):,} classes."
    return [f"{taken} To predict them as numbers: --task regress"]


def one_hot_labels(columns: Mapping[str, Sequence[str]]) -> tuple[list[str], list[str]] | None:
    """Return the label of each row, and the columns it came from, of columns of 0 and 1 of which one is 1 in each row.

    Examples
    --------
    >>> one_hot_labels({"cat": ["1", "0"], "dog": ["0", "1"], "age": ["3", "4"]})
    (['cat', 'dog'], ['cat', 'dog'])
    """
    switches = {name: cells for name, cells in columns.items() if {number_in(cell) for cell in cells} <= {0.0, 1.0}}
    if len(switches) < 2:
        return None
    table = np.array([[number_in(cell) == 1 for cell in cells] for cells in switches.values()])
    if not (table.sum(axis=0) == 1).all():
        return None
    names = list(switches)
    return [names[k] for k in table.argmax(axis=0)], names


def number_in(text: str) -> float | None:
    """Return the finite number that a text is, None for any other."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in text else None


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
    if array is not None and array.ndim == 2 and array.shape[1] > 1 and is_one_hot(array):
        array = array.argmax(axis=1)
    values = list(labels) if array is None else array.ravel().tolist()
    if len(values) != n:
        raise DataError(f"{what} must be one an image, {n:,}; got {len(values):,}.")
    return values


def is_one_hot(array: np.ndarray) -> bool:
    """Whether an array (n, k) has a single 1 in each row, and else 0."""
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
    "image_name", "image_file", "image_id", "photo", "photo_file", "picture", "id", "name",
)  # fmt: skip
LABEL_NAMES = (
    "label", "labels", "class", "class_name", "classname", "label_name", "category", "target", "breed", "species",
    "fine_label", "cls", "diagnosis", "y",
)  # fmt: skip
SPLIT_NAMES = ("split", "subset", "partition")
#: What else a column may say of an image: what it belongs with, what it is one of, as what, and when it was taken.
BESIDE = ("group", "item", "slot", "time")


@dataclass(frozen=True)
class Columns:
    """The columns that the user named; None where featx is to find them.

    Parameters
    ----------
    image, label, split, group, item, slot, time : str or None
        Values of ``--image-column``, ``--label-column`` and so on. Only the first three are ever found by themselves.
    task : str
        What labels are for, as ``--task``: ``auto`` looks at them.
    separator : str or None
        What stands between the labels in a cell, as ``--label-separator``.
    """

    image: str | None = None
    label: str | None = None
    split: str | None = None
    group: str | None = None
    item: str | None = None
    slot: str | None = None
    time: str | None = None
    task: str = "auto"
    separator: str | None = None

    @property
    def beside(self) -> bool:
        """Whether one of `BESIDE` was named."""
        return any(getattr(self, role) is not None for role in BESIDE)

    @property
    def named(self) -> str | None:
        """The first option that was given."""
        names = ("image", "label", "split", *BESIDE)
        named = [f"--{name}-column" for name in names if getattr(self, name) is not None]
        named += ["--label-separator"] if self.separator is not None else []
        return next(iter(named), None)


def beside_columns(present: Sequence[str], columns: Columns, source: str) -> dict[str, str]:
    """Return which column says what of `BESIDE`, of those that were named.

    Raises
    ------
    DataError
        If one is not there.
    """
    named = {role: getattr(columns, role) for role in BESIDE if getattr(columns, role) is not None}
    return {
        role: find_column(present, name, (), option=f"--{role}-column", source=source) or name
        for role, name in named.items()
    }


def read_beside(cells: Mapping[str, Sequence[Any]], source: str) -> dict[str, Any]:
    """Return the fields of a `Dataset` that columns of `BESIDE` hold, by role.

    Raises
    ------
    DataError
        If a time is none.
    """
    found: dict[str, np.ndarray] = {}
    for role, values in cells.items():
        if role == "time":
            found["times"] = np.array([_time(one, source) for one in values], np.float64)
        else:
            found[f"{role}s"] = np.array(
                ["" if _name_or_none(one) is None else readable(str(one).strip()) for one in values]
            )
    return found


def _name_or_none(value: Any) -> Any:
    return None if value is None or (isinstance(value, float) and math.isnan(value)) else value


def _time(value: Any, source: str) -> float:
    """Return a date or number as a number, days as seconds; NaN for none."""
    if _name_or_none(value) is None or (isinstance(value, str) and value.strip() in MISSING_WORDS):
        return math.nan
    if hasattr(value, "timestamp"):
        return float(value.timestamp())
    text = str(value).strip()
    number = number_in(text)
    if number is not None and not (text.isdecimal() and len(text) == 8 and text[:2] in ("19", "20")):
        return number
    try:  # cameras write 2024:05:31 12:00:00
        date = datetime.fromisoformat(re.sub(r"^(\d{4}):(\d\d):(\d\d)", r"\1-\2-\3", text))
    except ValueError:
        raise DataError(
            f"{source}: {text!r} is no time. Write dates as 2024-05-31 or 2024-05-31 12:00, or numbers; or name "
            "another column: --time-column COLUMN"
        ) from None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


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
