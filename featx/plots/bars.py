"""Bars and dots: classes counted, classes scored, classifiers compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featx.plots.style import MUTED, SERIES, own_axes, percent_axis, shortened

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from featx.evaluation import ClassScores

#: More classes than this get no names, only their places.
MAX_NAMED = 150


def plot_class_counts(counts: Mapping[str, Sequence[int]], classes: Sequence[str], *, ax: Axes | None = None) -> Axes:
    """Draw how many images each class has, one bar a class, stacked by split.

    Parameters
    ----------
    counts : mapping of str to sequence of int
        Images of each class, by split.
    classes : sequence of str
        Names of the classes, in the order of the counts.
    ax : Axes, optional
        Where to draw.
    """
    ax = own_axes(ax)
    start = np.zeros(len(classes))
    for color, (split, n) in zip(SERIES, counts.items(), strict=False):
        ax.barh(range(len(classes)), n, left=start, height=0.75, color=color, label=split or "no split")
        start = start + np.asarray(n)
    _name_classes(ax, classes)
    ax.set_xlabel("images")
    if len(counts) > 1:
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0)
    return ax


def plot_class_scores(scores: Sequence[ClassScores], *, ax: Axes | None = None) -> Axes:
    """Draw precision, recall and F1 of each class.

    Parameters
    ----------
    scores : sequence of ClassScores
        ``evaluation.per_class``.
    ax : Axes, optional
        Where to draw.
    """
    ax = own_axes(ax)
    places = np.arange(len(scores))
    for color, marker, name in ((0, ">", "precision"), (1, "<", "recall"), (2, "o", "f1")):
        values = [getattr(score, name) for score in scores]
        size = 14 if name == "f1" else 22
        ax.scatter(values, places, s=size, color=SERIES[color], marker=marker, label=name.replace("f1", "F1"))
    _name_classes(ax, [score.label for score in scores])
    percent_axis(ax.xaxis)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0)
    return ax


def _name_classes(ax: Axes, classes: Sequence[str]) -> None:
    """Name the classes from top to bottom."""
    k = len(classes)
    if k <= MAX_NAMED:
        size = 8.5 if k <= 30 else 5.5
        ax.set_yticks(range(k), [shortened(name) for name in classes], fontsize=size)
    ax.set_ylim(k - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")


def plot_leaderboard(rows: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Draw the accuracy of classifiers side by side, best first, with their 95 % intervals.

    Parameters
    ----------
    rows : sequence of mapping
        ``name``, ``accuracy`` and ``ci95`` (low, high) of each; ``kind`` decides the colour where there is one, in the
        order in which kinds appear.
    ax : Axes, optional
        Where to draw.
    """
    ax = own_axes(ax)
    ordered = sorted(rows, key=lambda row: row["accuracy"], reverse=True)
    kinds = list(dict.fromkeys(row.get("kind", "") for row in rows))
    for kind, color in zip(kinds, SERIES, strict=False):
        places = [i for i, row in enumerate(ordered) if row.get("kind", "") == kind]
        values = np.array([ordered[i]["accuracy"] for i in places])
        low, high = np.array([ordered[i]["ci95"] for i in places]).T
        ax.errorbar(
            values,
            places,
            xerr=np.maximum([values - low, high - values], 0),
            fmt="o",
            markersize=5,
            capsize=3,
            color=color,
            label=kind,
        )
    ax.set_yticks(range(len(ordered)), [_with_both_ends(str(row["name"])) for row in ordered])
    ax.set_ylim(len(ordered) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0, labelcolor=MUTED)
    percent_axis(ax.xaxis)
    ax.set_xlabel("accuracy")
    if len(kinds) > 1:
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0)
    return ax


def _with_both_ends(name: str) -> str:
    """Return a name that fits: classifiers differ at the beginning (backbone) and at the end (training images)."""
    return name if len(name) <= 48 else f"{name[:23]}…{name[-24:]}"
