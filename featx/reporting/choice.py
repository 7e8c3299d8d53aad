"""Which rows a report shows: the telling ones, few enough to look at; and images that are there more than once."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from featx.evaluation import Evaluation
    from featx.features import Features

#: Images behind a cell of the confusion matrix, in a grid, of a confused pair, in a map.
PER_CELL, PER_GRID, PER_PAIR, IN_MAP = 24, 24, 8, 1000
#: Confused pairs with examples; training images in the sample; predictions in the random grid; sets of equal images.
N_PAIRS, N_SAMPLES, N_PREDICTIONS, N_DUPLICATES = 8, 40, 12, 12


@dataclass(frozen=True, eq=False, kw_only=True)
class Choice:
    """Rows of an evaluation, as indices into it, by where they are shown.

    Attributes
    ----------
    predictions : list of int
        At random.
    mistakes, unsure : list of int
        The most confident mistakes; the least confident predictions.
    pairs : list of (true, predicted, n, rows)
        The most frequent mistakes with examples.
    cells : dict of (int, int) to list of int
        Rows by true and predicted class, the most confident first.
    on_map : list of int
        At random.
    """

    predictions: list[int]
    mistakes: list[int]
    unsure: list[int]
    pairs: list[tuple[int, int, int, list[int]]]
    cells: dict[tuple[int, int], list[int]]
    on_map: list[int]

    def by_importance(self) -> list[int]:
        """Return all rows, those first whose images matter most: mistakes before what is right."""
        wrong = [rows for (i, j), rows in self.cells.items() if i != j]
        right = [rows for (i, j), rows in self.cells.items() if i == j]
        shown = [*self.predictions, *self.mistakes, *self.unsure, *(row for *_, rows in self.pairs for row in rows)]
        return [*shown, *_round_robin(wrong), *self.on_map, *_round_robin(right)]


def choose(evaluation: Evaluation) -> Choice:
    """Choose the rows of `evaluation` to show, the same each time, also those drawn at random."""
    confidence = confidences(evaluation)
    order = np.argsort(-confidence, kind="stable")
    wrong = order[(evaluation.y_true != evaluation.y_pred)[order]].tolist()
    cells: dict[tuple[int, int], list[int]] = {}
    for row in order.tolist():
        cell = cells.setdefault((int(evaluation.y_true[row]), int(evaluation.y_pred[row])), [])
        if len(cell) < PER_CELL:
            cell.append(row)
    place = {name: i for i, name in enumerate(evaluation.classes)}
    pairs = [(place[p.true], place[p.predicted], p.n) for p in evaluation.most_confused(N_PAIRS)]
    drawn = np.random.default_rng(0).permutation(len(order)).tolist()
    return Choice(
        predictions=drawn[:N_PREDICTIONS],
        mistakes=wrong[:PER_GRID],
        unsure=order[::-1][:PER_GRID].tolist(),
        pairs=[(i, j, n, cells[i, j][:PER_PAIR]) for i, j, n in pairs],
        cells=cells,
        on_map=drawn[:IN_MAP],
    )


def confidences(evaluation: Evaluation) -> NDArray[np.float64]:
    """Return the probability of each predicted class, 1 where only labels were predicted."""
    if evaluation.probabilities is None:
        return np.ones(len(evaluation.y_pred))
    return np.asarray(evaluation.probabilities.max(axis=1))


def sample_rows(table: Features) -> list[int]:
    """Return positions of some labelled training images, every class in turn."""
    train = table.splits == "train" if (table.splits == "train").any() else np.full(len(table), fill_value=True)
    drawn = np.random.default_rng(0).permutation(np.flatnonzero(train & (table.y >= 0)))
    y = table.y[drawn]
    return sorted(
        _round_robin([drawn[y == label][:N_SAMPLES].tolist() for label in np.unique(y)])[:N_SAMPLES],
        key=lambda row: int(table.y[row]),
    )


def duplicates(table: Features) -> tuple[int, list[list[int]]]:
    """Find images of identical content that are in several splits, or have several labels.

    Rows of one's own arrays have no content hash and are never equal.

    Returns
    -------
    n_groups : int
        How many there are.
    groups : list of list of int
        Positions of the rows of each of the first `N_DUPLICATES`.
    """
    known = np.flatnonzero(table.item_ids.any(axis=1))
    keys = np.ascontiguousarray(table.item_ids[known]).view("S32").ravel()
    order = np.argsort(keys, kind="stable")
    bounds = np.flatnonzero(keys[order][1:] != keys[order][:-1]) + 1
    groups = []
    for members in np.split(order, bounds) if len(bounds) + 1 < len(order) else ():
        rows = known[members]
        if len(rows) > 1 and (len(set(table.splits[rows].tolist())) > 1 or len(set(table.y[rows].tolist())) > 1):
            groups.append(rows.tolist())
    groups.sort()
    return len(groups), groups[:N_DUPLICATES]


def _round_robin(lists: Sequence[Sequence[int]]) -> list[int]:
    """Return the first of each list, then the second of each, and so on.

    Examples
    --------
    >>> _round_robin([[1, 2, 3], [4]])
    [1, 4, 2, 3]
    """
    return [row for layer in zip_longest(*lists) for row in layer if row is not None]
