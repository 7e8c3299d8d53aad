"""Classes have ancestors: a species its genus and its family. How often at least those are right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import DataError, MissingDataError
from featx.model.tabulate import read_csv

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from featx.evaluation.metrics import Indices
    from featx.model import Accuracy


@dataclass(frozen=True, eq=False)
class Level:
    """One level of a hierarchy above k classes.

    Attributes
    ----------
    name : str
        What it is called, such as ``genus``.
    ancestors : ndarray of int64, shape (k,)
        Number of the ancestor that each class has on it; classes that share one have the same.
    """

    name: str
    ancestors: Indices

    @property
    def n_ancestors(self) -> int:
        """How many there are."""
        return len(np.unique(self.ancestors))


@dataclass(frozen=True)
class LevelScores:
    """How often the ancestor of what is predicted is that of the truth.

    Attributes
    ----------
    level : str
        Name of the level.
    n_ancestors : int
        Ancestors that the classes have on it.
    accuracy : Accuracy
        Share of rows whose predicted class has the ancestor of the true one, with its interval.
    """

    level: str
    n_ancestors: int
    accuracy: Accuracy

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: level, n_ancestors, and what an accuracy has."""
        return {"level": self.level, "n_ancestors": self.n_ancestors, **self.accuracy.to_dict()}


def read_levels(path: str | Path, classes: Sequence[str]) -> tuple[Level, ...]:
    """Read what stands above classes.

    Parameters
    ----------
    path : path-like
        A CSV with a header: the class, then an ancestor in each further column, whose name is that of the level. A
        class whose cell is empty stands there by itself. Rows of other classes are passed over.
    classes : sequence of str, length k
        The classes that must be there.

    Returns
    -------
    tuple of Level
        In the order of the columns.

    Raises
    ------
    MissingDataError
        If there is no such file.
    DataError
        If it has no ancestors, lacks a class, or gives one several ancestors on a level.
    """
    try:
        header, rows = read_csv(path)
    except FileNotFoundError as error:
        raise MissingDataError(f"No hierarchy at {path}. Name an existing CSV: --hierarchy FILE") from error
    names = [name.strip() for name in header[1:]]
    if not names or "" in names or len(set(names)) < len(names):
        raise DataError(
            f"{path} needs a header that names the class and, in further columns, each level above it once: "
            f"class,genus,family; it has {','.join(header)}"
        )
    above: dict[str, list[str]] = {}
    for label, *cells in rows:
        ancestors = [cell.strip() for cell in cells]
        if above.setdefault(label.strip(), ancestors) != ancestors:
            raise DataError(f"{path} gives {label.strip()!r} other ancestors on a second line. Leave one of them.")
    missing = [name for name in classes if name.strip() not in above]
    if missing:
        raise DataError(
            f"{path} has no line for {len(missing):,} of the model's {len(classes):,} classes, the first of them "
            f"{missing[0]!r}. Add a line for each; a cell may be empty."
        )
    lines = [above[name.strip()] for name in classes]
    return tuple(Level(name, _numbered([cells[j] for cells in lines])) for j, name in enumerate(names))


def _numbered(names: list[str]) -> Indices:
    """Return a number for each name, the same for the same; each empty one has its own."""
    place: dict[str | int, int] = {}
    return np.array([place.setdefault(name or i, len(place)) for i, name in enumerate(names)], dtype=np.int64)
