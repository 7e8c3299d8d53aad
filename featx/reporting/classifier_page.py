"""The page about classifiers: the leaderboard, and all that is known of the best of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featx.comparison import WAYS, head_of, names_of
from featx.reporting.board import accuracy_of, best_of, row_of
from featx.reporting.choice import PER_CELL, confidences
from featx.reporting.page import percent, render
from featx.reporting.provenance import commands, provenance

if TYPE_CHECKING:
    from collections.abc import Callable

    from featx.reporting.board import Row
    from featx.reporting.drawings import Drawing
    from featx.reporting.findings import Findings, Judged
    from featx.reporting.page import Shown

#: More classes than this are too many for one matrix: the most confused of them are shown.
MAX_CLASSES = 150


def classifier_page(findings: Findings, drawings: list[Drawing]) -> str:
    """Return the page of `findings`, with those of the `drawings` inline that it has a place for."""
    model, judged = findings.model, findings.judged
    table = judged.table if judged else None
    curves = [d.name for d in drawings if d.name.endswith(("-epoch", "-iteration"))]
    inline = {"leaderboard", "shots", "classes", "reliability", "training-size", *curves}
    context: dict[str, Any] = {
        "title": findings.title,
        "lead": _lead(findings),
        "notes": findings.notes,
        "pictures": {d.name: d.inline() for d in drawings if d.name in inline},
        "board": _board(findings.rows) if len(findings.rows) > 1 else None,
        "described": names_of([row_of(model)])[0] if model is not None and len(findings.rows) > 1 else "",
        "curves": [name for name in curves if not name.startswith("row-")],
        "other_curves": _other_curves(findings.rows, curves),
        "provenance": [] if model is None else provenance(model, table),
        "commands": findings.command if model is None else commands(model, table, findings.command),
        "judged": judged,
        "found": judged.evaluation if judged else None,
    }
    if judged is None:
        return render("report.html", rows={}, thumbnails={}, classes=[], **context)
    context |= _shown(judged)
    return render("report.html", thumbnails=judged.thumbnails, **context)


def _lead(findings: Findings) -> str:
    model, judged = findings.model, findings.judged
    if model is None:
        return f"{len(findings.rows)} classifiers side by side"
    words = [head_of(row_of(model))]
    if model.recipe is not None and model.request is not None:
        frame = model.recipe.frame
        words.append(f"{model.request.backbone} {model.recipe.layer} at {frame.height}×{frame.width}")
    if judged is not None and judged.table.dataset:
        words.append(judged.table.dataset)
    return " · ".join(filter(None, words))


def _other_curves(rows: list[Row], curves: list[str]) -> list[tuple[str, list[str]]]:
    """Return the curves of each row of the leaderboard that has any."""
    found = [(name, [c for c in curves if c.startswith(f"row-{i}-")]) for i, name in enumerate(names_of(rows))]
    return [(title, names) for title, names in found if names]


#: Header, key, class of the cells, how a value reads.
_COLUMNS: list[tuple[str, str, str, Callable[[Any], str]]] = [
    ("training", "kind", "", lambda kind: WAYS.get(kind, kind)),
    ("images a class", "images_per_class", "num", "{:,}".format),
    ("size", "image_size", "num", str),
    ("train", "train_accuracy", "num", percent),
    ("validation", "val_accuracy", "num", percent),
    ("test", "test_accuracy", "num", percent),
    ("95 %", "ci95", "num", lambda ends: f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}"),
    ("p against best", "mcnemar", "num", "{:.2g}".format),
    ("parameters", "n_parameters", "num", "{:,}".format),
    ("extraction", "extract_seconds", "num", "{:.1f} s".format),
    ("fit", "fit_seconds", "num", "{:.1f} s".format),
]


def _board(rows: list[Row]) -> dict[str, Any]:
    """Return the leaderboard as text, the best by validation first, without columns that nobody fills."""
    columns = [column for column in _COLUMNS if any(row.get(column[1]) not in (None, {}) for row in rows)]
    best, names = best_of(rows), names_of(rows)
    order = np.argsort([-(row.get("val_accuracy") or accuracy_of(row) or 0) for row in rows], kind="stable").tolist()
    lines = [
        {
            "best": i == best,
            "name": names[i],
            "cells": [_cell(rows[i].get(key), kind, text) for _, key, kind, text in columns],
        }
        for i in order
    ]
    return {"columns": [("classifier", ""), *((title, kind) for title, _, kind, _ in columns)], "rows": lines}


def _cell(value: Any, kind: str, text: Callable[[Any], str]) -> dict[str, Any]:
    """Return how a value reads, and what it is sorted by."""
    if value is None:
        return {"text": "–", "value": "", "kind": kind}
    return {"text": text(value), "value": value[0] if isinstance(value, list | tuple) else value, "kind": kind}


def _shown(judged: Judged) -> dict[str, Any]:
    """Return what the templates say of single rows, and what the script needs to show more of them."""
    found, choice, at = judged.evaluation, judged.choice, judged.positions
    indices = _confused_classes(judged)
    panels = [
        ("Random", choice.predictions),
        ("Most confident mistakes", choice.mistakes),
        ("Least sure", choice.unsure),
    ]
    place = {name: i for i, name in enumerate(found.classes)}
    names, y = judged.table.classes, judged.table.y
    doubted = {
        s.row: (str(judged.table.ids[s.row]), place[names[y[s.row]]], place[names[s.likely]], s.p_likely)
        for s in judged.suspects
        if names[y[s.row]] in place and names[s.likely] in place
    }
    return {
        "classes": list(found.classes),
        "rows": doubted | _sampled(judged) | _predicted(judged),  # the page has images of these
        "doubted": doubted,
        "per_cell": PER_CELL,
        "confusion_cut": 0 if len(indices) == len(found.classes) else len(indices),
        "pairs": [(i, j, n, at(chosen)) for i, j, n, chosen in choice.pairs],
        "panels": [(title, at(chosen)) for title, chosen in panels if chosen],
        "methods": [(name, f"{name} of {len(points):,}") for name, points in judged.maps.items()],
        "twins": [_group(judged, group) for group in judged.duplicates],
        "data": {"confusion": _confusion(judged, indices), "map": _map(judged)},
    }


def _predicted(judged: Judged) -> dict[int, Shown]:
    """Return what is said of every row of the evaluation that is shown anywhere."""
    found, ids, confidence = judged.evaluation, judged.held.rows.ids, confidences(judged.evaluation)
    chosen = list(dict.fromkeys(judged.choice.by_importance()))
    return {
        position: (str(ids[row]), int(found.y_true[row]), int(found.y_pred[row]), round(float(confidence[row]), 4))
        for position, row in zip(judged.positions(chosen), chosen, strict=True)
    }


def _sampled(judged: Judged) -> dict[int, Shown]:
    place = {name: i for i, name in enumerate(judged.evaluation.classes)}
    table = judged.table
    return {row: (str(table.ids[row]), place.get(table.classes[table.y[row]]), None, None) for row in judged.samples}


def _confused_classes(judged: Judged) -> list[int]:
    """Return the classes of the matrix: all, or those with the most mistakes."""
    counts = judged.evaluation.confusion
    if len(counts) <= MAX_CLASSES:
        return list(range(len(counts)))
    n_wrong = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    return sorted(np.argsort(-n_wrong, kind="stable")[:MAX_CLASSES].tolist())


def _confusion(judged: Judged, indices: list[int]) -> dict[str, Any]:
    found = judged.evaluation
    scores = [found.per_class[i] for i in indices]
    among = set(indices)
    return {
        "indices": indices,
        "counts": found.confusion[np.ix_(indices, indices)].tolist(),
        "support": [s.support for s in scores],
        "recall": [_or_none(s.recall) for s in scores],
        "false_positive_rate": [_or_none(s.false_positive_rate) for s in scores],
        "cells": {
            f"{i},{j}": judged.positions(rows) for (i, j), rows in judged.choice.cells.items() if {i, j} <= among
        },
    }


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 5)


def _map(judged: Judged) -> dict[str, Any] | None:
    if not judged.maps:
        return None
    return {
        "methods": list(judged.maps),
        "rows": judged.positions(judged.choice.on_map),
        "points": {name: np.round(points, 4).tolist() for name, points in judged.maps.items()},
    }


def _group(judged: Judged, group: list[int]) -> str:
    """Name images of identical content, with their splits and labels."""
    table = judged.table
    labels = [table.classes[table.y[row]] if table.y[row] >= 0 else "no label" for row in group]
    parts = [
        f"{table.ids[row]} ({', '.join(filter(None, [str(table.splits[row]), label]))})"
        for row, label in zip(group, labels, strict=True)
    ]
    return " = ".join(parts)
