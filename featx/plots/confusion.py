"""The confusion matrix, with what it means for each class in its margins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featx.plots.style import INK, MUTED, RIGHT, WRONG, own_axes, shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

#: Cells of larger matrices hold no numbers, since nobody could read them.
MAX_ANNOTATED = 26


def plot_confusion(
    counts: ArrayLike, classes: Sequence[str], *, normalize: bool = False, ax: Axes | None = None
) -> Axes:
    """Draw a confusion matrix.

    What is right is blue, what is wrong is orange, each on a scale of its own, so that rare mistakes are seen
    beside thousands of right answers. The column on the right holds each class's true-positive rate (recall),
    the row below its false-positive rate.

    Parameters
    ----------
    counts : array_like of int, shape (k, k)
        Rows by true (first axis) and predicted class: ``evaluation.confusion``.
    classes : sequence of str, length k
        Names of the classes.
    normalize : bool
        Show shares of each true class instead of counts.
    ax : Axes, optional
        Where to draw.

    Examples
    --------
    >>> ax = plot_confusion([[8, 2], [1, 9]], ["cat", "dog"], normalize=True)
    >>> [text.get_text() for text in ax.texts[:8]]
    ['80.0', '20.0', '10.0', '90.0', '80 %', '10 %', '90 %', '20 %']
    """
    ax = own_axes(ax)
    matrix = np.asarray(counts, dtype=np.int64)
    k = len(classes)
    support = matrix.sum(axis=1)
    shares = matrix / np.maximum(support, 1)[:, None]
    ax.imshow(_colours(shares if normalize else matrix), interpolation="nearest")
    if k <= MAX_ANNOTATED:
        _annotate(ax, matrix, shares, normalize=normalize)
    _margins(ax, matrix, annotated=k <= MAX_ANNOTATED)
    size = max(2.0, min(8.5, 240 / k))
    names = [shortened(name, 20) for name in classes]
    ax.set_xticks(range(k), names, rotation=90 if k > 6 else 0, fontsize=size)
    ax.set_yticks(range(k), names, fontsize=size)
    ax.set(xlabel="predicted", ylabel="true", xlim=(-0.5, k + 0.6), ylim=(k + 0.6, -0.5))
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def _colours(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return an RGB image: the diagonal in shades of one hue, the rest in shades of another."""
    from matplotlib.colors import to_rgb

    right = np.eye(len(values), dtype=bool)
    strength = np.zeros(values.shape)
    for part in (right, ~right):
        # The square root keeps a single mistake visible.
        strength[part] = np.sqrt(values[part] / max(values[part].max(initial=0), 1e-12))
    hue = np.where(right[..., None], to_rgb(RIGHT), to_rgb(WRONG))
    return np.asarray(1 - (0.04 + 0.8 * strength[..., None]) * (1 - hue), dtype=np.float64)


def _annotate(ax: Axes, matrix: NDArray[np.int64], shares: NDArray[np.float64], *, normalize: bool) -> None:
    size = max(4.5, 9 - len(matrix) / 6)
    colours = _colours(shares if normalize else matrix)
    for (i, j), n in np.ndenumerate(matrix):
        text = f"{100 * shares[i, j]:.1f}" if normalize else f"{n}"
        dark = colours[i, j] @ (0.299, 0.587, 0.114) < 0.6
        ax.text(j, i, text, ha="center", va="center", fontsize=size, color="white" if dark else INK)


def _margins(ax: Axes, matrix: NDArray[np.int64], *, annotated: bool) -> None:
    k, hits = len(matrix), matrix.diagonal()
    support, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
    n_others = matrix.sum() - support
    for i in range(k) if annotated else ():
        recall = f"{100 * hits[i] / support[i]:.3g} %" if support[i] else "–"
        false = f"{100 * (predicted[i] - hits[i]) / n_others[i]:.2g} %" if n_others[i] else "–"
        ax.text(k + 0.05, i, recall, ha="center", va="center", fontsize=7, color=MUTED)
        ax.text(i, k + 0.05, false, ha="center", va="center", fontsize=7, color=MUTED)
    if annotated:
        ax.annotate("true-pos.\nrate", (k + 0.05, -0.6), ha="center", fontsize=6.5, color=MUTED, annotation_clip=False)
        ax.annotate("false-pos.\nrate", (k + 0.05, k + 0.05), ha="center", va="center", fontsize=6.5, color=MUTED)
