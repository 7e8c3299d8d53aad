"""One fit of a comparison, and one row of its board: the same fit for each seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: The ways to a classifier, cheapest first.
KINDS = ("frozen", "scratch", "finetune")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is compared, as it was asked for.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    backbone, head : str
        Names.
    layer, pool : str or None
        None where the whole network is trained.
    shots : int or None
        Training images a class; None for all.
    """

    kind: str
    backbone: str
    head: str
    layer: str | None = None
    pool: str | None = None
    shots: int | None = None

    def __str__(self) -> str:
        words = [self.kind, self.backbone, self.layer, self.pool, self.head]
        return " ".join(filter(None, words)) + (f", {self.shots:,} a class" if self.shots else "")


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
        Class of each judged row, -1 for an image that could not be read.
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
