"""The page about a model of several labels, or of numbers: scores of each, and the rows it misses by most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featx import plots
from featx.evaluation import held_out_targets
from featx.model.outputs import COVERAGE, METRIC_NAMES
from featx.reporting.choice import PER_GRID
from featx.reporting.drawings import Drawing
from featx.reporting.page import render
from featx.reporting.provenance import commands, provenance
from featx.reporting.thumbnails import make_thumbnails, open_images

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from featx.evaluation import TargetEvaluation
    from featx.features import Features
    from featx.model import Model

#: Numbers that are drawn, the first of the model's.
_MAX_DRAWN = 12


def targets_page(
    model: Model, table: Features, *, title: str, split: str | None = None, data: Any = None, command: str = ""
) -> tuple[str, list[Drawing]]:
    """Return the page, and pictures, of a model of labels or numbers on rows of `table` that it was not trained on.

    Parameters
    ----------
    model, table, split
        As `featx.evaluate` takes them.
    title, command : str
        Of the page; what was typed for it.
    data : optional
        Where the images are, if not where the table says.
    """
    table = model.rows_for(table)
    held = held_out_targets(model, table, split)
    found = held.evaluate(model)
    missed = _missed(found)
    dataset, note = open_images(table, data)
    positions = [int(held.positions[i]) for i in missed]
    pictures = list(_drawings(found))
    (chooses, value), *others = found.score.metrics.items()
    page = render(
        "targets.html",
        title=title,
        lead=f"{model.head_name} · {_counted(len(found.outputs.names), 'label' if found.per_label else 'number')}",
        notes=tuple(filter(None, [note, *model.report.warnings])),
        classes=[],
        rows={position: (str(table.ids[position]), None, None, None) for position in positions},
        thumbnails={} if dataset is None else make_thumbnails(dataset, table, positions),
        captions={position: _caption(found, i) for position, i in zip(positions, missed, strict=True)},
        found=found,
        unit="image" if model.items is None else "item",
        headline=(METRIC_NAMES[chooses], value),
        others=[(METRIC_NAMES[name], value) for name, value in others],
        where=split or ("test" if (held.rows.splits == "test").all() else "held-out"),
        coverage=COVERAGE,
        together=_together(found),
        pictures={drawing.name: drawing.inline() for drawing in pictures},
        drawn=[(name, f"predicted-{k}", f"residuals-{k}") for k, name in enumerate(found.outputs.names[:_MAX_DRAWN])],
        provenance=provenance(model, table),
        commands=commands(model, table, command),
    )
    return page, pictures


def _counted(n: int, word: str) -> str:
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def _missed(found: TargetEvaluation) -> list[int]:
    """Return the rows whose truth is farthest from what was said, each number in units of its spread."""
    spread = np.ones(found.truth.shape[1]) if found.per_label else found.truth.std(axis=0)
    distance = (np.abs(found.truth - found.found) / np.where(spread > 0, spread, 1)).mean(axis=1)
    rows: list[int] = np.argsort(-distance, kind="stable")[:PER_GRID].tolist()
    return rows


def _caption(found: TargetEvaluation, row: int) -> list[tuple[str, str]]:
    """Return what is said under an image: words, and whether they are right (``ok``) or not (``no``)."""
    names, truth, says = found.outputs.names, found.truth[row], found.found[row]
    if not found.per_label:
        return [(f"{names[k]} {truth[k]:.4g} → {says[k]:.4g}", "") for k in range(min(3, len(names)))]
    there = says >= np.array(found.outputs.thresholds)
    words = [(names[k], "ok" if there[k] else "no") for k in np.flatnonzero(truth == 1).tolist()]
    return [*words, *((f"→ {names[k]}", "no") for k in np.flatnonzero(there & (truth == 0)).tolist())][:5]


def _together(found: TargetEvaluation, limit: int = 12) -> list[tuple[str, str, int, float]]:
    """Return pairs of labels that are often on one row: how many rows, and the share of those with the rarer one."""
    if not found.per_label:
        return []
    both = found.truth.T @ found.truth
    i, j = np.triu_indices(len(both), 1)
    order = [k for k in np.argsort(-both[i, j], kind="stable")[:limit].tolist() if both[i[k], j[k]] > 0]
    names = found.outputs.names
    return [
        (
            names[i[k]],
            names[j[k]],
            int(both[i[k], j[k]]),
            float(both[i[k], j[k]] / min(both[i[k], i[k]], both[j[k], j[k]])),
        )
        for k in order
    ]


def _drawings(found: TargetEvaluation) -> Iterator[Drawing]:
    for k, scores in enumerate(found.per_number[:_MAX_DRAWN]):
        y, p = found.truth[:, k], found.found[:, k]

        def draw(
            ax: Axes, y: NDArray[np.float64] = y, p: NDArray[np.float64] = p, margin: float | None = scores.margin
        ) -> Axes:
            return plots.plot_predicted(y, p, margin, ax=ax)

        def draw_residuals(ax: Axes, y: NDArray[np.float64] = y, p: NDArray[np.float64] = p) -> Axes:
            return plots.plot_residuals(y, p, ax=ax)

        yield Drawing(f"predicted-{k}", f"Predicted against true {scores.name}; R² {scores.r2:.3f}.", (4.8, 3.8), draw)
        alt = f"True less predicted {scores.name} against predicted; mean error {scores.mae:.3g}."
        yield Drawing(f"residuals-{k}", alt, (4.8, 3.8), draw_residuals)
