"""`duplicates`: images that are nearly the same, which split each stands in, and what that spoils."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featx.curation.listing import Listing
from featx.curation.settings import Duplicating
from featx.features import Features
from featx.features.near_duplicates import NearDuplicates, near_duplicates
from featx.settings import keywords

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: The splits in the order in which one is spoilt by those before it.
_ORDER = {"train": 0, "val": 1, "test": 2}


@keywords(Duplicating)
def duplicates(table: Features | str | Path, how: Duplicating) -> Listing:
    """Return the rows of a table of which another is nearly the same, cluster by cluster.

    Rows are in one cluster if near pairs link them, directly or over others.

    Parameters
    ----------
    table : Features or path
        Any table.
    {options}

    Returns
    -------
    Listing
        With the columns ``cluster``, ``nearest`` (an id) and ``similarity`` (their cosine). Clusters that stand in
        several splits come first, then those under several labels, then the others, the most similar first. Its notes
        name what leaks from split to split.

    Examples
    --------
    >>> X = [[1.0, 0.0], [0.0, 1.0], [0.99, 0.01], [0.6, 0.6]]
    >>> found = duplicates(Features.from_arrays(X, ids=["a.jpg", "b.jpg", "a2.jpg", "c.jpg"]))
    >>> found.ids, found.columns["cluster"]
    (('a.jpg', 'a2.jpg'), [1, 1])
    """
    rows = table if isinstance(table, Features) else Features.open(table)
    found = near_duplicates(rows, how.near)
    n_clusters = int(found.cluster.max(initial=-1)) + 1
    leaks, torn = _leaks(rows, found, n_clusters)
    n_labels = _n_distinct(found.cluster, rows.y, n_clusters)
    closest = np.zeros(n_clusters)
    np.maximum.at(closest, found.cluster[found.cluster >= 0], found.similarity[found.cluster >= 0])
    rank = np.empty(n_clusters, np.intp)
    rank[np.lexsort([-closest, n_labels < 2, ~torn])] = np.arange(n_clusters)
    members = np.flatnonzero(found.cluster >= 0)
    number = rank[found.cluster[members]]
    order = np.argsort(number, kind="stable")
    members, number = members[order], number[order]
    notes = [str(leak["note"]) for leak in leaks]
    if n_mixed := int((n_labels > 1).sum()):
        notes.append(f"{_clusters(n_mixed)} under several labels: at most one of these is right.")
    return Listing(
        rows,
        members,
        {
            "cluster": (number + 1).tolist(),
            "nearest": rows.ids[found.nearest[members]].tolist(),
            "similarity": found.similarity[members].tolist(),
        },
        facts={"clusters": n_clusters, "leaks": leaks},
        notes=tuple(notes),
    )


def _clusters(n: int) -> str:
    return "1 cluster stands" if n == 1 else f"{n:,} clusters stand"


def _n_distinct(cluster: NDArray[np.intp], values: NDArray[np.int64], n_clusters: int) -> NDArray[np.intp]:
    """Return how many of `values`, but for negative ones, the rows of each cluster have."""
    known = (cluster >= 0) & (values >= 0)
    pairs = np.unique(np.stack([cluster[known], values[known]]), axis=1)
    return np.bincount(pairs[0], minlength=n_clusters)


def _leaks(
    table: Features, found: NearDuplicates, n_clusters: int
) -> tuple[list[dict[str, object]], NDArray[np.bool_]]:
    """Return what stands on both sides of each pair of splits, and which clusters stand in several."""
    names = sorted(set(table.splits.tolist()) - {""}, key=lambda name: (_ORDER.get(name, 3), name))
    torn = np.zeros(n_clusters, bool)
    leaks: list[dict[str, object]] = []
    for early, late in combinations(names, 2):
        in_early, in_late = (found.cluster[(table.splits == name) & (found.cluster >= 0)] for name in (early, late))
        both = np.intersect1d(in_early, in_late)
        if not len(both):
            continue
        torn[both] = True
        spoilt = np.flatnonzero((table.splits == late) & np.isin(found.cluster, both))
        first = spoilt[found.similarity[spoilt].argmax()]
        others = np.flatnonzero((table.splits == early) & (found.cluster == found.cluster[first]))
        one, other = (str(table.ids[row]) for row in (others[0], first))
        images = "1 image of" if len(spoilt) == 1 else f"{len(spoilt):,} images of"
        note = f"{images} {late} nearly in {early}, for example {other} ~ {one}: scores on {late} are too good."
        leaks.append({"splits": [early, late], "rows": table.ids[spoilt].tolist(), "note": note})
    return leaks, torn
