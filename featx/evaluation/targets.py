"""`TargetEvaluation`: what predictions of several labels, or of numbers, are worth where the truth is known."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import DataError
from featx.evaluation.rows import not_trained_on, notes_on_rows, wanted_rows
from featx.features import in_task
from featx.metrics import label_scores, mean_absolute_error, r2_score, root_mean_squared_error
from featx.model.items import combining_of
from featx.model.outputs import COVERAGE, TargetScore
from featx.model.rows import given_groups
from featx.model.target_predictions import TargetPredictions
from featx.targets import AS_NUMBERS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featx.features import Features
    from featx.metrics import LabelScores
    from featx.model import Model
    from featx.model.outputs import Outputs

    Floats = NDArray[np.float64]

#: More labels than this are shown by their worst only.
_MAX_LABELS = 30


@dataclass(frozen=True)
class NumberScores:
    """How near predictions of one number come.

    Attributes
    ----------
    name : str
        Of the number.
    r2 : float
        Share of its variance that is explained; NaN where it does not vary.
    mae, rmse : float
        Mean distance from the truth, and the root of the mean squared one, in its own unit.
    margin : float or None
        Within which the truth of nine in ten new rows was to lie, by validation.
    coverage : float or None
        Share of these rows for which it did.
    """

    name: str
    r2: float
    mae: float
    rmse: float
    margin: float | None
    coverage: float | None


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class TargetEvaluation:
    """Metrics of n rows with t labels or numbers.

    Attributes
    ----------
    outputs : Outputs
        What the columns are, with thresholds or margins.
    truth, found : ndarray of float64, shape (n, t)
        What is so, and what the model says: probabilities of labels, or numbers.
    groups : ndarray of int, shape (n,), or None
        Rows that belong together, which the interval takes into account.
    trained_on, n_chosen_on, n_unreadable
        As of `featx.Evaluation`.
    """

    outputs: Outputs
    truth: Floats
    found: Floats
    groups: NDArray[np.intp] | None = None
    trained_on: tuple[str, ...] = ()
    n_chosen_on: int = 0
    n_unreadable: int = 0

    @cached_property
    def score(self) -> TargetScore:
        """The metrics of all together, the first with its interval."""
        return self.outputs.score(self.truth, self.found, self.groups)

    @cached_property
    def per_label(self) -> tuple[LabelScores, ...]:
        """Scores of each label; none of numbers."""
        if self.outputs.task != "multilabel":
            return ()
        return label_scores(self.truth, self.found, self.outputs.thresholds, self.outputs.names)

    @cached_property
    def per_number(self) -> tuple[NumberScores, ...]:
        """Scores of each number; none of labels."""
        if self.outputs.task != "regress":
            return ()
        columns = zip(self.outputs.names, self.truth.T, self.found.T, self.outputs.margins, strict=True)
        return tuple(
            NumberScores(
                name,
                r2_score(y, p),
                mean_absolute_error(y, p),
                root_mean_squared_error(y, p),
                margin,
                None if margin is None else float((np.abs(y - p) <= margin).mean()),
            )
            for name, y, p, margin in columns
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the rows, ready for JSON: what is undefined is null."""
        each = {"per_label": self.per_label} if self.per_label else {"per_target": self.per_number}
        return {
            "task": self.outputs.task,
            **self.score.to_dict(),
            **{name: [_without_nan(asdict(one)) for one in scores] for name, scores in each.items()},
            "trained_on": {"n": len(self.trained_on), "ids": list(self.trained_on)},
            "n_chosen_on": self.n_chosen_on,
            "n_unreadable": self.n_unreadable,
        }

    def __repr__(self) -> str:
        return f"<TargetEvaluation: {self.score}>"

    def __str__(self) -> str:
        lines = [str(self.score), *notes_on_rows(self.trained_on, self.n_chosen_on, self.n_unreadable)]
        return "\n".join(
            [*lines, "", *(_label_lines(self.per_label) if self.per_label else _number_lines(self.per_number))]
        )


def _label_lines(scores: tuple[LabelScores, ...]) -> list[str]:
    shown, title = list(scores), "label"
    if len(shown) > _MAX_LABELS:
        shown = sorted((s for s in scores if s.support), key=lambda s: s.average_precision)[:_MAX_LABELS]
        title = f"worst {len(shown)} of {len(scores):,}"
    room = max(len(title), *(min(24, len(s.label)) for s in shown))
    lines = [f"{title:<{room}}  precision  recall      F1      AP  threshold  support"]
    for s in shown:
        shares = " ".join(f"{'–' if math.isnan(x) else f'{x:.3f}':>7}" for x in (s.recall, s.f1, s.average_precision))
        precision = "–" if math.isnan(s.precision) else f"{s.precision:.3f}"
        lines.append(f"{s.label[:room]:<{room}}  {precision:>9} {shares}  {s.threshold:>9.3f}  {s.support:>7,}")
    return lines


