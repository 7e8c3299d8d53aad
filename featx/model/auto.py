"""``--head auto``: heads and joins tried cheapest first, and those that help put together, as validation decides."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import FeatxError, OptionError
from featx.features import join
from featx.heads.names import head_class_of, make_head
from featx.model.ensembles import vote_of
from featx.model.fitting import known_rows
from featx.model.joins import BALANCES, table_name
from featx.model.report import Accuracy
from featx.model.rows import given_groups
from featx.model.scores import LEAST, Calibration
from featx.model.selection import Held
from featx.model.trials import TRIES, Kind, seconds_of
from featx.settings import parse_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from featx.features import Features
    from featx.model.joins import FitOne
    from featx.model.model import Model
    from featx.model.outputs import TargetScore
    from featx.model.settings import Fit

    Floats = NDArray[np.float64]

#: What ``--budget`` is where nobody says it.
BUDGET = 30.0
#: Joins that bring nothing, so often in a row, end the search for a larger one.
_PATIENCE = 2
#: A head whose search of joins would take more than this share of the time that is left is tried on those best so far.
_SHARE = 0.3
#: How many those are.
_SPACES = 2


@dataclass(frozen=True)
class Trial:
    """A head on one table or several side by side.

    Attributes
    ----------
    kind : Kind
    places : tuple of int
        Which of the tables.
    balance : str
        What weighs alike, see `featx.model.joins`.
    """

    kind: Kind
    places: tuple[int, ...]
    balance: str


@dataclass(frozen=True, eq=False)
class Tried:
    """What came of a trial: the model, and what it says of the validation rows, (n, k)."""

    trial: Trial
    model: Model
    outputs: Floats
    loss: float
    seconds: float


class AutoFit:
    """One run of trials on a table.

    Parameters
    ----------
    table : Features
        One or several side by side.
    how : Fit
        As asked; its `settings` are those of `featx.AutoHead`.
    fit_one : callable
        Fits one head.
    """

    def __init__(self, table: Features, how: Fit, fit_one: FitOne) -> None:
        self.table, self.how, self.fit_one = table, how, fit_one
        self.rows, self.targets = known_rows(table, how)
        if not len(self.rows.val):
            raise OptionError("--head auto chooses on validation rows, and there are none. Give --val 0.1")
        self.held = Held.of(table, self.rows.val, self.targets, balanced=how.metric == "balanced_accuracy")
        self.started, self.cpu_started, self.planned = time.perf_counter(), time.process_time(), 0.0
        asked = how.head if not isinstance(how.head, str) else make_head("auto", task=table.task, **how.settings or {})
        self.class_weight = getattr(asked, "class_weight", None)
        self.kinds = self._kinds(asked.heads)
        self.budget = parse_seconds(asked.budget if how.budget is None else how.budget)
        self.tried: list[Tried] = []
        self.skipped: list[dict[str, Any]] = []

    def run(self) -> Model:
        """Try, choose, and return what came of it."""
        everything = tuple(range(len(self.table.tables)))
        for kind in sorted(self.kinds, key=lambda kind: self._cost(Trial(kind, everything, BALANCES[0]))):
            self._search(kind, everything)
        if not self.tried:
            raise OptionError(f"--head auto has tried nothing that could be fitted: {self.skipped[0]['why']}")
        weights = self.held.weights([one.outputs for one in self.tried], self.how.seed)
        chosen = [(one, float(weight)) for one, weight in zip(self.tried, weights, strict=True) if weight > 0]
        model = self._alone(chosen[0][0]) if len(chosen) == 1 else self._together(chosen)
        told = tuple(self._told(weights))
        seconds = round(time.perf_counter() - self.started, 3)
        return model.with_report(tried=told, skipped=tuple(self.skipped), seconds=seconds)

    def _search(self, kind: Kind, everything: tuple[int, ...]) -> None:
        """Try a head: where it is cheap on each table and ever larger joins of the best, else on the best so far."""

        def tried(places: Iterable[int], balance: str) -> float:
            one = self._try(Trial(kind, tuple(sorted(places)), balance))
            return np.inf if one is None else one.loss

        if len(everything) == 1:
            tried(everything, BALANCES[0])
            return
        alone = [Trial(kind, (place,), BALANCES[0]) for place in everything]
        larger = [Trial(kind, everything, BALANCES[0])] * (2 * len(everything))
        if self.tried and sum(map(self._cost, [*alone, *larger])) > _SHARE * (self.budget - self.planned):
            for places, balance in self._best_spaces():
                tried(places, balance)
            return
        losses = [tried(trial.places, trial.balance) for trial in alone]
        ranked, best, misses = np.argsort(losses, kind="stable").tolist(), min(losses), 0
        for size in range(2, len(everything) + 1):
            nearest = min(tried(ranked[:size], balance) for balance in BALANCES)
            misses, best = (0, nearest) if nearest < best else (misses + 1, best)
            if misses == _PATIENCE:
                return

    def _best_spaces(self) -> list[tuple[tuple[int, ...], str]]:
        """Return the tables and joins on which any head came nearest so far, the best first, and the best one table."""
        ranked = sorted(self.tried, key=lambda one: one.loss)
        spaces = list(dict.fromkeys((one.trial.places, one.trial.balance) for one in ranked))
        return list(dict.fromkeys([*spaces[:_SPACES], next(space for space in spaces if len(space[0]) == 1)]))

    def _kinds(self, heads: Any) -> list[Kind]:
        """Return what is tried: of the heads named, or all, as they are known to do well or else as they are."""
        task, scale = self.table.task, self.how.scale
        known = [kind for kind in TRIES[task] if heads is None]
        for name in names_of(heads, task):
            known += [kind for kind in TRIES[task] if kind.head == name] or [Kind(name)]
        found = []
        for kind in known:
            settings = dict(kind.settings)
            if self.class_weight is not None and "class_weight" in make_head(kind.head, task=task).get_params():
                settings["class_weight"] = self.class_weight
            found.append(Kind(kind.head, settings, kind.scale if scale == "auto" else scale))
        return [kind for place, kind in enumerate(found) if kind not in found[:place]]

    def _cost(self, trial: Trial) -> float:
        """Return about how many seconds a trial takes, made of sizes alone: a plan is the same each time."""
        d = sum(self.table.tables[place].shape[1] for place in trial.places)
        k = len(self.table.classes) if self.targets is None else len(self.targets.names)
        return seconds_of(trial.kind.head, len(self.rows.train), d, k)

    def _try(self, trial: Trial) -> Tried | None:
        """Fit, unless the budget has no room for it any more."""
        cost, spent, started = self._cost(trial), self._spent(), time.perf_counter()
        if self.tried and self.planned + cost > self.budget:
            self._skip(trial, f"no time: about {cost:.1f} s, {self.planned:.1f} of {self.budget:g} s are planned")
            return None
        if self.tried and spent > self.budget:
            self._skip(trial, f"no time: {spent:.1f} of {self.budget:g} s are gone, more than was planned")
            return None
        self.planned += cost
        try:
            model = self.fit_one(self._part(trial.places), self._how(trial, refit=False), trial.balance)
        except (FeatxError, ValueError) as error:
            self._skip(trial, str(error))
            return None
        outputs = self._outputs(model, self._part(trial.places).select(self.rows.val))
        seconds = time.perf_counter() - started
        self.tried.append(Tried(trial, model, outputs, self.held.loss(outputs), seconds))
        return self.tried[-1]

    def _spent(self) -> float:
        """Return the seconds that are gone; where others have the cores, those in which this process had one."""
        return min(time.perf_counter() - self.started, time.process_time() - self.cpu_started)

    def _skip(self, trial: Trial, why: str) -> None:
        self.skipped.append(self._named(trial) | {"why": why})

    def _named(self, trial: Trial) -> dict[str, Any]:
        parts = self.table.tables
        return {
            "head": trial.kind.head,
            "scale": trial.kind.scale,
            "tables": [table_name(parts[place], parts) for place in trial.places] if len(parts) > 1 else [],
            "balance": trial.balance if len(trial.places) > 1 else None,
        }

    def _part(self, places: Iterable[int]) -> Features:
        return join([self.table.tables[place] for place in places])

    def _how(self, trial: Trial, **changes: Any) -> Fit:
        changes = {"test": False, **changes}
        kind = trial.kind
        changes |= {"head": kind.head, "settings": kind.settings, "scale": kind.scale}
        return dataclasses.replace(self.how, budget=None, **changes)

    def _outputs(self, model: Model, rows: Features) -> Floats:
        """Return what a model says of rows, with a column for each class of the table."""
        found: Any = model.classify(rows)
        if self.targets is not None:
            return np.asarray(found.array)
        outputs = np.zeros((len(rows), len(self.table.classes)))
        place = {name: number for number, name in enumerate(self.table.classes)}
        outputs[:, [place[name] for name in model.classes]] = found.probabilities
        return outputs

    def _alone(self, one: Tried) -> Model:
        """Return the one model that needs no others."""
        if not (self.how.refit or self.how.test):
            return one.model
        how = self._how(one.trial, refit=self.how.refit, test=self.how.test)
        return self.fit_one(self._part(one.trial.places), how, one.trial.balance)

    def _together(self, chosen: list[tuple[Tried, float]]) -> Model:
        """Return the vote of several models, calibrated and scored on validation."""
        models = [one.model for one, _ in chosen]
        weights = np.array([weight for _, weight in chosen])
        outputs = np.tensordot(weights, np.stack([one.outputs for one, _ in chosen]), 1)
        first = vote_of(models, weights, "auto")
        first = self._calibrated(first, outputs)
        last = first
        if self.how.refit:
            models = [
                self.fit_one(self._part(one.trial.places), self._how(one.trial, refit=True), one.trial.balance)
                for one, _ in chosen
            ]
            last = vote_of(models, weights, "auto")
            last = dataclasses.replace(last, calibration=first.calibration, outputs=first.outputs)
        train, val = (self._score(first, part) for part in (self.rows.train, self.rows.val))
        test = self._score(last, self.rows.test) if self.how.test else None
        return last.with_report(
            train=train, val=val, test=test, refit=self.how.refit, temperature=last.calibration.temperature
        )

    def _calibrated(self, model: Model, outputs: Floats) -> Model:
        if model.outputs is not None:
            truth = np.asarray(self.held.truth, np.float64)
            return dataclasses.replace(
                model, outputs=type(model.outputs).learn(model.outputs.task, model.outputs.names, truth, outputs)
            )
        scores = np.log(np.clip(outputs, LEAST, None))
        scores -= scores.max(axis=1, keepdims=True)
        place = [self.table.classes.index(name) for name in model.classes]
        codes = np.searchsorted(place, self.held.truth)
        return dataclasses.replace(model, calibration=Calibration.fit(scores[:, place], codes, votes=True))

    def _score(self, model: Model, positions: NDArray[np.intp]) -> Accuracy | TargetScore | None:
        if not len(positions):
            return None
        outputs = self._outputs(model, self.table.select(positions))
        groups = given_groups(self.table, positions)
        if model.outputs is not None and self.targets is not None:
            return model.outputs.score(self.targets.array[positions].astype(np.float64), outputs, groups)
        return Accuracy.of(outputs.argmax(axis=1) == self.table.y[positions], groups)

    def _told(self, weights: Floats) -> Iterator[dict[str, Any]]:
        for one, weight in zip(self.tried, weights.tolist(), strict=True):
            val = one.model.report.val
            yield self._named(one.trial) | {
                "settings": dict(one.model.report.chosen),
                "loss": one.loss,
                "score": None if val is None or np.isnan(val.value) else val.value,
                "seconds": round(one.seconds, 3),
                "weight": weight,
            }


def names_of(heads: Any, task: str) -> tuple[str, ...]:
    """Return the heads that are named, in a text with commas between or a sequence; none where nobody names any.

    Raises
    ------
    OptionError
        For one that cannot be tried.
    """
    asked = tuple(word.strip() for word in heads.split(",")) if isinstance(heads, str) else tuple(heads or ())
    for name in asked:
        if name == "auto":
            raise OptionError("heads of --head auto are others than itself. Leave out auto.")
        head_class_of(name, task)
    return asked
