"""What the cache already holds of a dataset: the first half of every run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featx.extraction.compute import views_of
from featx.extraction.identify import Identity, identify
from featx.extraction.resolve import Resolved, resolve
from featx.files.sizes import parse_bytes
from featx.progress import Progress
from featx.store import LIMIT, Store
from featx.store.catalog import first_of_each

if TYPE_CHECKING:
    from featx.datasets import Dataset
    from featx.extraction.options import Options
    from featx.progress import OnProgress
    from featx.recipe import Recipe, Request, Views


def open_store(cache: str | Path | None = None) -> Store:
    """Open the cache folder: `cache`, else ``FEATX_CACHE``, else ``./cache``.

    Tables larger than ``FEATX_TABLE_LIMIT`` (as ``64GiB``; 4 GiB without it) stay in segments.
    """
    limit = os.environ.get("FEATX_TABLE_LIMIT")
    return Store(Path(cache or os.environ.get("FEATX_CACHE") or "cache"), limit=parse_bytes(limit) if limit else LIMIT)


@dataclass(frozen=True)
class Part:
    """Work that is alike: `positions` of distinct images, ascending, that lack rows of the same `recipes`."""

    recipes: list[Recipe]
    positions: np.ndarray

    @property
    def n_views(self) -> int:
        """How often the network sees each image."""
        return len(views_of(self.recipes))

    @property
    def n_rows(self) -> int:
        """Forward passes, and rows of each layer."""
        return len(self.positions) * self.n_views


@dataclass
class Lookup:
    """A dataset with its content hashes, what the request for it came to, and the cache to look in.

    With `blind` it finds nothing there, as after a refresh.
    """

    dataset: Dataset
    identity: Identity
    resolved: Resolved
    store: Store
    views: Views | None = None
    blind: bool = False

    @property
    def recipes(self) -> list[Recipe]:
        """One recipe a layer."""
        return self.resolved.recipes

    def found(self, recipe: Recipe) -> np.ndarray:
        """Rows that the cache holds, bool of shape (n,)."""
        if self.blind:
            return np.zeros(len(self.identity.item_ids), dtype=bool)
        found: np.ndarray = self.store.find(recipe.key, self.identity.item_ids) & self.identity.readable
        return found

    def refused(self, recipe: Recipe) -> dict[int, str]:
        """Rows that are known to be no images, with the reason."""
        return {} if self.blind else self.store.known_errors(recipe.key, self.identity.item_ids)

    @property
    def viewed(self) -> np.ndarray:
        """Rows of which augmented views are made, bool of shape (n,): nothing but training looks at them.

        These are the rows of split ``train`` or, where no row is, those in no split.
        """
        splits = self.dataset.split_by(self.identity.item_ids)
        train = splits == "train"
        viewed: np.ndarray = train if train.any() else splits == ""
        return viewed

    def splits(self, recipe: Recipe) -> np.ndarray:
        """Split of each row, shape (n,); validation rows still to be drawn are drawn from those with features."""
        return self.dataset.split_by(self.identity.item_ids, self.found(recipe.plain))

    @property
    def n_rows(self) -> int:
        """Rows of all tables of one layer."""
        n = len(self.identity.item_ids)
        return n if self.views is None else n + (self.views.n - 1) * int(self.viewed.sum())

    def parts(self) -> Iterator[Part]:
        """Yield what is missing: the images as they are, then augmented views, each as the cache is at that moment."""
        lacking = self._lacking(self.recipes)
        if lacking.any():
            yield Part(self.recipes, self._distinct(lacking))
        if self.views is not None:
            yield from self._view_parts(self.views)

    def _view_parts(self, views: Views) -> Iterator[Part]:
        """Yield what is missing of augmented views: together the images that lack the same ones."""
        of_views = {number: [views.recipe(recipe, number) for recipe in self.recipes] for number in views.numbers}
        wanted = self.viewed
        for recipe in self.recipes:
            wanted[list(self.refused(recipe))] = False
        lacking = np.stack([self._lacking(recipes) & wanted for recipes in of_views.values()])
        for pattern in np.unique(lacking, axis=1).T:
            if pattern.any():
                chosen = [recipe for number in views.numbers if pattern[number - 1] for recipe in of_views[number]]
                yield Part(chosen, self._distinct((lacking == pattern[:, None]).all(axis=0)))

    def _lacking(self, recipes: Sequence[Recipe]) -> np.ndarray:
        """Say which images lack a row of some of `recipes` and may have one, bool of shape (n,)."""
        wanted: np.ndarray = np.zeros(len(self.identity.item_ids), dtype=bool)
        for recipe in recipes:
            lacking = ~self.found(recipe) & self.identity.readable
            lacking[list(self.refused(recipe))] = False
            wanted |= lacking
        return wanted

    def _distinct(self, chosen: np.ndarray) -> np.ndarray:
        """Return the positions that `chosen` (bool, (n,)) names, one for each distinct image."""
        return first_of_each(self.identity.item_ids, np.flatnonzero(chosen))


def look_up(
    dataset: Dataset,
    request: Request,
    store: Store,
    options: Options,
    on_progress: OnProgress | None = None,
    views: Views | None = None,
) -> Lookup:
    """Identify the images of `dataset` and resolve `request`, so that the cache can be asked for rows."""
    resolved = resolve(request, store)

    def hashed(done: int, total: int, seconds: float) -> None:
        if on_progress is not None:
            on_progress(Progress("hash", done, total, seconds))

    identity = identify(dataset, store, rehash=options.rehash, on_progress=hashed)
    dataset.split_by(identity.item_ids)  # a share that cannot be drawn is refused before any work
    return Lookup(dataset, identity, resolved, store, views)
