"""`doubts`: labels that look wrong, since classifiers that have not learned from a row predict another, and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone

from featx.curation.listing import Listing
from featx.curation.settings import Doubting
from featx.errors import DataError
from featx.features import Features
from featx.heads import KNNHead, LogisticHead, RidgeHead
from featx.model.fitter import HeadFitter
from featx.model.fitting import as_chosen
from featx.model.rows import row_groups
from featx.model.scaling import FeatureScaler
from featx.model.vote import Vote
from featx.settings import keywords
from featx.targets import check_classes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featx.model import Model

    Floats = NDArray[np.float64]
    Rows = NDArray[np.intp]

#: Neighbours that are asked of each doubted row, and rows of its own group that may stand before them.
NEIGHBOURS, _MOST_OWN = 10, 40
#: Penalty on the mean loss of the logistic regression that doubts, or is unsure, where no model is. A strong one: it
#: is not to fit labels that are wrong, and of few labels not to be too sure (examples/bench_doubts.py).
_PENALTY = 0.25


@dataclass(frozen=True, kw_only=True)
class _Doubt(Doubting):
    model: Model | None = None


@keywords(_Doubt)
def doubts(table: Features | str | Path, how: _Doubt) -> Listing:
    """Return the rows of a table whose labels look wrong, of all its labelled rows, whatever their split.

    The rows are cut into folds, and each fold is predicted by a head fitted on the others: no row is predicted by what
    has learned its label. Images of identical content, and those of one group, share a fold. Doubted are rows for
    which another class is more probable, the first those whose own label is the least: the self-confidence of
    C. G. Northcutt, L. Jiang, I. L. Chuang, "Confident learning: estimating uncertainty in dataset labels", JAIR 2021.

    Parameters
    ----------
    table : Features or path
        Labelled rows (n, d) or (n, c, h, w).
    {options}
    model : Model, optional
        Whose head, as it was set, is fitted anew; a logistic regression without. It also stands in for a head that
        trains in epochs or came with its network, which would take long, and for a ridge, whose scores are no odds.

    Returns
    -------
    Listing
        With the columns ``likely``, ``probability_of_label``, ``probability_of_likely``, and how many of the ten
        nearest images of other groups have the label, and the likely one: ``neighbours_of_label``,
        ``neighbours_of_likely``.

    Raises
    ------
    DataError
        If fewer than two classes have two rows each.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> y[7] = 1  # a seven
    >>> found = doubts(Features.from_arrays(X[:300], y[:300]), n=5)
    >>> dict(zip(found.ids, found.columns["likely"]))["7"]
    '7'
    """
    rows = table if isinstance(table, Features) else Features.open(table)
    probabilities, positions = out_of_fold(rows, how.model, folds=how.folds, seed=how.seed)
    doubted = less_probable(rows.y[positions], probabilities)[: how.n]
    given, likely = rows.y[positions[doubted]], probabilities[doubted].argmax(axis=1)
    votes = neighbour_labels(rows, positions, doubted)
    return Listing(
        rows,
        positions[doubted],
        {
            "likely": [rows.classes[label] for label in likely.tolist()],
            "probability_of_label": probabilities[doubted, given].tolist(),
            "probability_of_likely": probabilities[doubted, likely].tolist(),
            "neighbours_of_label": (votes == given[:, None]).sum(axis=1).tolist(),
            "neighbours_of_likely": (votes == likely[:, None]).sum(axis=1).tolist(),
        },
    )


def less_probable(y: NDArray[np.int64], probabilities: Floats) -> Rows:
    """Return the rows for which another class than their own is more probable, the most doubtful first.

    Parameters
    ----------
    y : ndarray of int, shape (n,)
        Labels as given.
    probabilities : ndarray, shape (n, k)
        Of rows that the classifier was not trained on.

    Examples
    --------
    >>> p = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.6, 0.4], [0.9, 0.1]])
    >>> less_probable(np.array([0, 0, 1, 1, 1]), p).tolist()
    [4, 3]
    """
    # Thresholds by class, as confident learning has them, are left out: they hide a third of planted labels.
    given, most = probabilities[np.arange(len(y)), y], probabilities.max(axis=1)
    rows = np.flatnonzero(most > given)
    return np.asarray(rows[np.lexsort([-most[rows], given[rows]])])


def out_of_fold(table: Features, model: Model | None = None, *, folds: int = 5, seed: int = 0) -> tuple[Floats, Rows]:
    """Return probabilities (m, k) of rows by heads that were not fitted on them, and where the rows are, shape (m,).

    Parameters
    ----------
    table, model, folds, seed
        As in `doubts`; there are fewer folds where a class has fewer rows. Columns are the table's classes.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    check_classes(table.task, "Doubting labels")
    y = table.y
    n_of = np.bincount(y[y >= 0], minlength=len(table.classes))
    positions = np.flatnonzero((y >= 0) & (n_of[y] >= 2))
    if len(np.unique(y[positions])) < 2:
        raise DataError("Labels are doubted by comparing classes, and fewer than two have two rows each.")
    head, scaler = _doubter(model, len(positions))
    fitter = HeadFitter(table, scaler, type(head).__name__, memory=None, seed=seed)
    folds = max(2, min(folds, int(n_of[n_of > 1].min())))
    groups = row_groups(table, positions)
    alone = len(np.unique(groups)) == len(groups)  # the same folds, without seconds for groups of one row
    splitter = (StratifiedKFold if alone else StratifiedGroupKFold)(folds, shuffle=True, random_state=seed)
    found = np.zeros((len(positions), len(table.classes)))
    for others, held in splitter.split(positions, y[positions], None if alone else groups):
        fitted = fitter.fit(clone(head), positions[others], positions[:0])
        codes, of_fold = fitted.probabilities(positions[held])
        found[np.ix_(held, codes)] = of_fold
    return found, positions


def careful_head(n: int) -> tuple[LogisticHead, FeatureScaler]:
    """Return an unfitted logistic regression for about `n` rows, some of whose labels may be wrong, and its scaler."""
    return LogisticHead(C=1 / (_PENALTY * n), tol=1e-3), FeatureScaler("standard")


def _doubter(model: Model | None, n: int) -> tuple[Any, FeatureScaler]:
    """Return an unfitted head and scaler: those of `model`, if they are quickly fitted and give probabilities."""
    if (
        model is None
        or model.report.kind != "frozen"
        or isinstance(model.head, RidgeHead | Vote)
        or "epochs" in model.head.get_params()
    ):
        return careful_head(n)
    return as_chosen(model.head, {"C": model.head.C_} if hasattr(model.head, "C_") else {}), clone(model.scaler)


def neighbour_labels(table: Features, positions: Rows, doubted: Rows) -> NDArray[np.int64]:
    """Return the labels of the nearest rows of other groups (m, `NEIGHBOURS`), −1 where there are fewer."""
    if not len(doubted):
        return np.empty((0, NEIGHBOURS), np.int64)
    group, part = row_groups(table, positions), table.select(positions)
    head = KNNHead(k=min(len(part), NEIGHBOURS + _MOST_OWN)).fit(part, part.y)
    _, near = head.kneighbors(part.select(doubted))
    others = group[near] != group[doubted][:, None]
    others &= others.cumsum(axis=1) <= NEIGHBOURS
    votes = np.full((len(doubted), NEIGHBOURS), -1, np.int64)
    at, place = np.nonzero(others)
    votes[at, others.cumsum(axis=1)[at, place] - 1] = part.y[near[at, place]]
    return votes
