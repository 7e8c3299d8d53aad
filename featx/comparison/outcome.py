"""What a comparison came to: runs, the rows that they make, and the ranked leaderboard of them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.comparison.board import WAYS, as_html, as_text, names_of
from featx.evaluation import mcnemar
from featx.files import write_whole
from featx.files.disk import explained

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featx.comparison.plan import Trial

#: The file of a comparison in its folder.
FILE = "comparison.json"


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one fit came to; everything in it is ready for JSON.

    Attributes
    ----------
    seed : int
        Of the subset, and of whatever the fit draws.
    layer, pool : str or None
        What the request came to; None where the network itself learned.
    image_size : int or list of int
        Side of the input in pixels, or height and width.
    train, val, test : dict or None
        ``{"n", "accuracy", "ci95"}``.
    predicted : list of int
        Class of each row of the reporting split, -1 for an image that could not be read.
    extract_seconds : float or None
        What the features cost when they were computed; None where that is not known, or there are none.
    extract_seconds_now : float
        What they cost this time.
    fit_seconds : float
        Of the fit alone.
    n_parameters : int
        Trained values.
    settings : dict
        What was given and what was chosen.
    history : dict
        Columns of an entry an epoch; empty for heads without epochs.
    model : str or None
        Path of the model, from the folder of the comparison.
    """

    seed: int
    layer: str | None
    pool: str | None
    image_size: int | list[int]
    train: dict[str, Any]
    val: dict[str, Any]
    test: dict[str, Any] | None
    predicted: list[int]
    extract_seconds: float | None
    extract_seconds_now: float
    fit_seconds: float
    n_parameters: int
    settings: dict[str, Any]
    history: dict[str, Any]
    model: str | None


