"""What looks wrong with the data: images that are there more than once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from featx.features import Features


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
