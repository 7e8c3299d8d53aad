"""Colours and type of all pictures, and the axes that a picture is drawn on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from matplotlib.axes import Axes

INK = "#1d2127"
MUTED = "#5b626d"
RULE = "#d3d8df"
#: Ten hues of like weight, each at least 3:1 on white; neighbours differ under the common colour blindnesses.
SERIES = (
    "#2468b4",
    "#c8581b",
    "#16825d",
    "#8b4fb3",
    "#b8860b",
    "#1592a0",
    "#c4366f",
    "#6b7f1a",
    "#7a5c45",
    "#5f6c80",
)
RIGHT, WRONG = SERIES[0], SERIES[1]

_RC = {
    "axes.axisbelow": True,
    "axes.edgecolor": RULE,
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": RULE,
    "xtick.labelcolor": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.color": RULE,
    "ytick.labelcolor": MUTED,
    "ytick.labelsize": 8.5,
}


def styled(settings: Mapping[str, Any] | None = None) -> AbstractContextManager[None]:
    """Return a context in which matplotlib draws in featx's style.

    A class called ``$x$`` is a name, not mathematics.

    Parameters
    ----------
    settings : mapping of str to object, optional
        Further settings of matplotlib (its rcParams).
    """
    import matplotlib as mpl

    context: AbstractContextManager[None] = mpl.rc_context(_RC | dict(settings or {}))
    return context


def own_axes(ax: Axes | None) -> Axes:
    """Return `ax`, or the axes of a new figure."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    axes: Axes = plt.subplots(layout="constrained")[1]
    return axes


def percent_axis(axis: Any) -> None:
    """Label an axis of shares 0-1 in percent."""
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.4g} %"))


def shortened(label: str, room: int = 24) -> str:
    """Return a class name that fits beside an axis.

    Examples
    --------
    >>> shortened("american_staffordshire_terrier", 12)
    'american_st…'
    """
    return label if len(label) <= room else label[: room - 1] + "…"
