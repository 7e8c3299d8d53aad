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
    from featx.reporting.findings import Findings, TableFindings
    from featx.reporting.page import Shown

#: More classes than this are too many for one matrix: the most confused of them are shown.
MAX_CLASSES = 150


def classifier_page(findings: Findings, drawings: list[Drawing]) -> str:
    """Return the page of `findings`, with those of the `drawings` inline that it has a place for."""
    model, on_table = findings.model, findings.on_table
    table = on_table.table if on_table else None
    curves = [d.name for d in drawings if d.name.endswith(("-epoch", "-iteration"))]
    inline = {"leaderboard", "shots", "classes", "reliability", "training-size", "saliency", *curves}
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
        "on_table": on_table,
        "found": on_table.evaluation if on_table else None,
    }
    if on_table is None:
        return render("report.html", rows={}, thumbnails={}, classes=[], **context)
    context |= _shown(on_table)
    return render("report.html", thumbnails=on_table.thumbnails, **context)


def _lead(findings: Findings) -> str:
    model, on_table = findings.model, findings.on_table
    if model is None:
        return f"{len(findings.rows)} classifiers side by side"
    words = [head_of(row_of(model))]
    if model.recipe is not None and model.request is not None:
        frame = model.recipe.frame
        words.append(f"{model.request.backbone} {model.recipe.layer} at {frame.height}×{frame.width}")
    elif model.inputs:
        words.append(f"{len(model.inputs)} blocks of features: {model.made_of}")
    if on_table is not None and on_table.table.dataset:
        words.append(on_table.table.dataset)
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


def _shown(on_table: TableFindings) -> dict[str, Any]:
    """Return what the templates say of single rows, and what the script needs to show more of them."""
    found, choice, at = on_table.evaluation, on_table.choice, on_table.positions
    indices = _confused_classes(on_table)
    panels = [
        ("Random", choice.predictions),
        ("Most confident mistakes", choice.mistakes),
        ("Least sure", choice.unsure),
    ]
    place = {name: i for i, name in enumerate(found.classes)}
    doubted = _doubted(on_table, place)
    return {
        "classes": list(found.classes),
        "rows": doubted | _sampled(on_table) | _predicted(on_table),  # the page has images of these
        "doubted": doubted,
        "per_cell": PER_CELL,
        "confusion_cut": 0 if len(indices) == len(found.classes) else len(indices),
        "pairs": [(i, j, n, at(chosen)) for i, j, n, chosen in choice.pairs],
        "panels": [(title, at(chosen)) for title, chosen in panels if chosen],
        "methods": [(name, f"{name} of {len(points):,}") for name, points in on_table.maps.items()],
        "twins": [_group(on_table, group) for group in on_table.duplicates],
        "data": {"confusion": _confusion(on_table, indices), "map": _map(on_table)},
    }


def _doubted(on_table: TableFindings, place: dict[str, int]) -> dict[int, Shown]:
    """Return what is said of each row whose label looks wrong, where the evaluation knows both classes."""
    if (doubted := on_table.doubted) is None:
        return {}
    given = [on_table.table.classes[label] for label in on_table.table.y[doubted.rows].tolist()]
    columns = given, doubted.columns["likely"], doubted.columns["probability_of_likely"]
    return {
        row: (name, place[label], place[likely], p)
        for row, name, label, likely, p in zip(doubted.rows.tolist(), doubted.ids, *columns, strict=True)
        if label in place and likely in place
    }


def _predicted(on_table: TableFindings) -> dict[int, Shown]:
    """Return what is said of every row of the evaluation that is shown anywhere."""
    found, ids, confidence = on_table.evaluation, on_table.held.rows.ids, confidences(on_table.evaluation)
    chosen = list(dict.fromkeys(on_table.choice.by_importance()))
    return {
        position: (str(ids[row]), int(found.y_true[row]), int(found.y_pred[row]), round(float(confidence[row]), 4))
        for position, row in zip(on_table.positions(chosen), chosen, strict=True)
    }


def _sampled(on_table: TableFindings) -> dict[int, Shown]:
    place = {name: i for i, name in enumerate(on_table.evaluation.classes)}
    table = on_table.table
    return {row: (str(table.ids[row]), place.get(table.classes[table.y[row]]), None, None) for row in on_table.samples}


def _confused_classes(on_table: TableFindings) -> list[int]:
    """Return the classes of the matrix: all, or those with the most mistakes."""
    counts = on_table.evaluation.confusion
    if len(counts) <= MAX_CLASSES:
        return list(range(len(counts)))
    n_wrong = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    return sorted(np.argsort(-n_wrong, kind="stable")[:MAX_CLASSES].tolist())


def _confusion(on_table: TableFindings, indices: list[int]) -> dict[str, Any]:
    found = on_table.evaluation
    scores = [found.per_class[i] for i in indices]
    among = set(indices)
    return {
        "indices": indices,
        "counts": found.confusion[np.ix_(indices, indices)].tolist(),
        "support": [s.support for s in scores],
        "recall": [_or_none(s.recall) for s in scores],
        "false_positive_rate": [_or_none(s.false_positive_rate) for s in scores],
        "cells": {
            f"{i},{j}": on_table.positions(rows) for (i, j), rows in on_table.choice.cells.items() if {i, j} <= among
        },
    }


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 5)


def _map(on_table: TableFindings) -> dict[str, Any] | None:
    if not on_table.maps:
        return None
    return {
        "methods": list(on_table.maps),
        "rows": on_table.positions(on_table.choice.on_map),
        "points": {name: np.round(points, 4).tolist() for name, points in on_table.maps.items()},
    }


def _group(on_table: TableFindings, group: list[int]) -> str:
    """Name images of identical content, with their splits and labels."""
    table = on_table.table
    labels = [table.classes[table.y[row]] if table.y[row] >= 0 else "no label" for row in group]
    parts = [
        f"{table.ids[row]} ({', '.join(filter(None, [str(table.splits[row]), label]))})"
        for row, label in zip(group, labels, strict=True)
    ]
    return " = ".join(parts)
