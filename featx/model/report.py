"""What a fit came to: accuracies with their intervals, what was chosen, curves; the JSON form of ``featx fit``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: Where the fields of a report differ by what was fitted: those of a fine-tuned network alone, and of all others.
_TUNED = ("kind", "dataset", "source", "errors", "settings", "iterations")
_FROZEN = ("views", "augment", "refit", "search", "cv", "path", "warnings")


@dataclass(frozen=True)
class Accuracy:
    """A share of right answers with its 95 % interval.

    Attributes
    ----------
    n : int
        Number of answers, at least 1.
    n_correct : int
        Number of right ones, 0–`n`.
    left_out : bool
        Whether each row was left out of what answered for it: a nearest-neighbour head on its own training rows.

    Examples
    --------
    >>> print(Accuracy(n=200, n_correct=180))
    90.0 % (85.1–93.4 %, n = 200)
    """

    n: int
    n_correct: int
    left_out: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.n_correct <= self.n or self.n < 1:
            raise ValueError(f"need 0 ≤ n_correct ≤ n and n ≥ 1, got {self.n_correct} of {self.n}")

    @property
    def value(self) -> float:
        """Share of right answers, 0–1."""
        return self.n_correct / self.n

    @property
    def ci95(self) -> tuple[float, float]:
        """Wilson score interval at 95 %, which has its coverage at small `n` and near 0 and 1 too.

        Examples
        --------
        >>> low, high = Accuracy(n=10, n_correct=10).ci95
        >>> round(low, 3), high
        (0.722, 1.0)
        """
        n, p, z = self.n, self.value, 1.959963984540054  # the normal distribution's 97.5 % quantile
        centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
        low, high = ((centre + side) / (1 + z * z / n) for side in (-half, half))
        return (low if self.n_correct else 0.0), (high if self.n_correct < n else 1.0)

    def to_dict(self) -> dict[str, Any]:
        """Return ``{"n", "accuracy", "ci95"}``, ready for JSON, with ``"left_out"`` where that is so."""
        left_out = {"left_out": True} if self.left_out else {}
        return {"n": self.n, "accuracy": self.value, "ci95": list(self.ci95), **left_out}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Accuracy:
        """Rebuild it from `to_dict`."""
        return cls(fields["n"], round(fields["accuracy"] * fields["n"]), fields.get("left_out", False))

    def __str__(self) -> str:
        low, high = self.ci95
        return f"{self.value:.1%} ({100 * low:.1f}–{high:.1%}, n = {self.n:,})".replace("%", " %")


@dataclass(frozen=True)
class Trial:
    """One combination of settings, and the accuracy on the held-out rows of each fold."""

    settings: dict[str, Any]
    accuracies: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        """Mean over folds."""
        return float(np.mean(self.accuracies))

    @property
    def sd(self) -> float | None:
        """Standard deviation over folds; None for a single one."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        scores = {"accuracy": self.accuracy, "sd": self.sd, "accuracies": list(self.accuracies)}
        return {"settings": spelled(self.settings), **scores}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Trial:
        """Rebuild it from `to_dict`."""
        return cls(fields["settings"], tuple(fields["accuracies"]))


def spelled(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with infinity as a word: JSON has no such number, and ``C=inf`` means no penalty.

    Examples
    --------
    >>> spelled({"C": float("inf"), "dropout": 0.3})
    {'C': 'inf', 'dropout': 0.3}
    """
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in settings.items()
    }


@dataclass(frozen=True, eq=False, kw_only=True)
class FitReport(Mapping[str, Any]):
    """What a fit reported. It also reads as its JSON form: ``report["val"]["accuracy"]``, ``{**report}``.

    Attributes
    ----------
    head : str
        Name of the head; of a fine-tuned network its layers.
    table : str or None
        Path of the table that was fitted on.
    train, val, test : Accuracy or None
        On each part; None for one without rows, and for a test split that was not asked for.
    seconds : float
        The fit took.
    n_parameters : int
        Number of values that were learned.
    chosen : dict
        Settings that were chosen among others, by name.
    scale : str
        The step before the head.
    temperature : float
        Of the calibration.
    history : dict of str to list of float
        Curves over epochs, of heads that train in epochs.
    views, augment : int, str or None
        How many views of each training image were learned from, and what was drawn for them.
    refit : bool
        Whether the head was fitted again on train and validation rows.
    search : tuple of Trial or None
        The alternatives of a search.
    cv : Trial or None
        The folds of a cross-validation, with the settings that were chosen.
    path : list of dict or None
        Each C that a head tried by itself, with its mean score.
    warnings : tuple of str
        What a reader of the numbers must know.
    protocol : dict or None
        Of `featx.run_protocol`: ``name``, ``source``, ``chose``, ``reported``, ``results``, ``warnings``.
    kind : {"frozen", "finetune", "scratch"}
        Whether the network was left as it was.
    dataset, source, errors, settings : str, dict, int, dict
        Of a fine-tuned network: the data, where they are, how many images could not be read, how it was trained.
    iterations : dict of str to list of float
        Curves over its steps.
    """

    head: str = ""
    table: str | None = None
    train: Accuracy | None = None
    val: Accuracy | None = None
    test: Accuracy | None = None
    seconds: float = 0.0
    n_parameters: int = 0
    chosen: Mapping[str, Any] = field(default_factory=dict)
    scale: str = "none"
    temperature: float = 1.0
    history: Mapping[str, list[float]] = field(default_factory=dict)
    views: int = 1
    augment: str | None = None
    refit: bool = False
    search: tuple[Trial, ...] | None = None
    cv: Trial | None = None
    path: list[dict[str, float]] | None = None
    warnings: tuple[str, ...] = ()
    protocol: dict[str, Any] | None = None
    kind: str = "frozen"
    dataset: str = ""
    source: dict[str, Any] = field(default_factory=dict)
    errors: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    iterations: Mapping[str, list[float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: a frozen network's has nothing on training one, and the reverse."""
        left_out = _TUNED if self.kind == "frozen" else _FROZEN
        if self.protocol is None:
            left_out = (*left_out, "protocol")
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in left_out}
        for name, value in fields.items():
            if isinstance(value, Accuracy | Trial):
                fields[name] = value.to_dict()
        if "cv" in fields and self.cv is not None:
            fields["cv"] = {"k": len(self.cv.accuracies), **fields["cv"]}
        if "search" in fields and self.search is not None:
            fields["search"] = [trial.to_dict() for trial in self.search]
        if "warnings" in fields:
            fields["warnings"] = list(self.warnings)
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> FitReport:
        """Rebuild it from `to_dict`."""
        found = dict(fields)
        for part in ("train", "val", "test"):
            if found.get(part) is not None:
                found[part] = Accuracy.from_dict(found[part])
        if found.get("search") is not None:
            found["search"] = tuple(map(Trial.from_dict, found["search"]))
        if found.get("cv") is not None:
            found["cv"] = Trial.from_dict(found["cv"])
        return cls(**found | {"warnings": tuple(found.get("warnings", ()))})

    def __getitem__(self, name: str) -> Any:
        return self.to_dict()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_dict())

    def __len__(self) -> int:
        return len(self.to_dict())
