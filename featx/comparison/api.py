"""`compare`: the whole transfer comparison in one call."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featx.comparison.bench import Bench, check_seeds, check_shots
from featx.comparison.frozen import FrozenSource, frozen_rows
from featx.comparison.outcome import Comparison
from featx.comparison.subsets import labelled, with_validation
from featx.comparison.trained import check_options, check_scratch, finetuned_rows, scratch_rows
from featx.datasets import open_dataset
from featx.errors import OptionError, UnknownNameError
from featx.extraction import Options, parse_views
from featx.heads.names import make_head
from featx.recipe import Request

if TYPE_CHECKING:
    from featx.datasets import Dataset
    from featx.progress import OnProgress

log = logging.getLogger("featx")

#: Fields of a request that say nothing about a network in training.
_FROZEN_ONLY = {"precision", "dtype", "seed"}


def compare(
    data: Any,
    *,
    backbones: Sequence[str] = ("efficientnet_lite0",),
    layers: Sequence[str] = (),
    pools: Sequence[str] = ("auto",),
    heads: Sequence[str] = ("logreg", "mlp"),
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    finetune: bool | Sequence[str] = False,
    ft: Mapping[str, Any] | None = None,
    scratch: Sequence[str] = (),
    shots: Sequence[int | None] = (None,),
    seeds: Sequence[int] = (0,),
    test: bool = True,
    views: int | None = None,
    augment: str | None = None,
    output: str | Path | None = None,
    cache: str | Path | None = None,
    on_progress: OnProgress | None = None,
    note: Callable[[str], None] | None = None,
    **options: Any,
) -> Comparison:
    """Fit every head on every layer of every backbone, train networks beside them, and rank what comes out.

    Extraction is shared: all layers of a backbone come from one pass, every head reads the same tables. Validation
    rows alone choose the best; test rows only report.

    Parameters
    ----------
    data : path, sequence of paths or images, array or Dataset
        Labelled, as `featx.extract` takes it. Without validation rows of its own a tenth of train becomes them.
    backbones, layers, pools, heads : sequence of str
        Names. A layer written ``backbone:layer`` is for that backbone alone; ``default`` is the one that a backbone
        is tapped at where none is named.
    settings : mapping of str to mapping, optional
        Settings of heads and of scratch networks by name, ``{"mlp": {"hidden": 256}, "leaky-deep": {"epochs": 5}}``.
    finetune : bool or sequence of str
        Fine-tune all backbones as well, or those named.
    ft : mapping, optional
        Options of `featx.finetune` for that.
    scratch : sequence of str
        Networks to train from scratch, ``scratch/…`` of ``featx backbones``: with the settings of the walkthrough that
        each comes from (`featx.comparison.trained.REGIMENS`) and options of `featx.finetune` in `settings`.
    shots : sequence of int or None
        Training images a class; the subset of fewer is part of that of more. None is all. Validation and test stay.
        An entry ``shots`` in `ft`, or in a scratch network's `settings`, stands for these there.
    seeds : sequence of int
        Of subsets and fits. A row shows the run of median validation accuracy, and the range of all.
    test : bool
        Look at the test rows.
    views, augment : int and str, optional
        Views of each training image that heads learn from, as in `featx.extract`.
    output : path, optional
        Folder for ``comparison.json``, ``models/`` and ``runs/``: a run that is kept there is not done again.
    cache : path, optional
        As in `featx.extract`.
    on_progress, note : callable, optional
        Called with a `Progress` in long steps, and with a line for each row.
    **options
        Of `featx.extract`: those of a `featx.Request`, of `featx.extraction.Options` and of `open_dataset`. Those about
        weights and pixels hold for fine-tuning as well; scratch networks have input sizes of their own.

    Returns
    -------
    Comparison

    Raises
    ------
    UnknownNameError
        For a name of a backbone, layer or head, before anything is computed. Whatever else is wrong with one row
        (images too small, weights that cannot be had) is that row's ``error``.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> images = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3), dtype=np.uint8)
    >>> with tempfile.TemporaryDirectory() as cache:
    ...     board = compare(images, labels=np.arange(60) % 2, backbones=["alexnet"], weights="none", image_size=64,
    ...                     heads=["centroid", "ridge"], val=0.2, cache=cache, workers=0, engine="eager")
    >>> sorted(row["head"] for row in board.rows), board.best["kind"]
    (['centroid', 'ridge'], 'frozen')
    """
    networks = check_scratch(scratch)
    by_name = check_settings(heads, networks, settings or {})
    asked, how, about = _sort_options(options)
    opened = open_dataset(data, **about)
    dataset = with_validation(opened, seed=about.get("seed", 0))
    bench = Bench(
        dataset=dataset,
        tables=opened.title if dataset is opened else f"{opened.title}-compare",
        folder=None if output is None else Path(output),
        cache=cache,
        options=Options(**how),
        views=parse_views(views, augment, about.get("seed", 0)),
        seeds=check_seeds(seeds),
        judge="test" if test and len(labelled(dataset, "test")) else "val",
        on_progress=on_progress,
        note=note or (lambda _: None),
    )
    sources = [
        FrozenSource(bench, Request(backbone=name, layers=layers_of(name, layers, backbones), pool=pool, **asked))
        for name in backbones
        for pool in pools
    ]
    tuned = {name: asked[name] for name in asked.keys() - _FROZEN_ONLY} | dict(ft or {})
    # Generators: whatever is misspelt is found here, before the first of them runs.
    contests = [frozen_rows(bench, source, {h: by_name[h] for h in heads}, check_shots(shots)) for source in sources]
    contests += [scratch_rows(bench, name, *_own_shots(name, by_name[name], shots)) for name in networks]
    contests += [
        finetuned_rows(bench, name, *_own_shots("--ft", tuned, shots))
        for name in (backbones if finetune is True else finetune or ())
    ]
    if heads or finetune:
        _check_names(sources)
    for n in filter(None, shots):
        if n > (most := bench.largest_class):
            bench.note(
                f"--shots {n:,}: no class has more than {most:,} images to train on, so these rows have them all."
            )
    for line in bench.warnings:
        bench.note(line)
    rows = list(itertools.chain.from_iterable(contests))
    comparison = Comparison.judge(rows, bench.truth, describe(bench), bench.folder)
    comparison.save()
    return comparison


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


def describe(bench: Bench) -> dict[str, Any]:
    """Return what is said about the data of a comparison."""
    dataset: Dataset = bench.dataset
    sizes = {split: len(labelled(dataset, split)) for split in ("train", "val", "test")}
    return {"name": dataset.name, "classes": list(dataset.classes), **sizes, "judged": bench.judge}


def _own_shots(
    name: str, options: Mapping[str, Any], shots: Sequence[int | None]
) -> tuple[dict[str, Any], Sequence[int | None]]:
    """Return options of `featx.finetune`, checked, and their own ``shots`` or those of all."""
    given = options.get("shots", shots)
    own = parse_shots(given) if isinstance(given, str) else [given] if isinstance(given, int) else given
    checked = check_options(name, {option: value for option, value in options.items() if option != "shots"})
    return checked, check_shots(own)


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


def _sort_options(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Sort options into those of a request, of extraction, and of data; a seed is for all of them."""
    request = {field.name for field in dataclasses.fields(Request)} - {"backbone", "layers", "pool"}
    how = {field.name for field in dataclasses.fields(Options)}
    return (
        {name: value for name, value in options.items() if name in request},
        {name: value for name, value in options.items() if name in how},
        {name: value for name, value in options.items() if name == "seed" or name not in request | how},
    )


def _check_names(sources: list[FrozenSource]) -> None:
    """Find misspelt backbones and layers before anything is computed; other faults become rows."""
    for source in sources:
        try:
            source.recipes()
        except UnknownNameError:
            raise
        except Exception as error:
            log.debug("%s", source.asked.backbone, exc_info=error)
