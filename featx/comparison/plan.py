"""What a comparison runs: a list of plain records, one a fit, in which every name was checked."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featx.comparison.board import name_of
from featx.errors import OptionError, UnknownBackboneError, UnknownNameError
from featx.extraction import resolved_recipes
from featx.finetuning.settings import INDIVIDUAL, NetworkSettings, head_name
from featx.heads.names import make_head
from featx.recipe import DEFAULT_LAYER, SET, Recipe, Request
from featx.settings import options_of, parse_setting, types_of

_KERAS = {"optimizer": "adamax", "eps": 1e-7, "weight_decay": 0.0, "schedule": "none", "batch_size": 32}
#: How each scratch network is trained where nothing else is said: as the walkthrough trains it that it comes from.
SCRATCH_SETTINGS: dict[str, dict[str, Any]] = {
    "leaky": _KERAS | {"lr": 0.005, "epochs": 10},
    "leaky-dropout": _KERAS | {"lr": 0.005, "epochs": 10},
    "leaky-deep": _KERAS | {"lr": 0.001, "epochs": 15},
    "cnn25": {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 1e-4, "schedule": "none", "batch_size": 128}
    | {"lr": 0.01, "epochs": 10},
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One fit, as it was asked for, and what its request came to.

    Attributes
    ----------
    kind : {"frozen", "scratch", "finetune"}
    backbone, head : str
        Names.
    request : Request
        The network and its input; trials with equal requests share one extraction.
    layer, pool : str or None
        None where the whole network is trained.
    settings : mapping
        Of the head, or of `featx.finetune`.
    shots : int or None
        Training images a class; None for all.
    seed : int
        Of the subset, and of whatever the fit draws.
    recipes : tuple of Recipe
        Of the layer, or of those of a set, side by side; none before `resolve`, and where there is a `fault`.
    fault : Exception or None
        Why the request cannot be had.
    """

    kind: str
    backbone: str
    head: str
    request: Request
    layer: str | None = None
    pool: str | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    shots: int | None = None
    seed: int = 0
    recipes: tuple[Recipe, ...] = ()
    fault: Exception | None = None

    def __str__(self) -> str:
        return name_of(
            {**vars(self), "layer": self.layer and self.layer.removeprefix(SET), "images_per_class": self.shots}
        )


def frozen_trials(
    request: Request, heads: Mapping[str, Mapping[str, Any]], shots: Sequence[int | None]
) -> Iterator[Trial]:
    """Yield a trial for each number of images a class, layer of `request` and head.

    Parameters
    ----------
    request : Request
        Its layers may hold `DEFAULT_LAYER`; none means that one.
    heads : mapping of str to mapping
        Settings of each.
    shots : sequence of int or None
    """
    request = dataclasses.replace(request, layers=request.layers or (DEFAULT_LAYER,))
    for n, layer, (head, settings) in itertools.product(check_shots(shots), request.layers, heads.items()):
        yield Trial(
            kind="frozen",
            backbone=request.backbone,
            head=head,
            request=request,
            layer=layer,
            pool=request.pool,
            settings=dict(settings),
            shots=n,
        )


def finetune_trials(backbone: str, options: Mapping[str, Any], shots: Sequence[int | None]) -> Iterator[Trial]:
    """Yield a trial for each number of images a class that a backbone is fine-tuned on.

    Parameters
    ----------
    backbone : str
    options : mapping
        Of `featx.finetune`, checked here; an entry ``shots`` stands for `shots`.
    shots : sequence of int or None
    """
    options, shots = _checked("--ft", options, shots)
    return _trained("finetune", backbone, options, shots)


def scratch_trials(name: str, options: Mapping[str, Any], shots: Sequence[int | None]) -> Iterator[Trial]:
    """Yield a trial for each number of images a class that a scratch network is trained on.

    Parameters
    ----------
    name : str
        Without ``scratch/``.
    options : mapping
        Of `featx.finetune`, checked here; they go before those of `SCRATCH_SETTINGS`, and ``shots`` before `shots`.
    shots : sequence of int or None
    """
    options, shots = _checked(name, options, shots)
    settings = {**SCRATCH_SETTINGS[name], **options, "weights": "none"}
    return _trained("scratch", f"scratch/{name}", settings, shots)


def _trained(kind: str, backbone: str, options: dict[str, Any], shots: Sequence[int | None]) -> Iterator[Trial]:
    head = head_name(backbone, options.get("head_layers"))
    network = {name: options[name] for name in Request.__dataclass_fields__ if name in options and name != "precision"}
    request = Request(backbone=backbone, **network)
    for n in shots:
        yield Trial(kind=kind, backbone=backbone, head=head, request=request, settings=options, shots=n)


def resolve(trials: Iterable[Trial], seeds: Sequence[int], cache: str | Path | None) -> list[Trial]:
    """Return each trial once a seed, with the recipe that its request comes to.

    Parameters
    ----------
    trials : iterable of Trial
    seeds : sequence of int
    cache : path, optional

    Raises
    ------
    UnknownNameError
        For a backbone or layer that does not exist; whatever else is wrong is the trial's ``fault``.
    """
    found: dict[Request, tuple[Request, dict[str | None, tuple[Recipe, ...]]] | Exception] = {}
    planned = []
    for trial in trials:
        if trial.request not in found:
            found[trial.request] = _recipes(trial.request, cache)
        outcome = found[trial.request]
        if isinstance(outcome, Exception):
            known: dict[str, Any] = {"fault": outcome}
        else:
            request, recipes = outcome
            known = {"request": request, "recipes": recipes[trial.layer]}
        planned += [dataclasses.replace(trial, seed=seed, **known) for seed in check_seeds(seeds)]
    return planned


