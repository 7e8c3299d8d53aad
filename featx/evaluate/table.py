"""An evaluation as text for a terminal."""

from __future__ import annotations

import math
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featx.evaluate.evaluation import Evaluation
    from featx.evaluate.metrics import ClassScores

#: More classes than this are shown by their worst only.
_MAX_CLASSES = 30
_NUMBERS = "precision   recall       F1   support"
#: Columns of the bar that shows F1, where there is room for it.
_BAR = 20


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
    parts = [_headline(evaluation), _classes(evaluation, width), _confused(evaluation)]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _headline(evaluation: Evaluation) -> list[str]:
    label, share = evaluation.baseline
    rows = [
        ("accuracy", str(evaluation.accuracy)),
        ("balanced accuracy", _percent(evaluation.balanced_accuracy)),
        ("top-5 accuracy", _percent(evaluation.top5)),
        ("log-loss", "" if evaluation.log_loss is None else f"{evaluation.log_loss:.4f} nats"),
        ("calibration error", _percent(evaluation.calibration_error)),
        ("baseline", f"{_percent(share)} (always {label!r})"),
    ]
    return [f"{name:<18} {value}" for name, value in rows if value] + list(_notes(evaluation))


def _notes(evaluation: Evaluation) -> list[str]:
    notes = []
    if evaluation.trained_on:
        named = ", ".join(evaluation.trained_on[:3]) + (", …" if len(evaluation.trained_on) > 3 else "")
        notes.append(f"Left out: {len(evaluation.trained_on):,} rows that the model was trained on ({named}).")
    if evaluation.n_chosen_on:
        notes.append(f"Flattering: {evaluation.n_chosen_on:,} of the rows chose the model's settings.")
    if evaluation.n_unreadable:
        notes.append(f"Not counted: {evaluation.n_unreadable:,} images that could not be read.")
    return notes


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


def _percent(share: float | None) -> str:
    return "" if share is None or math.isnan(share) else f"{100 * share:.1f} %"


def _fit(text: str, room: int) -> str:
    return f"{text:<{room}}" if len(text) <= room else text[: room - 1] + "…"
