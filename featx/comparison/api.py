"""`compare`: the whole transfer comparison in one call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from featx.comparison.settings import Compare
from featx.comparison.subsets import labelled, with_validation
from featx.datasets import Source, open_dataset
from featx.extraction import Options, identify, open_store, parse_views
from featx.heads import make_head
from featx.heads.state import is_exportable
from featx.model.rows import given_groups
from featx.recipe import FeatureOptions, Request
from featx.settings import keywords, part_of
from featx.targets import check_classes, check_images

if TYPE_CHECKING:
    from featx.datasets import Dataset

#: Fields of a request that say nothing about a network in training.
_FROZEN_ONLY = {"precision", "dtype", "seed"}


@keywords(Compare)
def compare(data: Any, asked: Compare) -> Comparison:
    """Fit every head on every layer of every backbone, train networks beside them, and rank what comes out.

    Extraction is shared: all layers of a backbone come from one pass, every head reads the same tables. Validation
    rows alone choose the best; test rows only report.

    Parameters
    ----------
    data : path, sequence of paths or images, array or Dataset
        Labelled, as `featx.extract` takes it. Without validation rows of its own a tenth of train becomes them.
    {options}
    labels : sequence, optional
        Labels of a list or an array.
    settings : mapping of str to mapping, optional
        Settings of heads and of scratch networks by name, ``{"mlp": {"hidden": 256}, "leaky-deep": {"epochs": 5}}``;
        scratch networks begin with those of `featx.comparison.plan.SCRATCH_SETTINGS`, and with their own input sizes.
    ft : mapping, optional
        Options of `featx.finetune` for fine-tuning, beside those about weights and pixels above. An entry ``shots`` in
        it, or in a scratch network's `settings`, stands for `shots` there.
    output : path, optional
        Folder for ``comparison.json``, ``models/`` and ``runs/``: a run that is kept there is not done again.
    cache : path, optional
        As in `featx.extract`.
    on_progress, note : callable, optional
        Called with a `Progress` in long steps, and with a line for each row.

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
    networks, heads = check_scratch(asked.scratch), asked.heads
    by_name = check_settings(heads, networks, asked.settings or {})
    features, how = vars(part_of(FeatureOptions, asked)), part_of(Options, asked)
    opened = open_dataset(data, **vars(part_of(Source, asked)))
    tuned = {name: features[name] for name in features.keys() - _FROZEN_ONLY} | dict(asked.ft or {})
    requests = [
        Request(
            backbone=name, layers=Request.several(layers_of(name, asked.layers, asked.backbones)), pool=pool, **features
        )
        for name in asked.backbones
        for pool in asked.pools
    ]
    fine_tuned = asked.backbones if asked.finetune is True else asked.finetune or ()
    trials = resolve(
        [
            *(
                trial
                for request in requests
                for trial in frozen_trials(request, {h: by_name[h] for h in heads}, asked.shots)
            ),
            *(trial for name in networks for trial in scratch_trials(name, by_name[name], asked.shots)),
            *(trial for name in fine_tuned for trial in finetune_trials(name, tuned, asked.shots)),
        ],
        asked.seeds,
        asked.cache,
    )
    check_classes(opened.task, "A comparison")
    check_images(opened.items, "A comparison")
    own_rows = opened.validation is not None or {"train", "val"} <= set(opened.given_splits.tolist())
    item_ids, _ = identify(opened, open_store(asked.cache), rehash=how.rehash)
    dataset = with_validation(opened, item_ids, seed=asked.seed)
    context = ComparisonContext(
        dataset=dataset,
        item_ids=item_ids,
        tables=opened.title if own_rows else f"{opened.title}-compare",
        folder=None if asked.output is None else Path(asked.output),
        cache=asked.cache,
        options=how,
        views=parse_views(asked.views, asked.augment, asked.seed),
        n_seeds=len(asked.seeds),
        split="test" if asked.test and len(labelled(dataset, "test")) else "val",
        on_progress=asked.on_progress,
        note=asked.note or (lambda _: None),
    )
    unsaved = [name for name in heads if asked.output and not is_exportable(make_head(name, **by_name[name]))]
    if unsaved:
        context.note(f"No model is kept of {', '.join(unsaved)}, which could only be pickled; its results are.")
    for line in [*_too_many(dataset, asked.shots), *context.warnings]:
        context.note(line)
    groups = given_groups(context, context.evaluated)
    comparison = rank(run_or_load(context, trials), context.truth, describe(context), context.folder, groups)
    comparison.save()
    return comparison


def _too_many(dataset: Dataset, shots: Sequence[int | None]) -> Iterator[str]:
    """Yield a line for each of `shots` that no class has so many training images for."""
    most = int(np.bincount(dataset.labels[labelled(dataset, "train")], minlength=1).max())
    for n in filter(None, shots):
        if n > most:
            yield f"--shots {n:,}: no class has more than {most:,} images to train on, so these rows have them all."
