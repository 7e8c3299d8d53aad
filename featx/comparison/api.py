"""`compare`: the whole transfer comparison in one call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.comparison.outcome import Comparison, rank
from featx.comparison.plan import (
    check_scratch,
    check_settings,
    finetune_trials,
    frozen_trials,
    layers_of,
    resolve,
    scratch_trials,
)
from featx.comparison.run import ComparisonContext, describe, run_or_load
from featx.comparison.subsets import labelled, with_validation
from featx.datasets import open_dataset
from featx.extraction import Options, identify, open_store, parse_views
from featx.recipe import Request

if TYPE_CHECKING:
    from featx.datasets import Dataset
    from featx.progress import OnProgress

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
        each comes from (`featx.comparison.plan.SCRATCH_SETTINGS`) and options of `featx.finetune` in `settings`.
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
    tuned = {name: asked[name] for name in asked.keys() - _FROZEN_ONLY} | dict(ft or {})
    requests = [
        Request(backbone=name, layers=layers_of(name, layers, backbones), pool=pool, **asked)
        for name in backbones
        for pool in pools
    ]
    trials = resolve(
        [
            *(trial for request in requests for trial in frozen_trials(request, {h: by_name[h] for h in heads}, shots)),
            *(trial for name in networks for trial in scratch_trials(name, by_name[name], shots)),
            *(
                trial
                for name in (backbones if finetune is True else finetune or ())
                for trial in finetune_trials(name, tuned, shots)
            ),
        ],
        seeds,
        cache,
    )
    own_rows = opened.validation is not None or {"train", "val"} <= set(opened.given_splits.tolist())
    item_ids, _ = identify(opened, open_store(cache), rehash=Options(**how).rehash)
    dataset = with_validation(opened, item_ids, seed=about.get("seed", 0))
    context = ComparisonContext(
        dataset=dataset,
        item_ids=item_ids,
        tables=opened.title if own_rows else f"{opened.title}-compare",
        folder=None if output is None else Path(output),
        cache=cache,
        options=Options(**how),
        views=parse_views(views, augment, about.get("seed", 0)),
        n_seeds=len(seeds),
        split="test" if test and len(labelled(dataset, "test")) else "val",
        on_progress=on_progress,
        note=note or (lambda _: None),
    )
    for line in [*_too_many(dataset, shots), *context.warnings]:
        context.note(line)
    comparison = rank(run_or_load(context, trials), context.truth, describe(context), context.folder)
    comparison.save()
    return comparison


def _too_many(dataset: Dataset, shots: Sequence[int | None]) -> Iterator[str]:
    """Yield a line for each of `shots` that no class has so many training images for."""
    most = int(np.bincount(dataset.labels[labelled(dataset, "train")], minlength=1).max())
    for n in filter(None, shots):
        if n > most:
            yield f"--shots {n:,}: no class has more than {most:,} images to train on, so these rows have them all."


def _sort_options(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Sort options into those of a request, of extraction, and of data; a seed is for all of them."""
    request = {field.name for field in dataclasses.fields(Request)} - {"backbone", "layers", "pool"}
    how = {field.name for field in dataclasses.fields(Options)}
    return (
        {name: value for name, value in options.items() if name in request},
        {name: value for name, value in options.items() if name in how},
        {name: value for name, value in options.items() if name == "seed" or name not in request | how},
    )
