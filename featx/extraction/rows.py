"""Rows of features in memory: through the cache for estimators, past it for a model that meets new images."""

from __future__ import annotations

import dataclasses
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.datasets import item_id, open_dataset
from featx.errors import ImageError, WeightsError
from featx.extraction.compute import Forward, compute_block
from featx.extraction.ensure import decoders, ensure_rows
from featx.extraction.lookup import look_up, open_store
from featx.extraction.options import Options
from featx.extraction.publish import reasons_for_missing
from featx.extraction.resolve import resolve
from featx.images import DecodePool, prepare
from featx.probe import compare, measure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from featx.datasets import Dataset, ImageData
    from featx.engines import Engine
    from featx.recipe import Recipe, Request, Views


def resolved_recipes(request: Request, *, cache: str | Path | None = None) -> list[Recipe]:
    """Return what `request` comes to, one recipe for each layer that it names, or for the default layer."""
    store = open_store(cache)
    recipes = resolve(request, store).recipes
    if len(recipes) >= len(request.layers):
        return recipes
    # Two names of one layer have one recipe, so that each name must say which is its own.
    alone = (dataclasses.replace(request, layers=(layer,)) for layer in request.layers)
    return [recipe for named in alone for recipe in resolve(named, store).recipes]


def cached_rows(
    images: Any, request: Request, *, cache: str | Path | None = None, options: Options | None = None
) -> tuple[np.ndarray, dict[int, str]]:
    """Return a row for each of `images`, computing only those that the cache lacks.

    Parameters
    ----------
    images : anything that `featx.datasets.open_dataset` takes
    request : Request
        With at most one layer.

    Returns
    -------
    rows : ndarray of shape (n, …)
        NaN where there is none.
    reasons : dict of int to str
        Why, by position.
    """
    options, dataset = options or Options(), open_dataset(images)
    lookup = look_up(dataset, request, open_store(cache), options)
    ensured = ensure_rows(lookup, options)
    (recipe,) = lookup.recipes
    found = lookup.found(recipe)
    rows = np.full((len(dataset), *recipe.shape), np.nan, dtype=recipe.dtype)
    rows[found] = lookup.store.read(recipe.key, lookup.identity.item_ids[found])
    return rows, reasons_for_missing(lookup, recipe, ensured)


class RowMaker:
    """Rows of one recipe from any images, computed here and kept nowhere.

    The network is loaded once, and its engine stays open from call to call. Calls from several threads take turns.

    Parameters
    ----------
    request : Request
        How to get the backbone.
    recipe : Recipe
        What it must come to: a backbone with other weights is refused.
    probe : mapping, optional
        What this machine must compute for the probe images, as stored with the model.

    Raises
    ------
    WeightsError
        If the backbone is not the one that `recipe` names.
    """

    def __init__(self, request: Request, recipe: Recipe, probe: Mapping[str, np.ndarray] | None = None) -> None:
        from featx import backbones

        self._backbone, recipes = backbones.resolve(request)
        self._recipe, self._probe = _the_same(recipe, recipes, request), probe
        self._engine: Engine | None = None
        self._asked: tuple[Any, ...] = ()
        self._largest = 0
        self._turn = threading.Lock()

    def rows(
        self, dataset: Dataset, *, views: Views | None = None, **how: Any
    ) -> tuple[list[np.ndarray], dict[int, str]]:
        """Return rows for each image of `dataset`.

        Parameters
        ----------
        dataset : Dataset
            Images.
        views : Views, optional
            Augmented views to compute as well. Each image is decoded once.
        **how
            Fields of `Options`: engine, device, batch_size, workers.

        Returns
        -------
        rows : list of ndarray of shape (n, …)
            Of each view, the plain one first; NaN where there is none.
        reasons : dict of int to str
            Why, by position.

        Raises
        ------
        ProbeError
            If this machine computes other features than `probe`.
        """
        own, n, options = self._recipe, len(dataset), Options(**how)
        item_ids = np.zeros((n, 32), dtype=np.uint8)
        recipes = [own, *(views.recipe(own, number) for number in views.numbers)] if views else [own]
        with self._turn:
            engine = self._open(options, n)
            with DecodePool(own.frame, n_workers=decoders(options, n)) as pool:
                pixels = pool.map(_noting(item_ids, dataset.iterate(np.arange(n))))
                block = compute_block(pixels, Forward(engine, recipes, item_ids), n)
        rows = [np.full((n, *own.shape), np.nan, dtype=own.dtype) for _ in recipes]
        failures = dict(block.failures)
        for all_rows, part in zip(rows, block.parts, strict=True):
            all_rows[part.indices] = part.rows
            failures |= part.failures
        for all_rows in rows:  # an image without one of its views has none
            all_rows[list(failures)] = np.nan
        return rows, {index: str(error) for index, error in failures.items()}

    def _open(self, options: Options, n: int) -> Engine:
        """Return the engine of the last call, unless another is asked for or the job is longer than any before."""
        from featx.engines import open_engine

        asked = (os.getpid(), options.engine, options.device, options.batch_size)  # a fork has none of its threads
        longer = options.engine == "auto" and n > self._largest
        if self._engine is None or asked != self._asked or longer:
            engine = open_engine(
                self._backbone,
                [self._recipe],
                engine=options.engine,
                device=options.device,
                batch_size=options.batch_size,
                n_images=n,
            )
            if self._probe is not None:
                (measured,) = measure(prepare, engine, self._recipe.frame)
                compare(self._probe, measured, self._recipe.precision)
            self._engine, self._asked, self._largest = engine, asked, n
        return self._engine


def _noting(
    item_ids: np.ndarray, images: Iterable[tuple[int, ImageData | ImageError]]
) -> Iterator[tuple[int, ImageData | ImageError]]:
    """Pass images on, and write their content hashes into `item_ids`: the seeds of their views."""
    for index, data in images:
        if not isinstance(data, ImageError):
            item_ids[index] = np.frombuffer(item_id(data), dtype=np.uint8)
        yield index, data


def _the_same(recipe: Recipe, recipes: list[Recipe], request: Request) -> Recipe:
    """Return the recipe of `recipes` that is `recipe`, but for the tag of its weights: their content decides."""
    for own in recipes:
        if dataclasses.replace(own, weights=recipe.weights) == recipe:
            return own
    if all(own.weights_digest != recipe.weights_digest for own in recipes):
        raise WeightsError(
            f"{request.backbone} has other weights here (digest {recipes[0].weights_digest[:8]}) than those the model "
            f"was fitted on ({recipe.weights_digest[:8]}, {recipe.weights}). Name the right file, or save the model "
            "with --bundle."
        )
    raise WeightsError(
        f"{request.backbone} comes to another recipe here than the one the model was fitted on: a library changed. "
        "Fit again: featx extract, featx fit."
    )
