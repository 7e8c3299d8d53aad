"""`ensemble`: several models as one, whose predictions are the average of theirs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import DataError, OptionError
from featx.model.model import Model, load
from featx.model.report import FitReport
from featx.model.selection import Held
from featx.model.settings import Ensemble
from featx.model.vote import Vote, Voter
from featx.settings import keywords

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from featx.features import Features
    from featx.model.inputs import Input

#: Models in one file, at most, and models of models.
_MOST, _DEEPEST = 100, 3
#: Fewer rows that no model has learned from do not tell which of them are worth it.
_FEWEST = 20


@keywords(Ensemble)
def ensemble(models: Sequence[Model | str | Path], how: Ensemble) -> Model:
    """Put several models together: what they say of an image is averaged.

    Parameters
    ----------
    models : sequence of Model or path
        At least two, with the same classes, labels or numbers, on whatever layers and backbones.
    {options}

    Returns
    -------
    Model
        Predicts, is evaluated, reported and saved as any other; its file holds all models as data. Each backbone runs
        once for all of them. Its report lists the models and their weights as ``tried``.

    Raises
    ------
    OptionError
        If the weights are not one a model.
    DataError
        If the models tell different things, or rows of their own to weigh them on are not there.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from featx import Features, fit
    >>> table = Features.from_arrays(*load_digits(return_X_y=True))
    >>> both = ensemble([fit(table, "ridge"), fit(table, "centroid")], weights="3,1")
    >>> both.head_name, [one["weight"] for one in both.report["tried"]]
    ('ensemble', [0.75, 0.25])
    """
    if isinstance(models, str | Path):
        raise DataError("featx.ensemble takes a list of models: featx.ensemble([first, second])")
    opened = [one if isinstance(one, Model) else load(one) for one in models]
    _check(opened)
    weights = given_weights(how.weights, len(opened))
    if weights is None:
        weights = _chosen_weights(opened, how.seed)
    model = vote_of(opened, weights, "ensemble")
    told = [
        {
            "head": one.head_name,
            "scale": one.scaler.kind,
            "settings": dict(one.report.chosen),
            "tables": one.made_of.split(", ") if one.inputs else [],
            "balance": None,
            "loss": None,
            "score": one.report.val and one.report.val.value,
            "weight": float(weight),
        }
        for one, weight in zip(opened, weights, strict=True)
    ]
    return model.with_report(tried=tuple(told))


def given_weights(text: str, n: int) -> NDArray[np.float64] | None:
    """Return the weights of `n` models that ``--weights`` names; None where validation rows choose.

    Examples
    --------
    >>> given_weights("equal", 2), given_weights("3,1", 2), given_weights("validation", 2)
    (array([0.5, 0.5]), array([0.75, 0.25]), None)
    """
    if text == "validation":
        return None
    if text == "equal":
        return np.full(n, 1 / n)
    try:
        weights = np.array([float(word) for word in text.split(",")])
    except ValueError:
        weights = np.empty(0)
    if len(weights) != n or not np.isfinite(weights).all() or weights.min() < 0 or not weights.sum() > 0:
        raise OptionError(
            f"--weights takes equal, validation, or a number of at least 0 for each of the {n} models with commas "
            f"between, such as {','.join(map(str, range(n, 0, -1)))}; got {text!r}."
        )
    return np.asarray(weights / weights.sum())


def vote_of(models: Sequence[Model], weights: NDArray[np.float64], name: str) -> Model:
    """Return the model whose predictions are the weighted mean of those of `models`; weights of 0 leave one out."""
    together = [(model, float(weight)) for model, weight in zip(models, weights, strict=True) if weight > 0]
    first = together[0][0]
    inputs, columns, width = _side_by_side([model for model, _ in together])
    voters = [Voter(model, weight, column) for (model, weight), column in zip(together, columns, strict=True)]
    vote = Vote(voters, width)
    kept = [model for model, _ in together]
    of_one = len({dataclasses.replace(made.recipe, layer="", pool="", shape=()) for made in inputs}) == 1
    network = next((model.network for model in kept if model.network is not None), None)
    said = dict.fromkeys(warning for model in kept for warning in model.report.warnings)
    if network is not None and not of_one:
        said["The networks that were in some of the files are not in this one, which is of several backbones."] = None
    trained_on = np.unique(np.concatenate([model.trained_on for model in kept]), axis=0)
    chosen_on = np.unique(np.concatenate([model.chosen_on for model in kept]), axis=0)
    report = FitReport(
        head=name,
        **_tables(kept, inputs),
        task=first.report.task,
        views=first.report.views if len({model.views for model in kept}) == 1 else 1,
        augment=first.report.augment if len({model.views for model in kept}) == 1 else None,
        scale="none",
        warnings=tuple(said),
    )
    model = dataclasses.replace(
        first,
        head=vote,
        head_name=name,
        scaler=type(first.scaler)("none"),
        calibration=type(first.calibration)(),
        ood=vote if vote.knows_familiarity else None,
        inputs=inputs,
        trained_on=trained_on,
        chosen_on=chosen_on,
        network=network if of_one else None,
        views=first.views if len({model.views for model in kept}) == 1 else None,
        outputs=None if first.outputs is None else _mean_outputs(kept, [weight for _, weight in together]),
    )
    return dataclasses.replace(model, report=dataclasses.replace(report, n_parameters=model.n_parameters))


def _check(models: list[Model]) -> None:
    """Refuse models that do not tell the same."""
    if not 2 <= len(models) <= _MOST:
        raise OptionError(
            f"An ensemble is made of 2 to {_MOST} models, got {len(models)}: featx ensemble A.featx B.featx"
        )
    first = models[0]
    if any(model.items is not None for model in models):
        raise DataError("Models of items are not averaged yet. Try several heads on items: featx fit --head auto")
    for number, model in enumerate(models[1:], 2):
        if (model.outputs and model.outputs.task) != (first.outputs and first.outputs.task):
            raise DataError(f"The first model is one of {first.report.task}, model {number} of {model.report.task}.")
        if set(model.columns) != set(first.columns):
            strange = ", ".join(map(repr, sorted(set(model.columns) ^ set(first.columns))[:5]))
            raise DataError(
                f"Model {number} does not tell the same as the first: not in both are {strange}. "
                "Fit both on tables of the same classes."
            )
        if model.columns != first.columns:
            raise DataError(
                f"Model {number} has its classes in another order than the first. Fit both on tables of the same data."
            )
        if bool(model.inputs) != bool(first.inputs) or (
            not model.inputs and model.head.n_features_in_ != first.head.n_features_in_
        ):
            raise DataError(f"Model {number} was fitted on rows of another kind than the first.")
    if max(map(_depth, models)) >= _DEEPEST:
        raise OptionError(f"An ensemble of ensembles goes {_DEEPEST} deep at most. Name the models that they are of.")


def _depth(model: Model) -> int:
    return 1 + max(_depth(voter.model) for voter in model.head.voters) if isinstance(model.head, Vote) else 0


def _side_by_side(models: Sequence[Model]) -> tuple[tuple[Input, ...], list[NDArray[np.intp] | None], int]:
    """Return the inputs of all models once each, which columns each model takes of them, and how many there are."""
    first = models[0]
    if not first.inputs:
        return (), [None] * len(models), int(first.head.n_features_in_)
    inputs = {made.recipe.key: made for model in reversed(models) for made in reversed(model.inputs)}
    inputs = {made.recipe.key: inputs[made.recipe.key] for model in models for made in model.inputs}
    if len(inputs) > 1 and any(len(made.recipe.shape) > 1 for made in inputs.values()):
        raise DataError("Maps stand beside nothing: models on them go with others on the same maps alone.")
    times = 1 if first.items is None else first.items.times_wider
    sizes = [times * int(np.prod(made.recipe.shape)) for made in inputs.values()]
    starts = dict(zip(inputs, np.cumsum([0, *sizes]).tolist(), strict=False))
    columns: list[NDArray[np.intp] | None] = []
    for model in models:
        own = [(starts[made.recipe.key], times * made.recipe.shape[0]) for made in model.inputs]
        taken = np.concatenate([np.arange(start, start + width) for start, width in own])
        columns.append(None if [made.recipe.key for made in model.inputs] == list(inputs) else taken)
    return tuple(inputs.values()), columns, sum(sizes)


def _tables(models: Sequence[Model], inputs: Sequence[Input]) -> dict[str, Any]:
    """Return where the tables of `inputs` are, as far as the models' reports tell of all of them."""
    paths: dict[str, str] = {}
    for model in models:
        known = [path for path in model.report.tables or [model.report.table] if path]
        if len(known) == len(model.inputs):
            paths |= {made.recipe.key: path for made, path in zip(model.inputs, known, strict=True)}
    if not inputs or not all(made.recipe.key in paths for made in inputs):
        return {}
    ordered = tuple(paths[made.recipe.key] for made in inputs)
    return {"table": ordered[0]} if len(ordered) == 1 else {"tables": ordered}


