"""Which rows of a table a model may be evaluated on: labelled ones that it was not trained on; notes on the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from featx.errors import DataError
from featx.model.items import any_known

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from featx.features import Features
    from featx.model import Model


def wanted_rows(
    features: Features, labelled: NDArray[np.bool_], split: str | None
) -> tuple[NDArray[np.bool_], str | None]:
    """Return which of the labelled rows are of a split, bool of shape (n,), and its name: test where there is one.

    Raises
    ------
    DataError
        If there are none.
    """
    if split is None and (features.splits == "test").any():
        split = "test"
    if split is not None and not (features.splits != "").any():
        raise DataError(
            f"There is no split {split!r}: the table has none, and the fit drew its validation rows itself. "
            "Leave --split out: rows that the model was trained on are left out by their content."
        )
    wanted = labelled
    if split is not None:
        features.select(split)  # refuses a split without rows
        wanted = labelled & (features.splits == split)
    if not wanted.any():
        raise DataError(
            "None of these rows has a label to evaluate on. Give images in class folders, or name the labels: "
            "--label-column COLUMN"
        )
    return wanted, split


def not_trained_on(
    model: Model, features: Features, positions: NDArray[np.intp], split: str | None
) -> tuple[NDArray[np.intp], tuple[str, ...], int]:
    """Return the rows among `positions` whose content `model` was not trained on, ids of the others, and a number.

    The number is that of rows on which the model's settings were chosen.

    Raises
    ------
    DataError
        If none is left.
    """
    part = features.select(positions)
    trained_on = any_known(part, lambda contents: known_content(contents, model.trained_on))
    if len(part) and trained_on.all():
        rows = "rows" if split is None else f"rows of split {split!r}"
        raise DataError(
            f"The model was trained on all {len(part):,} {rows}: nothing is left to evaluate on. "
            f"{'Give it other images: featx evaluate MODEL DATA' if split is None else 'Leave --split out.'}"
        )
    n_chosen_on = int(known_content(part.item_ids[~trained_on], model.chosen_on).sum())
    return positions[~trained_on], tuple(part.ids[trained_on].tolist()), n_chosen_on


def known_content(item_ids: NDArray[np.uint8], among: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which content hashes are `among` others; rows of one's own arrays have none, all zeros."""
    others = {row.tobytes() for row in among} - {bytes(32)}
    return np.array([row.tobytes() in others for row in item_ids], dtype=bool)


def notes_on_rows(
    trained_on: Sequence[str], n_chosen_on: int, n_unreadable: int, unknown: Mapping[str, int] | None = None
) -> list[str]:
    """Return a sentence on each kind of rows that are not counted, or that tell less than new ones would.

    Parameters
    ----------
    trained_on : sequence of str
        Ids of those left out.
    n_chosen_on, n_unreadable : int
        How many chose the model's settings, and how many could not be read.
    unknown : mapping of str to int, optional
        How many are of a class that the model does not know, by class.
    """
    notes = []
    if trained_on:
        named = ", ".join(trained_on[:3]) + (", …" if len(trained_on) > 3 else "")
        notes.append(f"Left out: {len(trained_on):,} rows that the model was trained on ({named}).")
    if n_chosen_on:
        notes.append(f"{n_chosen_on:,} of the rows chose the model's settings: on new ones expect a little less.")
    if unknown:
        named = ", ".join(f"{n:,} of {name!r}" for name, n in unknown.items())
        notes.append(f"Left out: rows of classes that the model does not know ({named}).")
    if n_unreadable:
        notes.append(f"Not counted: {n_unreadable:,} images that could not be read.")
    return notes
