"""From cells as people write them to several labels or numbers an image; and when cells mean those, not classes."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from featx.datasets.dataset import UNLABELLED, Dataset, readable
from featx.datasets.labels import LABEL_NAMES, MISSING_WORDS, Columns, encode_labels, find_column, is_one_hot, number_in
from featx.errors import DataError, OptionError
from featx.images import item_id
from featx.targets import Targets, classes_as_numbers

#: Words that mean 1 and 0 in a column of a label.
_SWITCHES = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}


def label_columns(present: Sequence[str], columns: Columns, source: str) -> list[str]:
    """Return the columns of labels: those named, between commas, or the one whose name is known.

    Raises
    ------
    DataError
        If one that was named is not there.

    Examples
    --------
    >>> label_columns(["file", "cat", "dog"], Columns(label="cat, dog"), "labels.csv")
    ['cat', 'dog']
    """
    wanted = columns.label
    if wanted is None or wanted in present or "," not in wanted:
        found = find_column(present, wanted, LABEL_NAMES, option="--label-column", source=source)
        return [] if found is None else [found]
    names = dict.fromkeys(name.strip() for name in wanted.split(",") if name.strip())
    return [find_column(present, name, (), option="--label-column", source=source) or name for name in names]


def read_targets(
    columns: Mapping[str, Sequence[Any]], how: Columns, source: str, *, first: int = 1
) -> tuple[Targets | None, list[str]]:
    """Return the targets that columns hold, and what a user should know of them.

    Parameters
    ----------
    columns : mapping of str to sequence
        The cells of each: texts, numbers, lists, or None.
    how : Columns
        Its task and separator.
    source : str
        How to name the table.
    first : int
        Number of the first row, for messages.

    Returns
    -------
    targets : Targets or None
        None where the cells are one class an image.
    notes : list of str

    Raises
    ------
    DataError
        If cells are not what the task takes.

    Examples
    --------
    >>> read_targets({"tags": ["cat;dog", "dog", ""]}, Columns(separator=";"), "labels.csv")[0].array.tolist()
    [[1.0, 1.0], [0.0, 1.0], [nan, nan]]
    >>> read_targets({"price": ["1.5", "3", ""]}, Columns(), "labels.csv")[0].array.ravel().tolist()
    [1.5, 3.0, nan]
    """
    if not columns:
        return None, []
    if how.task == "classify":
        if how.separator is not None or len(columns) > 1:
            told = "--label-separator makes" if how.separator is not None else "several columns of labels make"
            raise OptionError(f"--task classify takes one class an image, and {told} more. Leave one of them out.")
        return None, []
    cells = {name: [_known(cell) for cell in of] for name, of in columns.items()}
    (name, values), *others = cells.items()
    if how.separator is not None and others:
        raise OptionError("--label-separator parts the cells of one column. Name one: --label-column COLUMN")
    if not others and how.task != "regress":
        lists = _as_lists(values, how.separator)
        if lists is not None:
            return _of_lists(lists, name, source)
    numbers = {name: [_number(cell) for cell in of] for name, of in cells.items()}
    given = [number for of in numbers.values() for number in of if number is not None]
    task = how.task if how.task != "auto" else _guess(given, alone=not others)
    if task is None:
        return None, []
    _check_cells(cells, numbers, task, source, first)
    if task == "multilabel" and not others and not set(given) <= {0.0, 1.0}:
        raise _no_separator(name, source)
    table = np.array([[math.nan if n is None else n for n in of] for of in numbers.values()], np.float64).T
    table = np.where((table < 0) & (task == "multilabel"), math.nan, table)
    targets = Targets(task, tuple(numbers), table.astype(np.float32))
    _check_values(targets, source)
    return targets, [_told(targets, source)]


def array_targets(labels: Any, task: str, n: int) -> Targets | None:
    """Return the targets that Python's `labels` are; None for one class an image.

    Parameters
    ----------
    labels : sequence, ndarray or DataFrame
        Targets are arrays (n, t) of 0, 1 and NaN that are not one-hot, or of numbers; floats (n,) that are not all
        whole; lists of label names. Columns of a DataFrame are their names, else numbers from 0 are.
    task : str
        As ``--task``: ``auto`` looks at them.
    n : int
        How many images there are.

    Raises
    ------
    DataError
        If there are not `n` of them, or they are not what the task takes.
    """
    if task == "classify":
        return None
    if len(labels) != n:
        raise DataError(f"The labels must be one an image, {n:,}; got {len(labels):,}.")
    named = getattr(labels, "columns", None)
    if not isinstance(labels, np.ndarray) and any(isinstance(one, list | tuple | set | frozenset) for one in labels):
        array = np.asarray(labels, dtype=object)
        if array.ndim == 1:
            return read_targets({"labels": list(labels)}, Columns(task=task), "The labels", first=0)[0]
    array = np.asarray(labels)
    if array.ndim == 1:
        return read_targets({"target": array.tolist()}, Columns(task=task), "The labels", first=0)[0]
    if array.ndim != 2 or (task == "auto" and (array.shape[1] == 1 or is_one_hot(array))):
        return None
    names = [str(k) for k in range(array.shape[1])] if named is None else [str(name) for name in named]
    columns = {name: array[:, k].tolist() for k, name in enumerate(names)}
    return read_targets(columns, Columns(task=task), "The labels", first=0)[0]


def with_targets(
    dataset: Dataset, targets: Targets | None, notes: Iterable[str] = (), *, in_memory: bool = False
) -> Dataset:
    """Return `dataset` with `targets` in place of classes, under a name of its own; as it is without any.

    Objects in memory are told apart by the values of their targets too, for want of a place.
    """
    if targets is None:
        return dataset
    digest = item_id(np.ascontiguousarray(targets.array)).hex() if in_memory else ""
    return dataclasses.replace(
        dataset,
        identity=lambda: f"{dataset.identity()} {targets.task} {' '.join(targets.names)} {digest}",
        labels=np.full(len(dataset), UNLABELLED, np.int64),
        classes=(),
        targets=targets,
        notes=(*dataset.notes, *notes),
    )


def in_task(dataset: Dataset, task: str) -> Dataset:
    """Return `dataset` with what `task` asks for: classes that are called by numbers are numbers to a regression.

    Raises
    ------
    DataError
        If it has something else.
    """
    if task in ("auto", dataset.task):
        return dataset
    if task == "regress" and dataset.targets is None and dataset.classes:
        return with_targets(dataset, classes_as_numbers(dataset.labels, dataset.classes, "The data"))
    if not (dataset.labels >= 0).any() and dataset.targets is None:
        return dataset  # nothing is labelled, which whoever needs labels says
    has = {"classify": "one class an image", "multilabel": "several labels an image", "regress": "numbers"}
    raise DataError(
        f"--task {task} takes {has[task]}, and the labels are {has[dataset.task]}. Name other columns: "
        f"--label-column {'a,b,c' if task == 'multilabel' else 'COLUMN'}, or leave out --task."
    )


def _known(cell: Any) -> Any:
    """Return a cell as plain data; None where there is none."""
    if isinstance(cell, np.generic | np.ndarray):
        cell = cell.tolist()
    if isinstance(cell, str):
        cell = cell.strip()
        return None if cell in MISSING_WORDS else cell
    return None if isinstance(cell, float) and math.isnan(cell) else cell


def _number(cell: Any) -> float | None:
    """Return the number in a cell, NaN where it holds something else; None for no cell."""
    if cell is None:
        return None
    if isinstance(cell, str):
        number = _SWITCHES.get(cell.lower(), number_in(cell))
        return math.nan if number is None else number
    return float(cell) if isinstance(cell, int | float) and math.isfinite(cell) else math.nan


def _guess(numbers: list[float], *, alone: bool) -> str | None:
    """Return the task that columns of numbers mean; None for classes, which one column of whole numbers is."""
    fits = [n for n in numbers if not math.isnan(n)]
    if alone:
        return "regress" if len(fits) == len(numbers) and not all(n.is_integer() for n in fits) else None
    return "multilabel" if set(fits) <= {0.0, 1.0} else "regress"


def _as_lists(cells: Sequence[Any], separator: str | None) -> list[list[str] | None] | None:
    """Return the labels of each row where cells are parted by `separator`, or are lists, in JSON too; else None."""
    if separator is not None:
        if not separator:
            raise OptionError("--label-separator is empty. Name what stands between labels: --label-separator ';'")
        return [None if cell is None else _names(str(cell).split(separator)) for cell in cells]
    known = [cell for cell in cells if cell is not None]
    if known and all(isinstance(cell, str) and cell[:1] == "[" and cell[-1:] == "]" for cell in known):
        try:
            cells = [None if cell is None else json.loads(cell) for cell in cells]
        except ValueError:
            return None
        known = [cell for cell in cells if cell is not None]
    if not known or not all(isinstance(cell, list | tuple | set | frozenset) for cell in known):
        return None
    return [None if cell is None else _names(cell) for cell in cells]


def _names(words: Iterable[Any]) -> list[str]:
    return [name for word in words if (name := readable(str(word).strip()))]


def _of_lists(lists: list[list[str] | None], column: str, source: str) -> tuple[Targets, list[str]]:
    numbers, names = encode_labels([name for row in lists if row is not None for name in row])
    if not names:
        raise DataError(f"{source}: no cell of column {column!r} names a label. Name another: --label-column COLUMN")
    values = np.full((len(lists), len(names)), np.nan, np.float32)
    place = dict(zip([name for row in lists if row is not None for name in row], numbers.tolist(), strict=True))
    for values_of_row, row in zip(values, lists, strict=True):
        if row is not None:
            values_of_row[:] = 0
            values_of_row[[place[name] for name in row]] = 1
    targets = Targets("multilabel", names, values)
    return targets, [_told(targets, source)]


def _told(targets: Targets, source: str) -> str:
    known, names = targets.known, ", ".join(targets.names[:6]) + (", …" if len(targets.names) > 6 else "")
    n = int((~known).sum())
    unlabelled = f"; without them {n:,} of {len(known):,} rows" if n else ""
    if targets.task == "regress":
        return f"{source}: numbers to be predicted, {names}{unlabelled}."
    mean = np.nansum(targets.array) / max(1, known.sum())
    return f"{source}: of labels ({names}) {mean:.1f} an image{unlabelled}."


def _check_cells(
    cells: Mapping[str, Sequence[Any]],
    numbers: Mapping[str, Sequence[float | None]],
    task: str,
    source: str,
    first: int,
) -> None:
    """Name the first cell that is not what `task` takes."""
    allowed = "numbers" if task == "regress" else "0, 1 and nothing"
    for name, of in numbers.items():
        for i, number in enumerate(of):
            if number is not None and (math.isnan(number) or (task == "multilabel" and number not in (0.0, 1.0, -1.0))):
                if task == "multilabel" and len(numbers) == 1:
                    raise _no_separator(name, source)
                raise DataError(
                    f"{source}: column {name!r} holds {cells[name][i]!r} in row {first + i}, where {task} takes "
                    f"{allowed}. Empty the cell, which leaves it unlabelled, or name other columns: --label-column a,b"
                )


def _no_separator(column: str, source: str) -> DataError:
    return DataError(
        f"{source}: --task multilabel needs columns of 0 and 1 (--label-column a,b,c), or to know what stands between "
        f"the labels in a cell of {column!r}: --label-separator ';'"
    )


def _check_values(targets: Targets, source: str) -> None:
    for name, column in zip(targets.names, targets.array.T, strict=True):
        known = column[~np.isnan(column)]
        if not len(known):
            raise DataError(f"{source}: column {name!r} is empty. Leave it out of --label-column.")
        if not np.isfinite(known).all():
            raise DataError(f"{source}: column {name!r} holds numbers beyond 3e38. Take their logarithm.")
        if targets.task == "regress" and (known == known[0]).all() and len(known) > 1:
            raise DataError(
                f"{source}: column {name!r} is {known[0]:g} in every row, so there is nothing to learn. "
                "Name another: --label-column COLUMN"
            )
