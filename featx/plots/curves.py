"""Lines: training curves, reliability, accuracy against the size of the training set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from featx.plots.style import MUTED, SERIES, own_axes, percent_axis

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from featx.evaluation import ReliabilityBin
    from featx.model import Accuracy


#: Curves of more points are drawn without a marker at each.
MOST_MARKERS = 40


def plot_history(history: Mapping[str, Sequence[float]], metric: str = "loss", *, ax: Axes | None = None) -> Axes:
    """Draw a metric of a fit over its epochs, or over its iterations, on training and validation rows.

    Parameters
    ----------
    history : mapping of str to sequence of float
        Columns `metric` and ``val_<metric>``, each optional, one entry an epoch: ``model.report["history"]``.
        With columns ``step`` and ``val_step`` they are drawn over those iterations.
    metric : str
        ``loss`` or ``accuracy``.
    ax : Axes, optional
        Where to draw.

    Examples
    --------
    >>> ax = plot_history({"loss": [2.0, 1.0], "val_loss": [2.1, 1.4]})
    >>> [line.get_label() for line in ax.get_lines()]
    ['train', 'validation']
    """
    from matplotlib.ticker import MaxNLocator

    ax = own_axes(ax)
    for name, x, label in ((metric, "step", "train"), (f"val_{metric}", "val_step", "validation")):
        values = history.get(name)
        if values:
            places = history.get(x) or range(1, len(values) + 1)
            marker = "o" if len(values) <= MOST_MARKERS and ("step" not in history or name != metric) else ""
            width = 0.8 if "step" in history and name == metric else 1.8
            color = SERIES[name != metric]
            ax.plot(places, values, label=label, color=color, marker=marker, markersize=3, linewidth=width)
    ax.set(xlabel="iteration" if "step" in history else "epoch", ylabel=metric)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if metric == "accuracy":
        percent_axis(ax.yaxis)
    ax.legend()
    return ax


def plot_reliability(bins: Sequence[ReliabilityBin], *, ax: Axes | None = None) -> Axes:
    """Draw how often rows of a given confidence are right: on the diagonal, probabilities mean what they say.

    Parameters
    ----------
    bins : sequence of ReliabilityBin
        ``evaluation.reliability``. The area of a point is its share of the rows.
    ax : Axes, optional
        Where to draw.
    """
    ax = own_axes(ax)
    total = max(1, sum(place.n for place in bins))
    confidence, accuracy = [b.confidence for b in bins], [b.accuracy for b in bins]
    ax.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1)
    ax.vlines(confidence, confidence, accuracy, color=SERIES[1], linewidth=2)
    ax.plot(confidence, accuracy, color=SERIES[0], linewidth=1)
    ax.scatter(confidence, accuracy, s=[18 + 220 * b.n / total for b in bins], color=SERIES[0], zorder=3)
    ax.set(xlabel="confidence: probability of the predicted class", ylabel="share right")
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    percent_axis(ax.xaxis)
    percent_axis(ax.yaxis)
    return ax


def plot_training_size(sizes: Sequence[int], accuracies: Sequence[Accuracy], *, ax: Axes | None = None) -> Axes:
    """Draw accuracy, with its 95 % interval, against the number of training images.

    Parameters
    ----------
    sizes : sequence of int
        Training images, ascending.
    accuracies : sequence of Accuracy
        What came of each.
    ax : Axes, optional
        Where to draw.
    """
    ax = own_axes(ax)
    values = [accuracy.value for accuracy in accuracies]
    errors: list[list[float]] = [
        [a.value - a.ci95[0] for a in accuracies],
        [a.ci95[1] - a.value for a in accuracies],
    ]
    ax.errorbar(sizes, values, yerr=errors, color=SERIES[0], marker="o", markersize=4, capsize=3, elinewidth=1)
    ax.set_xscale("log")
    ax.set_xticks(sizes, [_count(n) for n in sizes])
    ax.minorticks_off()
    ax.set(xlabel="training images", ylabel="accuracy")
    percent_axis(ax.yaxis)
    return ax


def plot_shots(lines: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Draw accuracy against the number of training images a class, one line for each way of training.

    Parameters
    ----------
    lines : sequence of mapping
        ``name``, and columns ``images_per_class``, ``accuracy`` and ``ci95`` (low, high): ``lines`` of the JSON of
        ``featx compare``.
    ax : Axes, optional
        Where to draw.

    Examples
    --------
    >>> line = {"name": "frozen", "images_per_class": [5, 50], "accuracy": [0.6, 0.8], "ci95": [[0.5, 0.7], [0.7, 0.9]]}
    >>> [text.get_text() for text in plot_shots([line]).get_legend().get_texts()]
    ['frozen']
    """
    ax = own_axes(ax)
    for color, marker, line in zip(SERIES, "osD^v<>PX*", lines, strict=False):
        values, (low, high) = line["accuracy"], zip(*line["ci95"], strict=True)
        errors = [
            [max(0.0, value - end) for value, end in zip(values, low, strict=True)],
            [max(0.0, end - value) for value, end in zip(values, high, strict=True)],
        ]
        how: dict[str, Any] = {"color": color, "marker": marker, "markersize": 5, "capsize": 3, "elinewidth": 1}
        ax.errorbar(line["images_per_class"], values, yerr=errors, label=line["name"], **how)
    sizes = sorted({n for line in lines for n in line["images_per_class"]})
    ax.set_xscale("log")
    ax.set_xticks(sizes, [_count(n) for n in sizes])
    ax.minorticks_off()
    ax.set(xlabel="training images a class", ylabel="accuracy")
    percent_axis(ax.yaxis)
    ax.legend()
    return ax


def _count(n: Any) -> str:
    return f"{n:,}"