def _recipes(
    request: Request, cache: str | Path | None
) -> tuple[Request, dict[str | None, tuple[Recipe, ...]]] | Exception:
    """Return the request as extraction takes it, and the recipes of each layer as it was asked for."""
    try:
        named = dataclasses.replace(request, layers=Request.named(request.layers))
        asked: Sequence[str | None] = request.layers or (None,)
        if len(named.pools) == 1 and not any(layer.startswith(SET) for layer in named.layers):
            return named, {n: (recipe,) for n, recipe in zip(asked, resolved_recipes(named, cache=cache), strict=True)}
        alone = {layer: dataclasses.replace(request, layers=Request.named(layer)) for layer in asked}
        return named, {layer: tuple(resolved_recipes(one, cache=cache)) for layer, one in alone.items()}
    except UnknownNameError:
        raise
    except Exception as error:  # noqa: BLE001 - the rows of this request say it
        return error


def check_settings(
    heads: Sequence[str], scratch: Sequence[str], settings: Mapping[str, Mapping[str, Any]]
) -> dict[str, Mapping[str, Any]]:
    """Return the settings of each head and scratch network; names of heads, and of their settings, are checked.

    Examples
    --------
    >>> check_settings(["knn", "mlp"], ["leaky"], {"mlp": {"hidden": "64"}})
    {'knn': {}, 'mlp': {'hidden': '64'}, 'leaky': {}}
    """
    names = [*heads, *scratch]
    for name in settings:
        if name not in names:
            raise OptionError(f"There are settings for {name!r}, which is not compared. Compared: {', '.join(names)}.")
    for head in heads:
        make_head(head, **settings.get(head, {}))
    return {name: settings.get(name, {}) for name in names}


def check_scratch(names: Sequence[str]) -> list[str]:
    """Return names of scratch networks without ``scratch/``.

    Examples
    --------
    >>> check_scratch(["scratch/leaky", "cnn25"])
    ['leaky', 'cnn25']
    """
    found = [name.removeprefix("scratch/") for name in names]
    for name in found:
        if name not in SCRATCH_SETTINGS:
            raise UnknownBackboneError.among("scratch network", name, SCRATCH_SETTINGS, "featx backbones scratch/")
    return found


def check_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """Return `seeds`, at least one and each once."""
    if not seeds or len(set(seeds)) != len(seeds):
        raise OptionError(f"--seeds takes different whole numbers such as 0,1,2; got {','.join(map(str, seeds))!r}.")
    return tuple(seeds)


def check_shots(shots: Sequence[int | None]) -> Sequence[int | None]:
    """Return `shots`, at least one number of images a class."""
    if not shots or any(n is not None and n < 1 for n in shots):
        raise OptionError(f"--shots takes images a class such as 50,500; got {','.join(map(str, shots))!r}.")
    return shots


def parse_shots(text: str) -> list[int | None]:
    """Return the numbers of images a class that are written between commas; ``all`` is None.

    Examples
    --------
    >>> parse_shots("50,500,all")
    [50, 500, None]
    """
    try:
        return [None if word.strip() == "all" else int(word) for word in text.split(",")]
    except ValueError as error:
        raise OptionError(f"--shots takes images a class such as 50,500 or all, got {text!r}.") from error


def layers_of(backbone: str, layers: Iterable[str], backbones: Iterable[str]) -> tuple[str, ...]:
    """Return those of `layers` that are for `backbone`: without a backbone's name before them, or with this one's.

    Examples
    --------
    >>> layers_of("vgg16", ["default", "vgg16:block3_pool", "alexnet:pool5"], ["vgg16", "alexnet"])
    ('default', 'block3_pool')
    """
    others = [f"{other}:" for other in backbones if other != backbone]
    return tuple(
        layer.removeprefix(f"{backbone}:") for layer in layers if not any(layer.startswith(name) for name in others)
    )


def check_options(what: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of `featx.finetune`, those that are text read as on the command line.

    Examples
    --------
    >>> check_options("--ft", {"lr": "1e-3", "schedule": "none"})
    {'lr': 0.001, 'schedule': 'none'}
    """
    known = {field.name: field for field in options_of(NetworkSettings) if field.name not in INDIVIDUAL}
    for name in options:
        if name not in known:
            raise OptionError(f"{what} has no setting {name!r}. Its settings: {', '.join(sorted(known))}.")
    # In settings that are texts ``none`` is a word, and so is a number.
    read = {name: value if "str" in types_of(known[name]) else _read(value) for name, value in options.items()}
    NetworkSettings(**read)
    return read


def _checked(
    what: str, options: Mapping[str, Any], shots: Sequence[int | None]
) -> tuple[dict[str, Any], Sequence[int | None]]:
    """Return options of `featx.finetune`, checked, and their own ``shots`` or those of all."""
    given = options.get("shots", shots)
    own = parse_shots(given) if isinstance(given, str) else [given] if isinstance(given, int) else given
    return check_options(what, {name: value for name, value in options.items() if name != "shots"}), check_shots(own)


def _read(given: Any) -> Any:
    return parse_setting(given) if isinstance(given, str) else given
