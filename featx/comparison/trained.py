"""Rows of networks that learn themselves: fine-tuned backbones, and networks from scratch."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from featx.comparison.bench import RUNS, Bench
from featx.comparison.runs import Row, Run, Trial
from featx.comparison.subsets import keep_shots
from featx.datasets.part import select
from featx.errors import OptionError, UnknownBackboneError
from featx.extraction import resolved_recipes
from featx.heads.settings import parse_setting
from featx.recipe import Request

if TYPE_CHECKING:
    from featx.model import Model

#: Arguments of `featx.finetune` that a comparison decides, or that do not change what comes out.
_OWN = {"data", "backbone", "test", "val", "seed", "cache", "checkpoint", "resume", "on_progress", "source"}

_KERAS = {"optimizer": "adamax", "eps": 1e-7, "weight_decay": 0.0, "schedule": "none", "batch_size": 32}
#: How each scratch network is trained where nothing else is said: as the walkthrough trains it that it comes from.
REGIMENS: dict[str, dict[str, Any]] = {
    "leaky": _KERAS | {"lr": 0.005, "epochs": 10},
    "leaky-dropout": _KERAS | {"lr": 0.005, "epochs": 10},
    "leaky-deep": _KERAS | {"lr": 0.001, "epochs": 15},
    "cnn25": {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 1e-4, "schedule": "none", "batch_size": 128}
    | {"lr": 0.01, "epochs": 10},
}


def finetuned_rows(
    bench: Bench, backbone: str, options: Mapping[str, Any], shots: Sequence[int | None]
) -> Iterator[Row]:
    """Yield a row for each number of images a class that a backbone is fine-tuned on.

    Parameters
    ----------
    bench : Bench
    backbone : str
    options : mapping
        Of `featx.finetune`.
    shots : sequence of int or None
    """
    head = options.get("head_layers") or "linear"
    yield from _rows(bench, "finetune", backbone, head, dict(options), shots)


def scratch_rows(bench: Bench, name: str, options: Mapping[str, Any], shots: Sequence[int | None]) -> Iterator[Row]:
    """Yield a row for each number of images a class that a scratch network is trained on, by its own regimen.

    Parameters
    ----------
    bench : Bench
    name : str
        Without ``scratch/``.
    options : mapping
        Of `featx.finetune`; they go before those of `REGIMENS`.
    shots : sequence of int or None
    """
    yield from _rows(
        bench, "scratch", f"scratch/{name}", "own", {**REGIMENS[name], **options, "weights": "none"}, shots
    )


def _rows(
    bench: Bench, kind: str, backbone: str, head: str, options: dict[str, Any], shots: Sequence[int | None]
) -> Iterator[Row]:
    network = {name: options[name] for name in Request.__dataclass_fields__ if name in options and name != "precision"}

    def facts() -> dict[str, Any]:
        (recipe,) = resolved_recipes(Request(backbone=backbone, **network), cache=bench.cache)
        return {"recipe": recipe.key, "options": options}

    for n in shots:
        trial = Trial(kind=kind, backbone=backbone, head=head, shots=n)

        def run(seed: int, key: str, trial: Trial = trial) -> Run:
            return _train(bench, trial, options, seed, key)

        yield bench.compete(trial, facts, run)


def _train(bench: Bench, trial: Trial, options: dict[str, Any], seed: int, key: str) -> Run:
    """Train once, going on where a run that was killed had come to."""
    from featx.finetuning import finetune

    how = {"device": bench.options.device, "workers": bench.options.workers, "max_errors": bench.options.max_errors}
    checkpoint = bench.folder / RUNS / f"{key}.checkpoint" if bench.folder else None
    model: Model = finetune(
        keep_shots(bench.dataset, trial.shots, seed=seed),
        backbone=trial.backbone,
        seed=seed,
        cache=bench.cache,
        checkpoint=checkpoint,
        resume=checkpoint is not None,
        on_progress=bench.on_progress,
        **how | options,
    )
    judged = model.classify(
        select(bench.dataset, bench.judged), device=bench.options.device, workers=bench.options.workers
    )
    run = bench.record(
        model,
        trial,
        seed,
        key,
        judged.ids,
        judged.best,
        layer=None,
        pool=None,
        extract_seconds=None,
        extract_seconds_now=0.0,
        fit_seconds=model.report["seconds"],
    )
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return run


def check_scratch(names: Sequence[str]) -> list[str]:
    """Return names of scratch networks without ``scratch/``.

    Examples
    --------
    >>> check_scratch(["scratch/leaky", "cnn25"])
    ['leaky', 'cnn25']
    """
    found = [name.removeprefix("scratch/") for name in names]
    for name in found:
        if name not in REGIMENS:
            raise UnknownBackboneError.among("scratch network", name, REGIMENS, "featx backbones scratch/")
    return found


def check_options(what: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of `featx.finetune`, those that are text read as on the command line.

    Examples
    --------
    >>> check_options("--ft", {"lr": "1e-3", "schedule": "none"})
    {'lr': 0.001, 'schedule': 'none'}
    """
    from featx.finetuning import finetune

    known = {p.name: p.default for p in inspect.signature(finetune).parameters.values() if p.name not in _OWN}
    for name in options:
        if name not in known:
            raise OptionError(f"{what} has no setting {name!r}. Its settings: {', '.join(sorted(known))}.")
    return {name: _read(value, known[name]) for name, value in options.items()}


def _read(given: Any, default: Any) -> Any:
    """Return the value that a text means, unless the option is for text: there ``none`` is a word."""
    return given if isinstance(default, str) or not isinstance(given, str) else parse_setting(given)
