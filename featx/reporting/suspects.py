"""What looks wrong with the data: labels that the classifier doubts, and images that are there more than once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featx.features import Features


@dataclass(frozen=True)
class Suspect:
    """A row whose label may be wrong.

    Attributes
    ----------
    row : int
        Position in what was given.
    likely : int
        The class it probably belongs to.
    p_given, p_likely : float
        Probabilities of its label and of that class.
    """

    row: int
    likely: int
    p_given: float
    p_likely: float


def label_errors(y: NDArray[np.int64], probabilities: NDArray[np.float64], limit: int = 24) -> list[Suspect]:
    """Return the rows whose labels are most probably wrong, the most suspect first.

    A row is suspect if another class is at least as probable as that class is, on average, for the rows that
    bear its label: C. G. Northcutt, L. Jiang, I. L. Chuang, "Confident learning: estimating uncertainty in
    dataset labels", JAIR 2021. A class that a classifier is never sure of so gets a lower threshold, and one
    that it prefers a higher one. They are ranked by how much more probable the other class is than the label.

    Parameters
    ----------
    y : ndarray of int, shape (n,)
        Labels as given.
    probabilities : ndarray, shape (n, k)
        Of rows that the classifier was not trained on.
    limit : int
        Rows returned at most.

    Examples
    --------
    >>> p = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.05, 0.95], [0.9, 0.1]])
    >>> label_errors(np.array([0, 0, 1, 1, 1]), p)
    [Suspect(row=4, likely=0, p_given=0.1, p_likely=0.9)]
    """
    k = probabilities.shape[1]
    given = probabilities[np.arange(len(y)), y]
    n = np.bincount(y, minlength=k)
    # A class without rows has no average: nothing passes for it.
    threshold = np.where(n > 0, np.bincount(y, weights=given, minlength=k) / np.maximum(n, 1), np.inf)
    passing = np.where(probabilities >= threshold, probabilities, -1.0)
    likely = passing.argmax(axis=1)
    rows = np.flatnonzero((likely != y) & (passing.max(axis=1) > given))
    order = rows[np.argsort(given[rows] - probabilities[rows, likely[rows]], kind="stable")][:limit]
    return [Suspect(i, int(likely[i]), float(given[i]), float(probabilities[i, likely[i]])) for i in order.tolist()]


def duplicates(table: Features, limit: int = 12) -> tuple[int, list[list[int]]]:
    """Find images of identical content that are in several splits, or have several labels.

    Parameters
    ----------
    table : Features
        Rows with content hashes; rows of one's own arrays have none and are never equal.
    limit : int
        Groups returned at most.

    Returns
    -------
    n_groups : int
        How many there are.
    groups : list of list of int
        Positions of the rows of each of the first `limit`.
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
    return len(groups), groups[:limit]
