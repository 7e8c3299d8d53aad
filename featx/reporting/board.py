"""The leaderboard: classifiers as rows of ``featx compare``, whatever they come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featx.errors import DataError, MissingDataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featx.model import Model

#: A row as in the JSON of ``featx compare``.
Row = dict[str, Any]

#: File in the folder that ``featx compare -o`` writes.
COMPARISON = "comparison.json"


def read_comparison(path: Path) -> tuple[list[Row], Path]:
    """Read the rows of a comparison, and the folder that its models' paths are relative to.

    Raises
    ------
    MissingDataError
        If there is none.
    DataError
        If it is not one.
    """
    file = path / COMPARISON if path.is_dir() else path
    try:
        found = json.loads(file.read_bytes())
    except FileNotFoundError as error:
        raise MissingDataError(f"No {COMPARISON} in {path}. Make one: featx compare DATA -o {path}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read as a comparison: {error}. Make it again: featx compare") from error
    return comparison_rows(found), file.parent


def comparison_rows(comparison: Any) -> list[Row]:
    """Return the rows of the JSON form of ``featx compare``.

    Raises
    ------
    DataError
        If there are none.
    """
    rows = comparison.get("rows") if isinstance(comparison, dict) else None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError("A comparison has a list of rows, and this has none. Make it again: featx compare")
    return [row for row in rows if not row.get("error")]


def row_of(model: Model) -> Row:
    """Return the row of one model, from what its fit reported."""
    report, recipes = model.report, [made.recipe for made in model.inputs]
    backbones = [made.request.backbone for made in model.inputs if made.request]
    parts = {"train": report.train, "val": report.val, "test": report.test}
    scored = report.test or report.val
    return {
        "kind": report.kind,
        "backbone": _together(backbones),
        "layer": _together([recipe.layer for recipe in recipes]),
        "pool": _together([recipe.pool for recipe in recipes]),
        "head": model.head_name,
        "image_size": recipes[0].frame.height if recipes else None,
        **{f"{part}_accuracy": found and found.value for part, found in parts.items()},
        "ci95": list(scored.ci95) if scored and scored.ci95 else None,
        "fit_seconds": report.seconds,
        "n_parameters": report.n_parameters,
        "settings": dict(report.settings or report.chosen),
        "history": dict(report.history),
    }


def _together(names: list[str]) -> str | None:
    """Return the different ones of what stands side by side, in one text."""
    return "+".join(dict.fromkeys(names)) if names else None


def accuracy_of(row: Row) -> float | None:
    """Return the accuracy that ``ci95`` belongs to: on test where it was looked at, else on validation."""
    found: float | None = row.get("test_accuracy")
    return row.get("val_accuracy") if found is None else found


def best_of(rows: Sequence[Row]) -> int | None:
    """Return the row that validation chooses; None where no row was validated."""
    validated = [i for i, row in enumerate(rows) if row.get("val_accuracy") is not None]
    return max(validated, key=lambda i: rows[i]["val_accuracy"]) if validated else None
