"""A model on a table, with the rows it learned from left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from featx.errors import DataError
from featx.evaluate.evaluation import Evaluation, evaluate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featx.features import Features
    from featx.model import Model


def evaluate_model(model: Model, features: Features, split: str | None = None) -> Evaluation:
    """Evaluate `model` on the labelled rows of a table.

    Rows are known by their content: whatever name or split an image has here, if the model was trained on
    the same bytes it is counted, named, and left out of all numbers. So are not rows that only chose the
    model's settings, but their number is told.

    Parameters
    ----------
    model : Model
        To evaluate.
    features : Features
        A table of the model's recipe. Classes are matched by name.
    split : str, optional
        Rows to look at: by default ``test`` where there is such a split, else all.

    Raises
    ------
    DataError
        If no row is labelled, a label is none of the model's classes, or all rows were trained on.
    """
    if split is None and (features.splits == "test").any():
        split = "test"
    part = features if split is None else features.select(split)
    part = part.select(np.flatnonzero(part.y >= 0))
    y = _in_classes_of(model, part)
    trained_on = _known(part.item_ids, model.trained_on)
    kept = part.select(np.flatnonzero(~trained_on))
    if len(part) and not len(kept):
        rows = "rows" if split is None else f"rows of split {split!r}"
        raise DataError(f"The model was trained on all {len(part):,} {rows}: nothing is left to evaluate on.")
    return evaluate(
        y[~trained_on],
        model.predict_proba(kept),
        model.classes,
        trained_on=tuple(part.ids[trained_on].tolist()),
        n_chosen_on=int(_known(kept.item_ids, model.chosen_on).sum()),
        n_unreadable=len(features.errors),
    )


def _in_classes_of(model: Model, table: Features) -> NDArray[np.int64]:
    """Return the table's labels as indices into the model's classes."""
    place = {name: i for i, name in enumerate(model.classes)}
    translation = np.array([place.get(name, -1) for name in table.classes], dtype=np.int64)
    y = translation[table.y] if len(table) else table.y
    if (y < 0).any():
        strange = table.classes[table.y[np.argmin(y)]]
        raise DataError(
            f"The table has rows of class {strange!r}, which the model does not know. "
            f"Its {len(model.classes)} classes: {', '.join(model.classes[:10])}{', …' if len(place) > 10 else ''}"
        )
    return y


def _known(item_ids: NDArray[np.uint8], among: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which content hashes are `among` others; rows of one's own arrays have none, all zeros."""
    others = {row.tobytes() for row in among} - {bytes(32)}
    return np.array([row.tobytes() in others for row in item_ids], dtype=bool)
