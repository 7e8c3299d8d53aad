"""The whole of ``featx extract``: from a dataset and a request to published tables."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from featx.datasets import shared_across_splits
from featx.devices import check_device, resolve_device
from featx.errors import OptionError, ProbeError, TooManyErrors
from featx.extraction.ensure import Ensured, ensure_rows, open_planned, required_bytes, seconds_per_batch
from featx.extraction.lookup import Lookup, look_up, open_store
from featx.extraction.options import Options, allowed_errors
from featx.extraction.outcome import Estimate, Extraction
from featx.extraction.probing import forget_probe
from featx.extraction.publish import publish, table_path

if TYPE_CHECKING:
    from pathlib import Path

    from featx.datasets import Dataset
    from featx.extraction.ensure import Executor
    from featx.features import Features
    from featx.progress import OnProgress
    from featx.recipe import Request, Views
    from featx.store import Store

#: Name of the note that remembers which tables were made or found last.
LAST_USED = "last-used"
_FORGOTTEN = (
    "The cache cannot be written, so a command without TABLE does not know of this one: name it, featx fit TABLE."
)


def run(
    dataset: Dataset,
    request: Request,
    *,
    cache: str | Path | None = None,
    options: Options | None = None,
    on_progress: OnProgress | None = None,
    views: Views | None = None,
    executor: Executor | None = None,
    remember: bool = True,
) -> Extraction:
    """Extract `dataset` as `request` says, and publish one table a layer.

    Parameters
    ----------
    dataset : Dataset
        Rows to extract.
    request : Request
        Backbone, layers, preprocessing.
    cache : str or Path, optional
        Cache folder; ``FEATX_CACHE`` or ``./cache`` if not given.
    options : Options, optional
        How to compute.
    on_progress : callable, optional
        Called with a `Progress` after each batch.
    views : Views, optional
        Augmented views of the images to train on, in tables of their own that those returned name.
    executor : Executor, optional
        Who computes: this process, or a cluster such as `featx.RayCluster`.
    remember : bool
        Whether a command that names no table means these from now on.

    Raises
    ------
    OptionError
        If views are asked for and no row is for training.
    TooManyErrors
        After everything good has been published, if more images are bad than ``options.max_errors`` allows.
    """
    started, options, store = time.perf_counter(), options or Options(), open_store(cache)
    lookup = _look_up(dataset, request, store, options, on_progress, views, elsewhere=executor is not None)
    ensure = _compute_again if options.refresh else ensure_rows
    ensured = ensure(lookup, options, on_progress, executor)
    tables = [publish(lookup, recipe, ensured) for recipe in lookup.recipes]
    paths = [table.path for table in tables if table.path is not None]
    forgotten = remember and last_used(store) != paths and not note_last_used(store, paths)
    n_computed = ensured.filled.computed
    done = Extraction(
        tables=tables,
        layers=_layer_names(lookup),
        n_images=len(dataset),
        computed=n_computed,
        reused=max(0, max(_n_rows(table, views) for table in tables) - n_computed),
        errors=max((table.errors for table in tables), key=len),
        seconds=time.perf_counter() - started,
        images_per_second=n_computed / ensured.seconds if n_computed else None,
        waiting=ensured.filled.waiting / ensured.seconds if n_computed else None,
        engine=ensured.engine,
        precision=request.precision,
        views=1 if views is None else views.n,
        notes=[*dataset.notes, *_leaks(lookup), *([_FORGOTTEN] if forgotten else [])],
    )
    _judge_errors(done, options)
    return done


def estimate(
    dataset: Dataset,
    request: Request,
    *,
    cache: str | Path | None = None,
    options: Options | None = None,
    on_progress: OnProgress | None = None,
    views: Views | None = None,
) -> Estimate:
    """Say what `run` would do, having computed no more than one batch and written nothing but notes."""
    options, store = options or Options(), open_store(cache)
    lookup = _look_up(dataset, request, store, options, on_progress, views)
    lookup.blind = options.refresh
    parts, seconds = list(lookup.parts()), 0.0
    n_missing = sum(part.n_rows for part in parts)
    if n_missing:
        engine, _ = open_planned(lookup, parts[0], options)
        seconds = seconds_per_batch(lookup.recipes, engine) * -(-n_missing // engine.batch_size)
    return Estimate(
        n_images=len(dataset),
        views=1 if views is None else views.n,
        to_compute=n_missing,
        n_bytes=required_bytes(lookup, n_missing),
        seconds=seconds,
        paths=[str(table_path(lookup, recipe)) for recipe in lookup.recipes],
    )


def note_last_used(store: Store, paths: list[Path]) -> bool:
    """Remember the tables that a command without TABLE takes; False where the cache cannot be written."""
    try:
        store.put_note(LAST_USED, {"tables": [str(path.relative_to(store.root)) for path in paths]})
    except OSError:
        return False
    return True


def last_used(store: Store) -> list[Path]:
    """Return the tables that were made or found last and are still there."""
    names = (store.note(LAST_USED) or {"tables": []})["tables"]
    return [store.root / name for name in names if (store.root / name).exists()]


def _look_up(
    dataset: Dataset,
    request: Request,
    store: Store,
    options: Options,
    on_progress: OnProgress | None,
    views: Views | None,
    *,
    elsewhere: bool = False,
) -> Lookup:
    if elsewhere or options.device == "auto":  # torch is for those who name a device
        check_device(options.device)
    else:
        resolve_device(options.device)
    lookup = look_up(dataset, request, store, options, on_progress, views)
    if views is not None and not lookup.viewed.any():
        raise OptionError(
            "--views are for training rows, and the data has only validation and test rows. Leave it out."
        )
    return lookup


def _n_rows(table: Features, views: Views | None) -> int:
    return len(table) + sum(len(table.view(number)) for number in (views.numbers if views else ()))


def _compute_again(
    lookup: Lookup, options: Options, on_progress: OnProgress | None, executor: Executor | None
) -> Ensured:
    """Compute every row of these images anew; rows of others stay, unless this machine computes other features."""
    lookup.store.require_writable()
    recipes = [*lookup.recipes]
    if views := lookup.views:
        recipes += [views.recipe(recipe, number) for recipe in lookup.recipes for number in views.numbers]
    for recipe in recipes:
        lookup.store.set_aside(recipe.key, lookup.identity.item_ids)
    try:
        return ensure_rows(lookup, options, on_progress, executor)
    except ProbeError:
        for recipe in recipes:
            forget_probe(lookup.store, recipe)
            lookup.store.set_aside(recipe.key)
        return ensure_rows(lookup, options, on_progress, executor)


def _layer_names(lookup: Lookup) -> list[str]:
    """Return layers by the names that were asked for; two names of one layer have one table."""
    asked = lookup.resolved.request.layers
    return list(asked) if len(asked) == len(lookup.recipes) else [recipe.layer for recipe in lookup.recipes]


def _leaks(lookup: Lookup) -> list[str]:
    """Warn of identical images in different splits: a classifier that saw one in training knows the other."""
    return shared_across_splits(lookup.identity.item_ids, lookup.splits(lookup.recipes[0]), lookup.dataset.ids)


def _judge_errors(done: Extraction, options: Options) -> None:
    if len(done.errors) > allowed_errors(options.max_errors, done.n_images):
        image, reason = done.errors[0]
        raise TooManyErrors(
            f"{len(done.errors):,} of {done.n_images:,} images cannot be read, more than --max-errors "
            f"{options.max_errors}; the first: {image}: {reason}. All others are kept in {done.tables[0].path}; "
            "its `errors` lists the bad ones."
        )
