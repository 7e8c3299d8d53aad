"""Features as points on a plane."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from featx.plots.style import SERIES, own_axes, shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

#: A legend of more classes than this hides what it explains.
MAX_LEGEND = 20


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
