"""Which of several tables are worth standing side by side, and how much each weighs: validation decides."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from featx.features import join
from featx.store.catalog import DigestIndex

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from featx.features import Features
    from featx.model.model import Model
    from featx.model.settings import Fit

#: What weighs alike in a join: every column, so that a wide table counts more than a narrow one, or every table.
BALANCES = ("columns", "tables")
#: A join that grows without becoming better so often in a row grows no further.
_PATIENCE = 2
#: Probabilities below count as this.
_LEAST = 1e-12


class FitOne(Protocol):
    """What fits a head on one table, or on several side by side of which `balance` weighs alike."""

    def __call__(self, table: Features, how: Fit, balance: str) -> Model:
        """Fit."""


@dataclass(frozen=True)
class _Tried:
    places: tuple[int, ...]
    balance: str
    model: Model
    loss: float


def blocks_of(table: Features, kind: str, balance: str) -> tuple[tuple[int, float], ...]:
    """Return the blocks of a join as `featx.model.scaling.FeatureScaler` takes them; none for a table by itself.

    Parameters
    ----------
    table : Features
    kind : str
        Of the scaling.
    balance : str
        One of `BALANCES`.

    Notes
    -----
    Standardised, a block of d columns has d times the variance of one column; brought to length 1, it has that
    whatever its width. A weight per block under one penalty is a penalty per block, as in a group ridge: A. E. Hoerl,
    R. W. Kennard, "Ridge regression", 1970, with λ over the square of the weight.
    """
    widths = [part.shape[1] for part in table.tables] if len(table.tables) > 1 else []
    mean = sum(widths) / max(1, len(widths))
    if kind == "l2":
        return tuple((width, math.sqrt(width / mean) if balance == "columns" else 1.0) for width in widths)
    return tuple((width, 1.0 if balance == "columns" else math.sqrt(mean / width)) for width in widths)


def fit_best_join(table: Features, how: Fit, fit_one: FitOne) -> Model:
    """Fit on as many of the tables that stand side by side as validation finds worth it, if need be on one.

    Each table is tried by itself. Then the best two, the best three and so on stand side by side, with every column or
    every table weighing alike, until two more tables have brought nothing. The lowest loss on the validation rows wins:
    the negative log-likelihood of calibrated probabilities, which tells more of few rows than their accuracy does, or
    what is missing to the perfect score of labels and numbers. Without validation rows all tables stand side by side.

    Parameters
    ----------
    table : Features
        A join.
    how : Fit
    fit_one : callable
        Fits one head.

    Returns
    -------
    Model
        Its report lists what was tried.
    """
    started, parts = time.perf_counter(), table.tables
    trial = dataclasses.replace(how, refit=False, test=False)

    def tried(places: Iterable[int], balance: str) -> _Tried:
        chosen = tuple(sorted(places))
        model = fit_one(join([parts[place] for place in chosen]), trial, balance)
        return _Tried(chosen, balance, model, _loss(model, table, balanced=how.metric == "balanced_accuracy"))

    alone = [tried([place], BALANCES[0]) for place in range(len(parts))]
    if alone[0].model.report.val is None:
        return fit_one(table, how, BALANCES[0])
    ranked = sorted(range(len(parts)), key=lambda place: alone[place].loss)
    balances = BALANCES[:1] if alone[0].model.scaler.kind == "none" else BALANCES
    found, best, misses = list(alone), alone[ranked[0]], 0
    for n in range(2, len(parts) + 1):
        larger = [tried(ranked[:n], balance) for balance in balances]
        found += larger
        nearest = min(larger, key=lambda one: one.loss)
        misses = 0 if nearest.loss < best.loss else misses + 1
        best = nearest if nearest.loss < best.loss else best
        if misses == _PATIENCE:
            break
    model = best.model
    if how.refit or how.test:
        model = fit_one(join([parts[place] for place in best.places]), how, best.balance)
    told = tuple(_told(found, best, parts))
    return model.with_report(joins=told, seconds=round(time.perf_counter() - started, 3))


def _loss(model: Model, table: Features, *, balanced: bool) -> float:
    """Return the loss on the rows of `table` that chose the model's settings; NaN where there are none."""
    if model.report.val is None:
        return math.nan
    if model.outputs is not None:
        return 1 - model.report.val.value
    held = table.select(DigestIndex(model.chosen_on).positions(table.item_ids) >= 0)
    place = {name: number for number, name in enumerate(model.classes)}
    codes = np.array([place.get(held.classes[label], -1) if label >= 0 else -1 for label in held.y.tolist()])
    of_true = model.predict_proba(held)[np.flatnonzero(codes >= 0), codes[codes >= 0]]
    rows = np.bincount(codes[codes >= 0]) if balanced else np.ones(len(model.classes))
    weights = 1 / rows[codes[codes >= 0]]
    return float(np.average(-np.log(np.clip(of_true, _LEAST, None)), weights=weights))


def _told(found: Iterable[_Tried], best: _Tried, parts: tuple[Features, ...]) -> Iterator[dict[str, Any]]:
    for one in found:
        yield {
            "tables": [table_name(parts[place], parts) for place in one.places],
            "balance": one.balance if len(one.places) > 1 else None,
            "loss": one.loss,
            "chosen": one is best,
        }


def table_name(part: Features, parts: tuple[Features, ...]) -> str:
    """Return layer and pooling of a table, and its backbone where there are several."""
    recipe = part.recipe
    if recipe is None:
        return str(part.path or part.key[:8])
    several = len({other.recipe.backbone for other in parts if other.recipe}) > 1
    backbone = f"{recipe.backbone.rpartition('/')[2]} " if several else ""
    return f"{backbone}{recipe.layer or 'output'} {recipe.pool}"