@dataclass(frozen=True)
class Row:
    """A trial and its runs, one a seed; or the error that ended it."""

    trial: Trial
    runs: list[Run] = field(default_factory=list)
    error: Exception | None = None

    @property
    def shown(self) -> Run | None:
        """The run of median validation accuracy, the lower one of two; None if the trial failed."""
        return sorted(self.runs, key=_val)[(len(self.runs) - 1) // 2] if self.runs else None

    def to_dict(self, n_classes: int) -> dict[str, Any]:
        """Return the JSON form, without what only a whole board knows."""
        run, trial = self.shown, self.trial
        row: dict[str, Any] = {
            "kind": trial.kind,
            "backbone": trial.backbone,
            "layer": run.layer if run else trial.layer,
            "pool": run.pool if run else trial.pool,
            "head": trial.head,
            "image_size": run.image_size if run else None,
            "images_per_class": trial.shots or (round(run.train["n"] / n_classes) if run else None),
        }
        row |= dict.fromkeys(_MEASURED) if run is None else _measured(run)
        row["seeds"] = [run.seed for run in self.runs]
        for split in ("val", "test"):
            accuracies = [part["accuracy"] for run in self.runs if (part := getattr(run, split))]
            row[f"{split}_range"] = [min(accuracies), max(accuracies)] if accuracies else None
        row["error"] = None if self.error is None else {"type": type(self.error).__name__, "message": str(self.error)}
        return row


_MEASURED = (
    "train_accuracy", "val_accuracy", "test_accuracy", "ci95", "extract_seconds", "extract_seconds_now", "fit_seconds",
    "n_parameters", "settings", "history", "model",
)  # fmt: skip


def _val(run: Run) -> float:
    return float(run.val["accuracy"])


def _measured(run: Run) -> dict[str, Any]:
    values = (
        run.train["accuracy"],
        run.val["accuracy"],
        run.test["accuracy"] if run.test else None,
        (run.test or run.val)["ci95"],
        run.extract_seconds,
        run.extract_seconds_now,
        run.fit_seconds,
        run.n_parameters,
        run.settings,
        run.history,
        run.model,
    )
    return dict(zip(_MEASURED, values, strict=True))


@dataclass(frozen=True, eq=False)
class Comparison:
    """What a comparison came to.

    Attributes
    ----------
    rows : list of dict
        By validation accuracy, best first; rows that failed come last, with their ``error``. ``name`` (in words),
        ``kind`` (frozen, finetune or scratch), ``backbone``, ``layer``, ``pool``, ``head``, ``image_size``,
        ``images_per_class``, ``train_accuracy``, ``val_accuracy``, ``test_accuracy`` (0–1), ``ci95`` (Wilson, of test
        where there is one, else of validation), ``extract_seconds`` (what the pass that gave these features cost when
        it ran; layers of one pass share it; null where the cache does not tell) and ``extract_seconds_now``,
        ``fit_seconds``, ``n_parameters`` (trained), ``settings``, ``mcnemar`` (p against the best on the same rows),
        ``history`` (an entry an epoch), ``model`` (path from `folder`). Of several ``seeds`` a row shows the run of
        median validation accuracy; ``val_range`` and ``test_range`` span all of them.
    data : dict
        Name, classes, and rows of each split.
    folder : Path or None
        Where models and ``comparison.json`` are; None if nothing was kept.
    """

    rows: list[dict[str, Any]]
    data: dict[str, Any]
    folder: Path | None = None

    @property
    def best(self) -> dict[str, Any] | None:
        """The row of highest validation accuracy, the first of equals; None if all failed."""
        return next((row for row in self.rows if row["error"] is None), None)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form of ``featx compare``: ``rows``, ``best`` (one of them), ``data`` and ``lines``."""
        return {"rows": self.rows, "best": self.best, "data": self.data, "lines": lines_over_shots(self.rows)}

    def save(self) -> Path | None:
        """Write ``comparison.json`` into `folder` and return its path."""
        if self.folder is None:
            return None
        path = self.folder / FILE
        with explained("write", path):
            write_whole(path, json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False, indent=1))
        return path

    def __str__(self) -> str:
        shown = self._shown()
        lines = [as_text(shown), _legend(self.data)] if shown else []
        reasons = defaultdict(list)
        for row in self.rows:
            if row["error"]:
                reasons[row["error"]["message"]].append(row["name"])
        return "\n".join([*lines, *(f"Not done: {_several(names)}: {reason}" for reason, names in reasons.items())])

    def _repr_html_(self) -> str:
        return as_html(self._shown())

    def _shown(self) -> list[dict[str, Any]]:
        best = self.best
        return [row | {"is_best": row is best} for row in self.rows if row["error"] is None]


def rank(
    rows: list[Row],
    truth: NDArray[np.int64],
    data: dict[str, Any],
    folder: Path | None = None,
    groups: NDArray[np.intp] | None = None,
) -> Comparison:
    """Rank rows by validation accuracy, and test each against the best on the rows of the reporting split.

    Parameters
    ----------
    rows : list of Row
    truth : ndarray of int, shape (n,)
        Classes of those rows.
    data : dict
        What is said about the data.
    folder : Path, optional
    groups : ndarray of int, shape (n,), optional
        Rows that are right or wrong together.
    """
    n_classes = len(data["classes"])
    ranked = sorted(rows, key=lambda row: -row.shown.val["accuracy"] if row.shown else 1.0)
    best = ranked[0].shown if ranked else None
    records = [row.to_dict(n_classes) for row in ranked]
    for row, record, name in zip(ranked, records, names_of(records), strict=True):
        record |= {"name": name, "mcnemar": None}
        if best is not None and row.shown is not None and row.shown is not best:
            record["mcnemar"] = _p_value(truth, row.shown.predicted, best.predicted, groups)
    return Comparison(records, data, folder)


def lines_over_shots(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a line for each way of training: accuracy over the number of training images.

    Parameters
    ----------
    rows : sequence of mapping
        `Comparison.rows`. Of rows of one way with equally many images that of best validation counts.

    Returns
    -------
    list of dict
        ``kind`` and, in words, ``name``; and columns with an entry for each point: ``images_per_class`` (ascending),
        ``accuracy`` (of test where it was looked at, else of validation) and ``ci95``.
    """
    lines = []
    for kind, name in WAYS.items():
        best: dict[int, Mapping[str, Any]] = {}
        for row in rows:
            n = row.get("images_per_class") if row.get("kind") == kind and row["val_accuracy"] is not None else None
            if n and (n not in best or row["val_accuracy"] > best[n]["val_accuracy"]):
                best[n] = row
        points = [best[n] for n in sorted(best)]
        if points:
            tested = [row["val_accuracy"] if row["test_accuracy"] is None else row["test_accuracy"] for row in points]
            line = {"kind": kind, "name": name, "images_per_class": sorted(best), "accuracy": tested}
            lines.append(line | {"ci95": [row["ci95"] for row in points]})
    return lines


def _p_value(
    truth: NDArray[np.int64], predicted: list[int], best: list[int], groups: NDArray[np.intp] | None
) -> float | None:
    a, b = np.array(predicted), np.array(best)
    both = (a >= 0) & (b >= 0)
    of = None if groups is None else groups[both]
    return mcnemar(truth[both], a[both], b[both], of).p_value if both.any() else None


def _legend(data: dict[str, Any]) -> str:
    split = data["judged"]
    rows = f"{data[split]:,} {'test' if split == 'test' else 'validation'} rows"
    return (
        f"* best on validation, which alone chooses. 95 % and p (McNemar, against the best): of the {rows}.\n"
        "Per class: training images."
    )


def _several(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more"
