"""How accuracy grows with the number of training images: the head fitted again on nested parts of its rows."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone

from featx.evaluation.rows import known_content
from featx.model import Accuracy
from featx.model.fitter import HeadFitter
from featx.model.fitting import as_chosen
from featx.model.vote import Vote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from featx.evaluation import HeldOut
    from featx.features import Features
    from featx.model import Model

    Positions = NDArray[np.intp]

#: Images of each class in the parts that are tried.
_PER_CLASS = (5, 10, 25, 50, 100, 250, 500, 1000)
#: Each part takes at most so many times as long as the one before: more images, more steps.
_GROWTH = 4
#: Validation rows that a head may watch.
_MAX_VAL = 2000


@dataclass(frozen=True)
class Sizes:
    """Accuracy by number of training images, and why there are no more points, if that needs saying."""

    n: tuple[int, ...] = ()
    accuracies: tuple[Accuracy, ...] = ()
    note: str = ""


def accuracy_by_size(model: Model, table: Features, held: HeldOut, whole: Accuracy, *, seconds: float) -> Sizes:
    """Fit the model's head on nested parts of its training rows, and evaluate each on the rows held out.

    Parameters
    ----------
    model : Model
        Whose head, with the settings it was given, is fitted.
    table : Features
        Where its training rows are.
    held : HeldOut
        Rows to evaluate on.
    whole : Accuracy
        Of the model itself: the last point.
    seconds : float
        Time after which no larger part is begun.
    """
    train = np.flatnonzero((table.y >= 0) & known_content(table.item_ids, model.trained_on))
    if model.report.kind != "frozen":
        return Sizes(note="The network has learned from all training images, so there is nothing to refit.")
    if isinstance(model.head, Vote):
        return Sizes(note="Not drawn for several models that vote: each would be fitted again on every part.")
    if "epochs" in model.head.get_params():
        return Sizes(note="Not drawn for this head: trained in epochs, it takes as long on few images as on all.")
    if not len(train) or table.classes != model.classes:
        return Sizes(note="The rows that the model was trained on are not in this table.")
    val = np.flatnonzero((table.y >= 0) & known_content(table.item_ids, model.chosen_on))[:_MAX_VAL]
    fitter = HeadFitter(table, clone(model.scaler), model.head_name, memory=None, seed=0)
    found: list[tuple[int, Accuracy]] = []
    end, note = time.perf_counter() + seconds, ""
    for part in _nested(train, table.y[train]):
        started = time.perf_counter()
        try:
            accuracy = fitter.fit(_unfitted(model), part, val).accuracy(held.positions)
        except ValueError:  # a head that cannot learn from so few rows
            continue
        assert accuracy is not None
        found.append((len(part), accuracy))
        now = time.perf_counter()
        if now + _GROWTH * (now - started) > end:
            note = f"Larger parts would have taken more than the {seconds:.0f} s allowed for this picture."
            break
    found.append((len(train), whole))
    if len(found) == 1:
        return Sizes(note=note)
    return Sizes(tuple(n for n, _ in found), tuple(accuracy for _, accuracy in found), note)


def _unfitted(model: Model) -> Any:
    """Return the model's head as it was set, with what it chose by itself chosen."""
    head = model.head
    return as_chosen(head, {"C": head.C_} if hasattr(head, "C_") else {})


def _nested(train: Positions, y: NDArray[np.int64]) -> Iterator[Positions]:
    """Yield ever larger parts with equally many rows a class, each holding the one before."""
    order = np.random.default_rng(0).permutation(len(train))
    rank = np.empty(len(train), dtype=np.intp)
    for label in np.unique(y):
        members = order[y[order] == label]
        rank[members] = np.arange(len(members))
    for per_class in _PER_CLASS:
        part = train[rank < per_class]
        if len(part) > len(train) / 2:
            return
        yield part
