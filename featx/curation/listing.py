"""`Listing`: the answer to a question to a table: some of its rows, in an order, with what was found of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.features import Features


@dataclass(frozen=True, eq=False)
class Listing:
    """Rows of a table, and what was found of each.

    Attributes
    ----------
    table : Features
        The table.
    rows : ndarray of int, shape (m,)
        Positions in it, the first to look at first.
    columns : mapping of str to sequence of length m
        What was found: texts, numbers or None.
    facts : mapping of str to Any
        What was found of all of them together.
    notes : tuple of str
        What one should know, a sentence each.
    shown : tuple of str
        Columns that a terminal is shown; all where none is named.

    Examples
    --------
    >>> table = Features.from_arrays([[1.0, 0.0], [0.9, 0.1]], [0, -1], classes=["cat"], ids=["a.jpg", "b.jpg"])
    >>> Listing(table, np.array([1, 0]), {"similarity": [0.9, 0.8]}).to_dict()
    {'rows': [{'id': 'b.jpg', 'label': None, 'similarity': 0.9}, {'id': 'a.jpg', 'label': 'cat', 'similarity': 0.8}]}
    """

    table: Features
    rows: NDArray[np.intp]
    columns: Mapping[str, Sequence[Any]]
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ids(self) -> tuple[str, ...]:
        """What the rows are called."""
        return tuple(self.table.ids[self.rows].tolist())

    def records(self) -> tuple[list[str], list[list[Any]]]:
        """Return a header and a list a row: file, label, what was found, split; no column of what the table lacks."""
        columns: dict[str, Sequence[Any]] = {"file": self.ids}
        if self.table.classes:
            names = [*self.table.classes, None]  # of −1, the last
            columns["label"] = [names[label] for label in self.table.y[self.rows].tolist()]
        columns |= self.columns
        if (self.table.splits != "").any():
            columns["split"] = [split or None for split in self.table.splits[self.rows].tolist()]
        return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: ``rows``, of which each has an ``id``, and what was found of all."""
        (_, *names), rows = self.records()
        return {"rows": [dict(zip(["id", *names], row, strict=True)) for row in rows], **self.facts}

    def __repr__(self) -> str:
        """Say what it holds in one line."""
        first = f", the first {self.ids[0]}" if len(self) else ""
        return f"<Listing: {len(self):,} of {len(self.table):,} rows{first}; {', '.join(self.columns)}>"
