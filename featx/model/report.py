"""What a fit came to: accuracies with their intervals, what was chosen, curves; the JSON form of ``featx fit``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.metrics import METRIC_CHOICES
from featx.model.outputs import TargetScore

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray

#: Where the fields of a report differ by what was fitted: those of a fine-tuned network alone, and of all others.
_TUNED = ("kind", "dataset", "source", "errors", "settings", "iterations")
_FROZEN = ("views", "augment", "refit", "search", "cv", "path", "warnings")

#: The normal distribution's 97.5 % quantile.
_Z = 1.959963984540054


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
    n_effective : float, optional
        How many answers that know nothing of each other they are worth, for the interval; `n` by default.
    metrics : dict of str to float or None
        Others that were asked for, by name; None where one is not defined.

    Examples
    --------
    >>> print(Accuracy(n=200, n_correct=180))
    90.0 % (85.1–93.4 %, n = 200)
    """

    n: int
    n_correct: int
    left_out: bool = False
    n_effective: float | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict)

    @classmethod
    def of(cls, right: NDArray[np.bool_], groups: NDArray[np.intp] | None = None, *, left_out: bool = False) -> Self:
        """Return the accuracy of answers, of which those in one group may be right or wrong together.

        Parameters
        ----------
        right : ndarray of bool, shape (n,)
            Whether each answer is right.
        groups : ndarray of int, shape (n,), optional
            The group of each.
        left_out : bool
            See the class.

        Notes
        -----
        The effective number is n over the design effect (the variance over groups by that over single answers),
        corrected for the number of groups: E. L. Korn, B. I. Graubard, "Confidence intervals for proportions with small
        expected number of positive counts estimated from survey data", 1998. All right or all wrong, it is that of the
        groups.

        Examples
        --------
        >>> right = np.repeat([True, True, True, False], 50)  # 200 photos, and four patients
        >>> print(Accuracy.of(right, np.repeat(np.arange(4), 50)))
        75.0 % (13.1–98.4 %, n = 200, worth 1 independent)
        """
        n, n_correct = len(right), int(right.sum())
        if groups is None:
            return cls(n, n_correct, left_out)
        _, group = np.unique(groups, return_inverse=True)
        sizes, p = np.bincount(group), n_correct / n
        g = len(sizes)
        if g == 1 or n_correct in (0, n):
            return cls(n, n_correct, left_out, float(g))
        from scipy.special import stdtrit

        between = g / (g - 1) * ((np.bincount(group, right) - p * sizes) ** 2).sum() / n**2
        effective = min(float(n), p * (1 - p) / between) if between else float(n)
        return cls(n, n_correct, left_out, max(1.0, effective * (_Z / stdtrit(g - 1, 0.975)) ** 2))

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
        n, p, z = self.n_effective or self.n, self.value, _Z
        centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
        low, high = ((centre + side) / (1 + z * z / n) for side in (-half, half))
        return (low if self.n_correct else 0.0), (high if self.n_correct < self.n else 1.0)

    def to_dict(self) -> dict[str, Any]:
        """Return ``{"n", "accuracy", "ci95"}``, ready for JSON, with and what else is told."""
        told: dict[str, Any] = {"left_out": self.left_out or None, "n_effective": self.n_effective}
        told = {name: value for name, value in told.items() if value is not None} | dict(self.metrics)
        return {"n": self.n, "accuracy": self.value, "ci95": list(self.ci95), **told}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Accuracy:
        """Rebuild it from `to_dict`."""
        n_correct = round(fields["accuracy"] * fields["n"])
        metrics = {name: fields[name] for name in METRIC_CHOICES if name in fields and name != "accuracy"}
        return cls(fields["n"], n_correct, fields.get("left_out", False), fields.get("n_effective"), metrics)

    def __str__(self) -> str:
        low, high = self.ci95
        worth = "" if self.n_effective is None else f", worth {self.n_effective:,.0f} independent"
        return f"{self.value:.1%} ({100 * low:.1f}–{high:.1%}, n = {self.n:,}{worth})".replace("%", " %")


