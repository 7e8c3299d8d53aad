"""Predicted numbers beside the true ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from featx.plots.style import MUTED, SERIES, own_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike


def plot_predicted(truth: ArrayLike, found: ArrayLike, margin: float | None = None, *, ax: Axes | None = None) -> Axes:
    """Draw predicted against true numbers: on the dashed line they are the same.

    Parameters
    ----------
    truth, found : array_like, shape (n,)
    margin : float, optional
        How far on either side of a prediction the truth of most rows was to lie; drawn as a band.
    ax : Axes, optional
        Where to draw.
    """
    ax = own_axes(ax)
    y, p = np.asarray(truth, float), np.asarray(found, float)
    ends = np.array([min(y.min(), p.min()), max(y.max(), p.max())])
    if margin is not None:
        ax.fill_between(ends, ends - margin, ends + margin, color=SERIES[0], alpha=0.12, linewidth=0)
    ax.plot(ends, ends, color=MUTED, linestyle="--", linewidth=1)
    ax.scatter(y, p, s=12, color=SERIES[0], alpha=0.6, linewidths=0)
    ax.set(xlabel="true", ylabel="predicted")
    return ax


def plot_residuals(truth: ArrayLike, found: ArrayLike, *, ax: Axes | None = None) -> Axes:
    """Draw how much too low (above the line) or too high each prediction is, against what was predicted.

    Parameters
    ----------
    truth, found : array_like, shape (n,)
    ax : Axes, optional
        Where to draw.
    """
    ax = own_axes(ax)
    y, p = np.asarray(truth, float), np.asarray(found, float)
    ax.axhline(0, color=MUTED, linestyle="--", linewidth=1)
    ax.scatter(p, y - p, s=12, color=SERIES[1], alpha=0.6, linewidths=0)
    ax.set(xlabel="predicted", ylabel="true less predicted")
    return ax
