"""Features brought down to the plane, and drawn there."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from featx.plots.style import SERIES, own_axes, shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

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
#: A legend of more classes than this hides what it explains.
MAX_LEGEND = 20


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


def plot_map(points: ArrayLike, groups: ArrayLike, names: Sequence[str], *, ax: Axes | None = None) -> Axes:
    """Draw points of the plane, coloured by group.

    Parameters
    ----------
    points : array_like, shape (n, 2)
        Such as principal components, or what UMAP or t-SNE made of the features.
    groups : array_like of int, shape (n,)
        Group of each point, an index into `names`.
    names : sequence of str
        What the groups are called.
    ax : Axes, optional
        Where to draw.
    """
    ax = own_axes(ax)
    points, groups = np.asarray(points), np.asarray(groups)
    for group in np.unique(groups).tolist():
        x, y = points[groups == group].T
        color, marker = SERIES[group % len(SERIES)], "os^Dv"[group // len(SERIES) % 5]
        ax.scatter(x, y, s=9, marker=marker, color=color, label=shortened(names[group], 18), alpha=0.8, linewidths=0)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    if len(names) <= MAX_LEGEND:
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), markerscale=1.6, handletextpad=0.2)
    return ax
