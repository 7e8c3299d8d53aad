"""Pictures of classifiers with matplotlib: each function draws on one Axes and returns it.

As with scikit-learn's displays, ``ax=None`` makes a figure of its own:

>>> from featx.evaluation import evaluate_predictions
>>> ax = plot_confusion(evaluate_predictions([0, 1, 1], [0, 1, 0], ("cat", "dog")).confusion, ("cat", "dog"))
>>> ax.get_xlabel()
'predicted'
"""

from __future__ import annotations

from featx.plots.bars import plot_class_counts, plot_class_scores, plot_leaderboard
from featx.plots.confusion import plot_confusion
from featx.plots.curves import plot_history, plot_reliability, plot_shots, plot_training_size
from featx.plots.images import plot_images, plot_saliency
from featx.plots.numbers import plot_predicted, plot_residuals
from featx.plots.points import plot_map
from featx.plots.style import INK, RULE, SERIES, styled

__all__ = [
    "INK",
    "RULE",
    "SERIES",
    "plot_class_counts",
    "plot_class_scores",
    "plot_confusion",
    "plot_history",
    "plot_images",
    "plot_leaderboard",
    "plot_map",
    "plot_predicted",
    "plot_reliability",
    "plot_residuals",
    "plot_saliency",
    "plot_shots",
    "plot_training_size",
    "styled",
]