@dataclass(frozen=True)
class Alternative:
    """One combination of settings, and its score on the held-out rows of each fold.

    Attributes
    ----------
    settings : dict
    scores : tuple of float
    metric : str
        What they are, a name that ``--metric`` takes.
    """

    settings: dict[str, Any]
    scores: tuple[float, ...]
    metric: str = "accuracy"

    @property
    def score(self) -> float:
        """Mean over folds."""
        return float(np.mean(self.scores))

    @property
    def sd(self) -> float | None:
        """Standard deviation over folds; None for a single one."""
        return float(np.std(self.scores, ddof=1)) if len(self.scores) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        each = "accuracies" if self.metric == "accuracy" else "scores"
        scores = {self.metric: self.score, "sd": self.sd, each: list(self.scores)}
        return {"settings": spelled(self.settings), **scores}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Alternative:
        """Rebuild it from `to_dict`."""
        (metric,) = set(METRIC_CHOICES) & fields.keys()
        return cls(fields["settings"], tuple(fields["accuracies" if metric == "accuracy" else "scores"]), metric)


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


#: Fields that are lists, and left out of the JSON form where they are empty.
_LISTS = ("tables", "joins", "tried", "skipped")


@dataclass(frozen=True, eq=False, kw_only=True)
class FitReport(Mapping[str, Any]):
    """What a fit reported. It also reads as its JSON form: ``report["val"]["accuracy"]``, ``{**report}``.

    Attributes
    ----------
    head : str
        Name of the head; of a fine-tuned network its layers.
    table : str or None
        Path of the table that was fitted on; None in memory, and for several.
    tables : tuple of str
        Paths of those that stood side by side, see `featx.join`.
    joins : tuple of dict
        What was tried of several tables: ``tables`` (their layers), ``balance`` ("columns" or "tables": what weighed
        alike; None for one table), ``loss`` on validation, and whether it was ``chosen``.
    tried : tuple of dict
        What ``--head auto`` tried, or what an ensemble is made of: ``head``, ``scale``, ``settings`` that it chose,
        ``tables`` and ``balance`` as in `joins`, ``loss`` and ``score`` on validation, ``seconds`` (not kept in files),
        and the ``weight`` with which it counts; 0 for one that was not taken.
    skipped : tuple of dict
        What it did not try: ``head``, ``scale``, ``tables``, ``balance``, and ``why``.
    task : {"classify", "multilabel", "regress"}
        What the head tells of a row.
    train, val, test : Accuracy, TargetScore or None
        On each part, the latter of labels and numbers; None for one without rows, and for a test split that was not
        asked for.
    seconds : float or None
        The fit took. A model file does not keep it, so that equal fits give equal bytes; None after loading.
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
    search : tuple of Alternative or None
        The alternatives of a search.
    cv : Alternative or None
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
    tables: tuple[str, ...] = ()
    joins: tuple[dict[str, Any], ...] = ()
    tried: tuple[dict[str, Any], ...] = ()
    skipped: tuple[dict[str, Any], ...] = ()
    task: str = "classify"
    train: Accuracy | TargetScore | None = None
    val: Accuracy | TargetScore | None = None
    test: Accuracy | TargetScore | None = None
    seconds: float | None = None
    n_parameters: int = 0
    chosen: Mapping[str, Any] = field(default_factory=dict)
    scale: str = "none"
    temperature: float = 1.0
    history: Mapping[str, list[float]] = field(default_factory=dict)
    views: int = 1
    augment: str | None = None
    refit: bool = False
    search: tuple[Alternative, ...] | None = None
    cv: Alternative | None = None
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
        left_out = (*left_out, *(name for name in ("protocol", *_LISTS) if not getattr(self, name)))
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in left_out}
        for name, value in fields.items():
            if isinstance(value, Accuracy | TargetScore | Alternative):
                fields[name] = value.to_dict()
        if "cv" in fields and self.cv is not None:
            fields["cv"] = {"k": len(self.cv.scores), **fields["cv"]}
        if "search" in fields and self.search is not None:
            fields["search"] = [trial.to_dict() for trial in self.search]
        if "warnings" in fields:
            fields["warnings"] = list(self.warnings)
        for name in set(_LISTS) & fields.keys():
            fields[name] = list(fields[name])
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> FitReport:
        """Rebuild it from `to_dict`."""
        found = dict(fields)
        for part in ("train", "val", "test"):
            if found.get(part) is not None:
                found[part] = (Accuracy if "accuracy" in found[part] else TargetScore).from_dict(found[part])
        if found.get("search") is not None:
            found["search"] = tuple(map(Alternative.from_dict, found["search"]))
        if found.get("cv") is not None:
            found["cv"] = Alternative.from_dict(found["cv"])
        return cls(**found | {name: tuple(found.get(name, ())) for name in ("warnings", *_LISTS)})

    def __getitem__(self, name: str) -> Any:
        return self.to_dict()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_dict())

    def __len__(self) -> int:
        return len(self.to_dict())
