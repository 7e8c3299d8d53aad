"""What the cache already holds of a dataset: the first half of every run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featx.extraction.fill import Progress
from featx.extraction.identify import Identity, identify
from featx.extraction.resolve import Resolved, resolve
from featx.store import Store

if TYPE_CHECKING:
    from featx.datasets import Dataset
    from featx.extraction.fill import Tick
    from featx.extraction.options import Options
    from featx.recipe import Recipe, Request


def open_store(cache: str | Path | None = None) -> Store:
    """Open the cache folder: `cache`, else ``FEATX_CACHE``, else ``./cache``."""
    return Store(Path(cache or os.environ.get("FEATX_CACHE") or "cache"))


@dataclass
class Lookup:
    """A dataset with its content hashes, what the request for it came to, and the cache to look in."""

    dataset: Dataset
    identity: Identity
    resolved: Resolved
    store: Store

    @property
    def recipes(self) -> list[Recipe]:
        """One recipe a layer."""
        return self.resolved.recipes

    def found(self, recipe: Recipe) -> np.ndarray:
        """Rows that the cache holds, bool of shape (n,)."""
        found: np.ndarray = self.store.find(recipe.key, self.identity.item_ids) & self.identity.readable
        return found

    def refused(self, recipe: Recipe) -> dict[int, str]:
        """Rows that are known to be no images, with the reason."""
        return self.store.known_errors(recipe.key, self.identity.item_ids)

    def missing(self) -> np.ndarray:
        """Positions of rows that some layer lacks, ascending, one for each distinct image."""
        wanted = np.zeros(len(self.identity.item_ids), dtype=bool)
        for recipe in self.recipes:
            lacking = ~self.found(recipe)
            lacking[list(self.refused(recipe))] = False
            wanted |= lacking
        positions = np.flatnonzero(wanted & self.identity.readable)
        _, first = np.unique(self.identity.item_ids[positions], axis=0, return_index=True)
        return positions[np.sort(first)]


def look_up(dataset: Dataset, request: Request, store: Store, options: Options, tick: Tick | None = None) -> Lookup:
    """Identify the images of `dataset` and resolve `request`, so that the cache can be asked for rows."""
    resolved = resolve(request, store)

    def hashed(done: int, total: int, seconds: float) -> None:
        if tick is not None:
            tick(Progress("hash", done, total, seconds))

    identity = identify(dataset, store, rehash=options.rehash, tick=hashed)
    return Lookup(dataset, identity, resolved, store)
