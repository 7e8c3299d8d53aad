"""Rows of features in memory: through the cache for estimators, past it for a model that meets new images."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.datasets import open_dataset
from featx.errors import WeightsError
from featx.extraction.compute import compute_block
from featx.extraction.ensure import decoders, ensure_rows
from featx.extraction.lookup import look_up, open_store
from featx.extraction.options import Options
from featx.extraction.publish import reasons_for_missing
from featx.extraction.resolve import resolve
from featx.images import DecodePool, prepare
from featx.probe import compare, measure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from featx.datasets import Dataset
    from featx.recipe import Recipe, Request


def resolved_recipes(request: Request, *, cache: str | Path | None = None) -> list[Recipe]:
    """Return what `request` comes to, one recipe a layer."""
    return resolve(request, open_store(cache)).recipes


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


def compute_rows(
    request: Request,
    recipe: Recipe,
    dataset: Dataset,
    *,
    probe: Mapping[str, np.ndarray] | None = None,
    **how: Any,
) -> tuple[np.ndarray, dict[int, str]]:
    """Return a row for each image of `dataset`, computed here and kept nowhere.

    Parameters
    ----------
    request : Request
        How to get the backbone.
    recipe : Recipe
        What it must come to: a backbone with other weights is refused.
    dataset : Dataset
        Images.
    probe : mapping, optional
        What this machine must compute for the probe images, as stored with the model.
    **how
        Fields of `Options`: engine, device, batch_size, workers.

    Returns
    -------
    rows, reasons
        As of `cached_rows`.

    Raises
    ------
    WeightsError
        If the backbone is not the one that `recipe` names.
    ProbeError
        If this machine computes other features than `probe`.
    """
    from featx import backbones
    from featx.engines import open_engine

    options = Options(**how)
    backbone, recipes = backbones.resolve(request)
    own = _the_same(recipe, recipes, request)
    engine = open_engine(
        backbone,
        [own],
        engine=options.engine,
        device=options.device,
        batch_size=options.batch_size,
        n_images=len(dataset),
    )
    if probe is not None:
        (measured,) = measure(prepare, engine, own.frame)
        compare(probe, measured, own.precision)
    n = len(dataset)
    with DecodePool(own.frame, n_workers=decoders(options, n)) as pool:
        block = compute_block(pool.map(dataset.iterate(np.arange(n))), engine, [own], n)
    rows = np.full((n, *own.shape), np.nan, dtype=own.dtype)
    rows[block.indices] = block.rows[0]
    return rows, {index: str(error) for index, error in block.failures.items()}


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