def _mean_outputs(models: Sequence[Model], weights: Sequence[float]) -> Any:
    """Return thresholds and margins between those of the models."""
    outputs = [model.outputs for model in models if model.outputs is not None]
    first = outputs[0]
    thresholds = tuple(np.average([one.thresholds for one in outputs], axis=0, weights=weights).tolist())
    margins = tuple(
        None if None in of_one else float(np.average(of_one, weights=weights))
        for of_one in zip(*(one.margins for one in outputs), strict=True)
    )
    return dataclasses.replace(first, thresholds=thresholds if first.thresholds else (), margins=margins)


def _chosen_weights(models: Sequence[Model], seed: int) -> NDArray[np.float64]:
    """Return the weights that rows choose which some of the models were chosen on, and none has learned from."""
    table = vote_of(models, np.full(len(models), 1 / len(models)), "ensemble").table()
    if table is None:
        raise DataError(
            "The tables that the models were fitted on are not where they were. Weigh alike: --weights equal"
        )
    positions, held = _held_rows(models, table)
    if len(positions) < _FEWEST:
        raise DataError(
            f"{len(positions):,} rows chose one of the models and taught none, and {_FEWEST} are needed to weigh them. "
            "Fit them with the same --seed and --val, or weigh alike: --weights equal"
        )
    rows = table.select(positions)
    outputs = [_outputs(model, rows) for model in models]
    return held.weights(outputs, seed)


def _outputs(model: Model, rows: Features) -> NDArray[np.float64]:
    found: Any = model.classify(rows)
    return np.asarray(found.array if model.outputs is not None else found.probabilities)


def _held_rows(models: Sequence[Model], table: Features) -> tuple[NDArray[np.intp], Held]:
    from featx.features import in_task
    from featx.store.catalog import DigestIndex

    table = in_task(table, models[0].report.task)
    chose, taught = (
        np.any([DigestIndex(getattr(model, kind)).positions(table.item_ids) >= 0 for model in models], axis=0)
        for kind in ("chosen_on", "trained_on")
    )
    targets = table.given_targets
    if targets is not None:
        place = {name: number for number, name in enumerate(targets.names)}
        targets = targets.columns(np.array([place[name] for name in models[0].columns]))
        positions = np.flatnonzero(chose & ~taught & targets.known)
        return positions, Held.of(table, positions, targets)
    place = {name: number for number, name in enumerate(models[0].classes)}
    codes = np.array([*(place.get(name, -1) for name in table.classes), -1])[table.y]
    positions = np.flatnonzero(chose & ~taught & (codes >= 0))
    held = Held.of(table, positions, None)
    return positions, dataclasses.replace(held, truth=codes[positions])
