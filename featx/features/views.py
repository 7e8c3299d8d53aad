"""Augmented views as rows: found in tables of their own by what they are of, labelled by the table they belong to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from featx.errors import CorruptFileError
from featx.features.memory import ArrayTable, PickedRows
from featx.store.lookup import DigestIndex

if TYPE_CHECKING:
    from featx.features.features import Features
    from featx.store import Table

    Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Picks:
    """Rows of one table, and the rows of another of which they are views.

    Attributes
    ----------
    source : Table or ArrayTable
    places : ndarray of int64, shape (m,)
        Rows of `source`.
    origin : ndarray of int64, shape (m,)
        Rows of the other.
    """

    source: Table | ArrayTable
    places: Rows
    origin: Rows


def find_items(view: Table, features: Features) -> Picks:
    """Return the rows of `view` that are of the items of `features`, in the order of these.

    Both tables are joined by content: either may have been published anew, with other labels or more images.
    """
    if (view.shape[1:], view.dtype) != (features.shape[1:], features.dtype):
        raise CorruptFileError(f"{view.path} is damaged: its rows have another shape than those it holds views of.")
    places = DigestIndex(view.item_ids).positions(features.item_ids)
    origin = np.flatnonzero(places >= 0)
    return Picks(view, places[origin], origin)


def pick(features: Features, parts: list[Picks]) -> Features:
    """Return the rows of `parts` one behind another, with the labels that they have in `features`."""
    origin = np.concatenate([part.origin for part in parts])
    table = ArrayTable(
        rows=PickedRows([(part.source, part.places) for part in parts]),
        y=features.y[origin],
        ids=features.ids[origin],
        classes=features.classes,
        splits=features.splits[origin],
        item_ids=features.item_ids[origin],
        key=features.key,
        recipe=features.recipe.to_json() if features.recipe else "",
        request=features.request.to_json() if features.request else "",
        provenance=features.provenance,
        probe=features.probe,
    )
    return type(features)(table)
