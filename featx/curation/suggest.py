"""`suggest`: which unlabelled images to label next, so that each label teaches much."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.curation.doubts import careful_head
from featx.curation.listing import Listing
from featx.curation.settings import Suggesting
from featx.errors import DataError
from featx.features import Features
from featx.heads.neighbors import unit_rows
from featx.model.fitter import HeadFitter
from featx.settings import keywords
from featx.targets import check_classes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featx.model import Model

    Floats = NDArray[np.float64]
    Rows = NDArray[np.intp]

#: Unsure rows among which those that differ are taken, for each row that is suggested.
_AMONG = 10
#: Rows that are drawn to stand for all, where nothing is known of them.
_DRAWN = 5000
#: Splits whose rows are not for learning.
_HELD_OUT = ("val", "test")


@dataclass(frozen=True, kw_only=True)
class _Suggest(Suggesting):
    model: Model | None = None


@keywords(_Suggest)
def suggest(table: Features | str | Path, how: _Suggest) -> Listing:
    """Return unlabelled rows of a table whose labels would teach a classifier most.

    The classifier says which rows it is least sure of, by the margin between its two most probable classes. Ten times
    as many of these as are wanted are clustered, the more unsure counting more, and of each cluster the row nearest to
    its centre is taken: F. Zhdanov, "Diverse mini-batch active learning", 2019. While fewer than two classes have
    labels, all rows count alike. Rows of the splits val and test are left.

    Parameters
    ----------
    table : Features or path
        Rows (n, …), some of them unlabelled.
    {options}
    model : Model, optional
        The classifier; a logistic regression on the labelled rows without.

    Returns
    -------
    Listing
        The most unsure first, with the columns ``likely`` and ``probability``, and ``margin``, which is how much more
        probable the likely class is than the next.

    Raises
    ------
    DataError
        If no row for learning is unlabelled.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> y[50:] = -1
    >>> found = suggest(Features.from_arrays(X, y), n=5)
    >>> len(found), bool((found.rows >= 50).all())
    (5, True)
    """
    rows = table if isinstance(table, Features) else Features.open(table)
    check_classes(rows.task, "Suggesting images")
    learning = ~np.isin(rows.splits, _HELD_OUT)
    pool, labelled = (np.flatnonzero(learning & ((rows.y < 0) == unlabelled)) for unlabelled in (True, False))
    if not len(pool):
        raise DataError(
            "No image is left to label: "
            + ("those without a label are of val or test." if (rows.y < 0).any() else "every row has a label.")
        )
    random = np.random.default_rng(how.seed)
    if how.model is None and len(np.unique(rows.y[labelled])) < 2:
        drawn = np.sort(random.permutation(pool)[: max(_DRAWN, how.n)])
        chosen = drawn[differing(rows, drawn, np.ones(len(drawn)), how.n, random)]
        note = "Fewer than two classes have labels: these stand for all. Label them, and ask again."
        return Listing(rows, np.sort(chosen), {}, notes=(note,))
    probabilities, names = _probabilities(rows, labelled, pool, how.model, how.seed)
    two = np.sort(probabilities, axis=1)[:, -2:]
    margin = two[:, 1] - two[:, 0]
    unsure = np.argsort(margin, kind="stable")[: _AMONG * how.n]
    chosen = unsure[differing(rows, pool[unsure], 1 - margin[unsure], how.n, random)]
    chosen = chosen[np.argsort(margin[chosen], kind="stable")]
    return Listing(
        rows,
        pool[chosen],
        {
            "likely": [names[label] for label in probabilities[chosen].argmax(axis=1).tolist()],
            "probability": two[chosen, 1].tolist(),
            "margin": margin[chosen].tolist(),
        },
    )


def _probabilities(
    table: Features, labelled: Rows, pool: Rows, model: Model | None, seed: int
) -> tuple[Floats, tuple[str, ...]]:
    """Return probabilities (m, k) of the rows of `pool`, and the names of the k classes."""
    if model is not None:
        check_classes("classify" if model.outputs is None else model.outputs.task, "A model that is unsure")
        return model.predict_proba(table.select(pool)), model.classes
    head, scaler = careful_head(len(labelled))
    fitted = HeadFitter(table, scaler, "logreg", None, seed).fit(head, labelled, labelled[:0])
    codes, found = fitted.probabilities(pool)
    return found, tuple(table.classes[code] for code in codes.tolist())


def differing(table: Features, rows: Rows, weights: Floats, n: int, random: np.random.Generator) -> Rows:
    """Return at most `n` positions among `rows` that are unlike one another: the middles of as many clusters."""
    if len(rows) <= n:
        return np.arange(len(rows))
    from sklearn.cluster import KMeans

    X: Any = table[rows].reshape(len(rows), -1).astype(np.float32)
    X = unit_rows(X - X.mean(axis=0))
    means = KMeans(n, n_init=1, max_iter=20, random_state=int(random.integers(2**31)))
    clusters = means.fit_predict(X, sample_weight=np.maximum(weights, 1e-6))
    distances = np.linalg.norm(X - means.cluster_centers_[clusters], axis=1)
    order = np.lexsort([distances, clusters])
    return np.asarray(order[np.unique(clusters[order], return_index=True)[1]])
