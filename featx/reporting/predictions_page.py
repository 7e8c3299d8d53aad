"""The page about images without labels: by predicted class, and those that the classifier is least sure of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featx import plots
from featx.datasets import open_dataset
from featx.errors import ImageError
from featx.reporting.choice import PER_GRID
from featx.reporting.drawings import Drawing, bars_size
from featx.reporting.page import render
from featx.reporting.thumbnails import MAX_THUMBNAILS, thumbnail

if TYPE_CHECKING:
    from collections.abc import Iterable

    from featx.model import Predictions
    from featx.reporting.page import Shown

#: Images shown of all classes together.
_MAX_SHOWN = MAX_THUMBNAILS // 2


def predictions_drawings(predictions: Predictions) -> list[Drawing]:
    """Return the pictures of `predictions`."""
    best = predictions.best
    counts = np.bincount(best[best >= 0], minlength=len(predictions.classes)).tolist()

    def draw(ax: Any) -> Any:
        return plots.plot_class_counts({"predicted": counts}, predictions.classes, ax=ax)

    return [Drawing("predicted-classes", "Images of each predicted class.", bars_size(len(counts)), draw)]


def predictions_page(predictions: Predictions, source: Any, drawings: list[Drawing]) -> str:
    """Return the page of `predictions` that were made of `source`, where their images are read again."""
    confidence, best = predictions.confidence, predictions.best
    order = np.argsort(-np.nan_to_num(confidence), kind="stable")
    order = order[best[order] >= 0]
    labels = sorted(set(best[order].tolist()), key=lambda label: -int((best == label).sum()))
    per_class = max(1, min(PER_GRID, _MAX_SHOWN // max(1, len(labels))))
    groups = [
        (predictions.classes[label], int((best == label).sum()), order[best[order] == label][:per_class].tolist())
        for label in labels
    ]
    unsure = order[::-1][:PER_GRID].tolist()
    chosen = sorted({*unsure, *(row for *_, rows in groups for row in rows)})
    rows: dict[int, Shown] = {
        row: (predictions.ids[row], None, int(best[row]), round(float(confidence[row]), 4)) for row in chosen
    }
    return render(
        "predictions.html",
        title="Predictions",
        lead=f"{len(predictions):,} images",
        notes=(),
        rows=rows,
        thumbnails=_thumbnails(source, chosen),
        classes=list(predictions.classes),
        pictures={drawing.name: drawing.inline() for drawing in drawings},
        n=len(predictions) - len(predictions.errors),
        mean_confidence=float(np.nanmean(confidence)) if len(order) else None,
        n_unsure=int((~predictions.sure).sum()) - len(predictions.errors),
        groups=groups,
        unsure=unsure,
        failed=[(predictions.ids[row], reason) for row, reason in sorted(predictions.errors.items())],
    )


def _thumbnails(source: Any, rows: Iterable[int]) -> dict[int, bytes]:
    """Return thumbnails of images that have just been predicted; none of a table, which has no images."""
    from featx.features import Features

    if isinstance(source, Features) or str(source).endswith((".h5", ".hdf5")):
        return {}
    made = {}
    for row, data in open_dataset(source).iterate(rows):
        try:
            if not isinstance(data, ImageError):
                made[row] = thumbnail(data)
        except ImageError:
            continue
    return made