def _number_lines(scores: tuple[NumberScores, ...]) -> list[str]:
    room = max(6, *(min(24, len(s.name)) for s in scores))
    share = f"{100 * COVERAGE:.0f} %"
    lines = [f"{'target':<{room}}      R²  mean error     RMSE  {share + ' within':>12}  (these rows)"]
    for s in scores:
        within = "–" if s.margin is None else f"± {s.margin:.3g}"
        covered = "" if s.coverage is None else f"({100 * s.coverage:.1f} %)"
        lines.append(f"{s.name[:room]:<{room}}  {s.r2:>6.3f}  {s.mae:>10.3g} {s.rmse:>8.3g}  {within:>12}  {covered}")
    return lines


def _without_nan(fields: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in fields.items()}


@dataclass(frozen=True, eq=False)
class HeldOutTargets:
    """The rows of a table on which a model of labels or numbers may be evaluated.

    Attributes
    ----------
    positions : ndarray of int, shape (n,)
        Where they are in the table, ascending.
    rows : Features
        The rows themselves.
    truth : ndarray of float64, shape (n, t)
        In the order of the model's outputs.
    trained_on : tuple of str
    n_chosen_on : int
        As of `featx.evaluation.HeldOut`.
    """

    positions: NDArray[np.intp]
    rows: Features
    truth: Floats
    trained_on: tuple[str, ...]
    n_chosen_on: int

    def evaluate(self, model: Model) -> TargetEvaluation:
        """Evaluate `model`, the one that the rows were held out from."""
        assert model.outputs is not None
        predicted = model.classify(self.rows)
        assert isinstance(predicted, TargetPredictions)
        return TargetEvaluation(
            outputs=model.outputs,
            truth=self.truth,
            found=predicted.array,
            groups=given_groups(self.rows, np.arange(len(self.rows))),
            trained_on=self.trained_on,
            n_chosen_on=self.n_chosen_on,
            n_unreadable=len(self.rows.errors),
        )

    def records(self, found: TargetEvaluation) -> tuple[list[str], list[list[Any]]]:
        """Return truth and prediction of each row, the farthest apart first, as a header and rows for a spreadsheet."""
        names, distance = found.outputs.names, np.abs(found.truth - found.found).sum(axis=1)
        header = [
            "file" if combining_of(self.rows) is None else "item",
            *(f"{name}{what}" for name in names for what in ("", "_predicted")),
        ]
        pairs = np.stack([found.truth, found.found], axis=2).reshape(len(found.truth), -1).tolist()
        order = np.argsort(-distance, kind="stable").tolist()
        return header, [[str(self.rows.ids[i]), *pairs[i]] for i in order]


def held_out_targets(model: Model, features: Features, split: str | None = None) -> HeldOutTargets:
    """Return the rows of a table, or of one split of it, on which a model of labels or numbers was not trained.

    Parameters
    ----------
    model, features, split
        As in `featx.evaluate`. Targets are matched by name.

    Raises
    ------
    DataError
        If the table has other targets, no row has all of them, or all rows were trained on.
    """
    assert model.outputs is not None
    names, task = model.outputs.names, model.outputs.task
    as_numbers = task == "regress" and features.task == "classify" and names == (AS_NUMBERS,)
    features = model.rows_for(in_task(features, task) if as_numbers else features)
    targets = features.given_targets
    if targets is None or targets.task != task or not set(names) <= set(targets.names):
        there = "classes" if targets is None else ", ".join(targets.names[:8])
        raise DataError(
            f"The model predicts {', '.join(names[:8])}, and the table has {there}. "
            "Extract the images with these labels: featx extract DATA --label-column a,b,c"
        )
    targets = targets.columns(np.array([targets.names.index(name) for name in names]))
    wanted, split = wanted_rows(features, targets.known, split)
    kept, trained_on, n_chosen_on = not_trained_on(model, features, np.flatnonzero(wanted), split)
    return HeldOutTargets(kept, features.select(kept), targets.array[kept].astype(np.float64), trained_on, n_chosen_on)
