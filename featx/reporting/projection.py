"""Features brought down to the plane."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

#: Components that a neighbour embedding starts from: fewer than features, with nearly all of their distances.
_COMPONENTS = 50
_PERPLEXITY = 30
#: UMAP looks at 15 neighbours of each row; of fewer rows it makes no map.
_FEWEST_FOR_UMAP = 20
#: More rows take a neighbour embedding longer than a reader waits.
_MAX_NEIGHBOURS = 400
#: Equal rows make an equal page.
_SEED = 0


def project(X: NDArray[np.float32]) -> dict[str, Floats]:
    """Return maps of rows by the name of their method: PCA, and of the first rows UMAP if installed, else t-SNE.

    Of fewer than twenty rows t-SNE in any case.

    Parameters
    ----------
    X : ndarray, shape (n, …)
        Rows, in random order.

    Returns
    -------
    dict of str to ndarray, shape (m, 2)
        Coordinates of the first m rows, within 0-1. Empty for fewer than three rows.
    """
    rows = np.asarray(X, dtype=np.float32).reshape(len(X), -1)
    if len(rows) < 3 or rows.shape[1] < 2:
        return {}
    from sklearn.decomposition import PCA

    n_components = min(_COMPONENTS, *rows.shape)
    components = PCA(n_components, svd_solver="randomized", random_state=_SEED).fit_transform(rows)
    name, points = _neighbours(components[:_MAX_NEIGHBOURS])
    return {"PCA": _to_unit(components[:, :2]), name: _to_unit(points)}


def _neighbours(components: NDArray[np.float32]) -> tuple[str, Floats]:
    if find_spec("umap") is not None and len(components) >= _FEWEST_FOR_UMAP:
        umap = import_module("umap")  # without types, and rarely there
        return "UMAP", umap.UMAP(random_state=_SEED, n_jobs=1).fit_transform(components)
    from sklearn.manifold import TSNE

    perplexity = min(_PERPLEXITY, (len(components) - 1) / 3)
    # Of so few rows the exact gradient is the quicker one.
    embedding = TSNE(perplexity=perplexity, init="pca", method="exact", max_iter=500, random_state=_SEED)
    return "t-SNE", embedding.fit_transform(components)


def _to_unit(points: NDArray[np.floating]) -> Floats:
    """Scale points into the unit square, both axes alike."""
    low, high = points.min(axis=0), points.max(axis=0)
    return np.asarray((points - (low + high) / 2) / max(float((high - low).max()), 1e-12) + 0.5, dtype=np.float64)
