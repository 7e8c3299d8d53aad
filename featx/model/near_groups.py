"""Images that are nearly the same as a group: bursts, crops and copies that no split is to part."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from featx.features import Features
from featx.features.near_duplicates import near_duplicates

if TYPE_CHECKING:
    from numpy.typing import NDArray


def with_near_groups(table: Features, near: float) -> tuple[Features, str]:
    """Return `table` with images nearer than a threshold in one group, and what came of it.

    Groups and items that the table has stay whole: what is linked to them over near images joins them.

    Parameters
    ----------
    table : Features
    near : float
        Cosine of features from which on images belong together, above 0, at most 1.

    Examples
    --------
    >>> table = Features.from_arrays(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.01]], "float32"), [0, 1, 0])
    >>> with_near_groups(table, 0.98)[0].groups.tolist()
    ['near 0', '', 'near 0']
    """
    cluster = near_duplicates(table, near).cluster
    groups = _linked([np.array([f"near {k}" if k >= 0 else "" for k in cluster.tolist()]), table.groups, table.items])
    n = int((cluster >= 0).sum())
    told = (
        f"Nearly the same (cosine of at least {near:g}): {n:,} images in {cluster.max() + 1:,} clusters, never parted."
    )
    return Features(replace(table.whole(), groups=groups, path=table.path, views=table.view_names)), told


def _linked(columns: list[NDArray[np.str_]]) -> NDArray[np.str_]:
    """Return the group of each row where any of `columns` puts rows together; empty for a row by itself."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n, links, size = len(columns[0]), [], len(columns[0])
    for names in columns:
        known = np.flatnonzero(names != "")
        distinct, number = np.unique(names[known], return_inverse=True)
        links.append(np.stack([known, size + number]))
        size += len(distinct)
    i, j = np.concatenate(links, axis=1)
    component = connected_components(coo_array((np.ones(len(i)), (i, j)), (size, size)), directed=False)[1][:n]
    found = np.full(n, "", dtype=object)
    for names in columns[::-1]:  # called by the first column that names it
        known = np.flatnonzero(names != "")[::-1]
        name = dict(zip(component[known].tolist(), names[known].tolist(), strict=True))
        found = np.array([name.get(k, old) for k, old in zip(component.tolist(), found.tolist(), strict=True)], object)
    return found.astype(str)
