"""`Evaluation`: everything that is worth saying about predictions whose truth is known."""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import DataError
from featx.evaluation.levels import Level, LevelScores
from featx.evaluation.metrics import (
    ClassScores,
    Confusion,
    Floats,
    Indices,
    ReliabilityBin,
    calibration_error,
    class_scores,
    most_confused,
    reliability,
    top_k_accuracy,
)
from featx.evaluation.rows import notes_on_rows
from featx.metrics import auroc, average_precision
from featx.model import Accuracy

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

#: A confusion matrix of more classes than this is left out of the JSON; the most confused pairs are there.
_MAX_MATRIX = 1000
#: More classes than this are shown by their worst only.
_MAX_CLASSES = 30
_NUMBERS = "precision   recall       F1   support"
#: Columns of the bar that shows F1, where there is room for it.
_BAR = 20


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Evaluation:
    """Metrics of n rows over k classes.

    Attributes
    ----------
    classes : tuple of str, length k
        Names of the classes.
    y_true, y_pred : ndarray of int64, shape (n,)
        True and predicted class of each row, as indices into `classes`.
    probabilities : ndarray of float64, shape (n, k), or None
        None if only labels were predicted; then whatever needs probabilities is None as well.
    trained_on : tuple of str
        Ids of rows left out of everything else, because the model was trained on their very content.
    n_chosen_on : int
        Rows among the n on which the model's settings were chosen: their part of the numbers is a little too good.
    n_unreadable : int
        Images of the same selection that are no rows at all.
    unknown : dict of str to int
        Rows left out because the model does not know their class: how many, by class.
    groups : ndarray of int, shape (n,), or None
        Rows that belong together, which the interval of the accuracy takes into account.
    levels : tuple of Level
        What stands above the classes, see `featx.evaluation.read_levels`.
    """

    classes: tuple[str, ...]
    y_true: Indices
    y_pred: Indices
    probabilities: Floats | None = None
    trained_on: tuple[str, ...] = ()
    n_chosen_on: int = 0
    n_unreadable: int = 0
    unknown: dict[str, int] = field(default_factory=dict)
    groups: Indices | None = None
    levels: tuple[Level, ...] = ()

    @cached_property
    def accuracy(self) -> Accuracy:
        """Share of right predictions, with its interval."""
        return Accuracy.of(self.y_true == self.y_pred, self.groups)

    @cached_property
    def per_class(self) -> tuple[ClassScores, ...]:
        """Scores of each class, in the order of `classes`."""
        return class_scores(self.y_true, self.y_pred, self.classes)

    @cached_property
    def per_level(self) -> tuple[LevelScores, ...]:
        """Accuracy on each of `levels`: a class is right there if its ancestor is."""
        return tuple(
            LevelScores(
                level.name,
                level.n_ancestors,
                Accuracy.of(level.ancestors[self.y_true] == level.ancestors[self.y_pred], self.groups),
            )
            for level in self.levels
        )

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall over the classes that occur: each class counts the same."""
        return float(np.nanmean([scores.recall for scores in self.per_class]))

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that occur or are predicted."""
        return float(np.nanmean([scores.f1 for scores in self.per_class]))

    @property
    def auroc(self) -> float | None:
        """Area under the ROC curve, mean over classes: see `featx.metrics.auroc`; None without probabilities."""
        return None if self.probabilities is None else _defined(auroc(self.y_true, self.probabilities))

    @property
    def average_precision(self) -> float | None:
        """Average precision, mean over classes: see `featx.metrics.average_precision`; None without probabilities."""
        return None if self.probabilities is None else average_precision(self.y_true, self.probabilities)

    @property
    def baseline(self) -> tuple[str, float]:
        """The most frequent class, and the accuracy of always answering that."""
        most = max(self.per_class, key=lambda scores: scores.support)
        return most.label, most.support / len(self.y_true)

    @property
    def top5(self) -> float | None:
        """Share of rows whose true class is among the five most probable; None for five classes or fewer."""
        if self.probabilities is None or len(self.classes) <= 5:
            return None
        return top_k_accuracy(self.y_true, self.probabilities, 5)

    @property
    def log_loss(self) -> float | None:
        """Mean of -log p(true class), natural logarithm; a probability of zero counts as 2e-16."""
        if self.probabilities is None:
            return None
        # By hand: scikit-learn's refuses a single class.
        right = self.probabilities[np.arange(len(self.y_true)), self.y_true]
        return float(-np.log(np.clip(right, np.finfo(np.float64).eps, 1)).mean())

    @cached_property
    def reliability(self) -> tuple[ReliabilityBin, ...]:
        """Bins of the reliability diagram; none without probabilities."""
        if self.probabilities is None:
            return ()
        return reliability(self.probabilities.max(axis=1), self.y_true == self.y_pred)

    @property
    def calibration_error(self) -> float | None:
        """Expected calibration error, 0-1."""
        return calibration_error(self.reliability) if self.reliability else None

    @cached_property
    def confusion(self) -> Indices:
        """Rows by true (first axis) and predicted class, int64 of shape (k, k)."""
        k = len(self.classes)  # by hand: scikit-learn's warns of a single class
        return np.bincount(self.y_true * k + self.y_pred, minlength=k * k).reshape(k, k)

    def most_confused(self, limit: int = 10) -> tuple[Confusion, ...]:
        """Return the up to `limit` most frequent mistakes."""
        return most_confused(self.y_true, self.y_pred, self.classes, limit)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the rows, ready for JSON: what is undefined is null."""
        label, share = self.baseline
        small = len(self.classes) <= _MAX_MATRIX
        return {
            **self.accuracy.to_dict(),
            "balanced_accuracy": self.balanced_accuracy,
            "macro_f1": self.macro_f1,
            "auroc": self.auroc,
            "average_precision": self.average_precision,
            "top5_accuracy": self.top5,
            "log_loss": self.log_loss,
            "calibration_error": self.calibration_error,
            "reliability": [asdict(place) for place in self.reliability],
            "baseline": {"label": label, "accuracy": share},
            "classes": list(self.classes),
            "per_class": [_without_nan(asdict(scores)) for scores in self.per_class],
            "confusion": self.confusion.tolist() if small else None,
            "levels": [scores.to_dict() for scores in self.per_level],
            "most_confused": [asdict(confusion) for confusion in self.most_confused()],
            "trained_on": {"n": len(self.trained_on), "ids": list(self.trained_on)},
            "n_chosen_on": self.n_chosen_on,
            "n_unreadable": self.n_unreadable,
            "unknown": dict(self.unknown),
        }

    def __repr__(self) -> str:
        return f"<Evaluation: {self.accuracy}, {len(self.classes)} classes>"

    def __str__(self) -> str:
        return as_text(self)


def _without_nan(fields: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in fields.items()}


def evaluate_predictions(
    y_true: ArrayLike, predicted: ArrayLike, classes: tuple[str, ...], **counts: Any
) -> Evaluation:
    """Evaluate predictions against the truth.

    Parameters
    ----------
    y_true : array_like of int, shape (n,)
        True classes as indices into `classes`.
    predicted : array_like, shape (n, k) or (n,)
        Probabilities (float), or only the predicted classes (int).
    classes : tuple of str, length k
        Names of the classes.
    **counts
        `Evaluation.trained_on`, `Evaluation.n_chosen_on`, `Evaluation.n_unreadable`, `Evaluation.unknown`,
        `Evaluation.groups`, `Evaluation.levels`.

    Raises
    ------
    DataError
        If there is no row, a label without a class, or a row without a finite probability.

    Examples
    --------
    >>> result = evaluate_predictions([0, 1, 1, 0], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]], ("cat", "dog"))
    >>> result.accuracy.value, result.per_class[1].recall
    (0.75, 0.5)
    """
    truth, given = np.asarray(y_true, dtype=np.int64), np.asarray(predicted)
    if truth.ndim != 1 or len(given) != len(truth) or given.ndim not in (1, 2):
        raise ValueError(f"need (n,) labels and (n, k) or (n,) predictions, got {truth.shape} and {given.shape}")
    if not len(truth):
        raise DataError("There is no labelled row to evaluate. Choose other rows: --split train|val|test")
    probabilities = None
    if given.ndim == 2:
        probabilities = given.astype(np.float64)
        if probabilities.shape[1] != len(classes) or not np.isfinite(probabilities).all():
            raise DataError(f"Each row needs {len(classes)} finite probabilities, got an array of {given.shape}.")
        given = probabilities.argmax(axis=1)
    given = given.astype(np.int64)
    if min(truth.min(), given.min()) < 0 or max(truth.max(), given.max()) >= len(classes):
        raise DataError(f"Labels must be indices into {len(classes)} classes.")
    return Evaluation(classes=classes, y_true=truth, y_pred=given, probabilities=probabilities, **counts)


def as_text(evaluation: Evaluation, width: int | None = None) -> str:
    """Return headline, scores of each class and most confused pairs, at most `width` columns wide.

    Parameters
    ----------
    evaluation : Evaluation
        What to show.
    width : int, optional
        Columns; the terminal's by default. Class names are shortened to fit.
    """
    width = width or shutil.get_terminal_size().columns
    parts = [_headline(evaluation), _levels(evaluation), _classes(evaluation, width), _confused(evaluation)]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _headline(evaluation: Evaluation) -> list[str]:
    label, share = evaluation.baseline
    rows = [
        ("accuracy", str(evaluation.accuracy)),
        ("balanced accuracy", _percent(evaluation.balanced_accuracy)),
        ("macro-F1", f"{evaluation.macro_f1:.3f}"),
        ("AUROC", _number(evaluation.auroc)),
        ("average precision", _number(evaluation.average_precision)),
        ("top-5 accuracy", _percent(evaluation.top5)),
        ("log-loss", "" if evaluation.log_loss is None else f"{evaluation.log_loss:.4f}"),
        ("calibration error", _percent(evaluation.calibration_error)),
        ("baseline", f"{_percent(share)} (always {label!r})"),
    ]
    return [f"{name:<18} {value}" for name, value in rows if value] + notes_on_rows(
        evaluation.trained_on, evaluation.n_chosen_on, evaluation.n_unreadable, evaluation.unknown
    )


def _levels(evaluation: Evaluation) -> list[str]:
    if not evaluation.levels:
        return []
    room = max(len("level"), *(len(scores.level) for scores in evaluation.per_level))
    lines = [f"{s.level:<{room}}  {s.n_ancestors:>5,}  {s.accuracy}" for s in evaluation.per_level]
    return [f"{'level':<{room}}  names  accuracy", *lines]


def _classes(evaluation: Evaluation, width: int) -> list[str]:
    scores = list(evaluation.per_class)
    title = "class"
    if len(scores) > _MAX_CLASSES:
        scores = sorted((s for s in scores if s.support), key=lambda s: s.f1)[:_MAX_CLASSES]
        title = f"worst {len(scores)} of {len(evaluation.classes):,}"
    room = max(8, width - len(_NUMBERS) - 2)
    room = min(room, max(len(title), *(len(s.label) for s in scores)))
    drawn = room + len(_NUMBERS) + _BAR + 4 <= width
    lines = [f"{_fit(s.label, room)}  {_numbers(s)}  {_bar(s.f1) if drawn else ''}".rstrip() for s in scores]
    return [f"{title:<{room}}  {_NUMBERS}", *lines]


def _numbers(scores: ClassScores) -> str:
    shares = [f"{_percent(x) or '–':>8}" for x in (scores.precision, scores.recall, scores.f1)]
    return " ".join([f"{shares[0]:>9}", *shares[1:], f"{scores.support:>9,}"])


def _bar(share: float) -> str:
    """Draw a share of one as a bar, to an eighth of a column.

    Examples
    --------
    >>> _bar(0.5), _bar(0.025)
    ('██████████', '▌')
    """
    eighths = 0 if math.isnan(share) else round(8 * _BAR * share)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _confused(evaluation: Evaluation) -> list[str]:
    pairs = evaluation.most_confused(5)
    return ["most confused", *(f"{p.n:>7,} × {p.true} taken for {p.predicted}" for p in pairs)] if pairs else []


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def _percent(share: float | None) -> str:
    return "" if share is None or math.isnan(share) else f"{100 * share:.1f} %"


def _fit(text: str, room: int) -> str:
    return f"{text:<{room}}" if len(text) <= room else text[: room - 1] + "…"
