"""What rows can be filtered and sliced by: splits, groups, folders, and the other columns of a CSV of labels."""

from __future__ import annotations

import csv
import itertools
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featx.features import Features

#: Values that a column of texts may have, and parts that one of numbers is cut into.
_MOST_VALUES, _PARTS = 200, 4
_MOST_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class Column:
    """Values of rows.

    Attributes
    ----------
    values : list of str
    codes : ndarray of int32, shape (n,)
        Positions in `values`, −1 for none.
    """

    values: list[str]
    codes: NDArray[np.int32]


def columns_of(table: Features) -> dict[str, Column]:
    """Return the columns of a table that have two values or more, by name."""
    ids = table.ids.tolist()
    texts = {"split": table.splits.tolist(), "group": table.groups.tolist()}
    texts["folder"] = [str(PurePosixPath(name).parent) if "/" in name else "" for name in ids]
    texts["kind of file"] = [PurePosixPath(name).suffix.lower() for name in ids]
    for name, values in _of_csv(table).items():
        texts.setdefault(name, values)
    made = {name: _column(values) for name, values in texts.items()}
    return {name: column for name, column in made.items() if column is not None and len(column.values) > 1}


def _column(texts: list[str]) -> Column | None:
    values = sorted(set(texts) - {""})
    if len(values) > _MOST_VALUES:
        try:
            numbers = np.array([float(text) if text else np.nan for text in texts])
        except ValueError:
            return None
        return _cut(numbers)
    place = {value: i for i, value in enumerate(values)} | {"": -1}
    return Column(values, np.array([place[text] for text in texts], np.int32))


def _cut(numbers: NDArray[np.float64]) -> Column:
    edges = np.unique(np.nanquantile(numbers, np.linspace(0, 1, _PARTS + 1)))
    codes = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, max(0, len(edges) - 2))
    names = [f"{low:g} – {high:g}" for low, high in itertools.pairwise(edges)]
    return Column(names, np.where(np.isnan(numbers), -1, codes).astype(np.int32))


def _of_csv(table: Features) -> dict[str, list[str]]:
    """Return the columns of the CSV that a table was made of, matched by the column that names the images."""
    path = Path(str((table.provenance.get("source") or {}).get("data", "")))
    if path.suffix.lower() not in (".csv", ".tsv") or not path.is_file() or path.stat().st_size > _MOST_BYTES:
        return {}
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = list(csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ","))
    names = [name for name in (rows[0] if rows else {}) if name]
    ids = table.ids.tolist()
    known = {*ids, *(PurePosixPath(name).stem for name in ids)}
    fits = {name: sum(str(row[name]) in known for row in rows[:1000]) for name in names}
    if not names or not max(fits.values()):
        return {}
    key = max(fits, key=lambda name: fits[name])
    by_name = {str(row[key]): row for row in rows}
    found = [by_name.get(name) or by_name.get(PurePosixPath(name).stem) or {} for name in ids]
    return {name: [str(row.get(name) or "") for row in found] for name in names if name != key}
