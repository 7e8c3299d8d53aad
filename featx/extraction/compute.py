"""Images through the network: batches of a fixed shape, bad images and bad rows listed, nothing stored."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from featx.augment import Augmentation, seed_of
from featx.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from featx.engines import Engine
    from featx.recipe import Recipe, View

#: A row's position in its dataset, and its pixels (h, w, 3) or why there are none.
Pixels = tuple[int, np.ndarray | ImageError]


@dataclass(frozen=True)
class Forward:
    """What becomes of a batch of pixels: an array of rows for each of some recipes.

    Attributes
    ----------
    engine : Engine
        Gives one array a layer.
    recipes : list of Recipe
        All layers of one view, then all of another, …
    item_ids : ndarray of uint8, shape (n, 32)
        Content hashes of the dataset's rows, from which augmented views are drawn.
    """

    engine: Engine
    recipes: Sequence[Recipe]
    item_ids: np.ndarray

    @property
    def views(self) -> list[View | None]:
        """The views, in order; None for the image as it is."""
        return views_of(self.recipes)

    def run(self, pixels: np.ndarray, indices: Sequence[int]) -> list[np.ndarray]:
        """Return the rows of images `pixels` (m, h, w, 3) that are rows `indices` of the dataset."""
        return [rows for view in self.views for rows in self.engine.run(self._seen(view, pixels, indices))]

    def _seen(self, view: View | None, pixels: np.ndarray, indices: Sequence[int]) -> np.ndarray:
        if view is None:
            return pixels
        seeds = [seed_of(self.item_ids[i].tobytes(), view.number, view.seed) for i in indices]
        return Augmentation.parse(view.augment).apply(pixels, np.array(seeds))


def views_of(recipes: Sequence[Recipe]) -> list[View | None]:
    """Return the views that `recipes` are of, in order; None for the image as it is."""
    return list(dict.fromkeys(recipe.view for recipe in recipes))


@dataclass
class Block:
    """Rows computed in one go.

    Attributes
    ----------
    indices : list of int, length n
        Positions in the dataset of the rows that came out well.
    rows : list of ndarray, each of shape (n, …)
        One array a recipe.
    failures : dict of int to ImageError
        Rows that did not, by position.
    """

    indices: list[int]
    rows: list[np.ndarray]
    failures: dict[int, ImageError]


def compute_block(
    pixels: Iterator[Pixels],
    forward: Forward,
    n_items: int,
    on_batch: Callable[[int, float], None] | None = None,
) -> Block:
    """Run the next `n_items` of `pixels` through `forward`.

    `on_batch` is called after each batch with its number of images and the seconds spent waiting for them.

    A bad image leaves its place in the batch black instead of moving its neighbours up: the shape and
    the contents of every other batch are then the same whether or not it could be read, so a resumed
    run equals an uninterrupted one bit for bit.
    """
    block = Block([], [np.empty((n_items, *r.shape), dtype=r.dtype) for r in forward.recipes], {})
    pixels = islice(pixels, n_items)
    while True:
        started = time.perf_counter()
        batch = list(islice(pixels, forward.engine.batch_size))
        waited = time.perf_counter() - started
        if not batch:
            break
        _run_batch(batch, forward, block)
        if on_batch is not None:
            on_batch(len(batch), waited)
    block.rows = [rows[: len(block.indices)] for rows in block.rows]
    return block


def _run_batch(batch: list[Pixels], forward: Forward, block: Block) -> None:
    frame = forward.recipes[0].frame
    stack = np.zeros((len(batch), frame.height, frame.width, 3), dtype=np.uint8)
    good = np.zeros(len(batch), dtype=bool)
    for place, (index, image) in enumerate(batch):
        if isinstance(image, ImageError):
            block.failures[index] = image
        else:
            stack[place] = image
            good[place] = True
    if not good.any():
        return
    outputs = forward.run(stack, [index for index, _ in batch])
    finite = np.logical_and.reduce([np.isfinite(x).reshape(len(batch), -1).all(axis=1) for x in outputs])
    for place in np.flatnonzero(good & ~finite).tolist():
        block.failures[batch[place][0]] = ImageError(f"its features are not finite in {forward.recipes[0].precision}")
    kept = np.flatnonzero(good & finite).tolist()
    start = len(block.indices)
    block.indices += [batch[place][0] for place in kept]
    for rows, output in zip(block.rows, outputs, strict=True):
        rows[start : start + len(kept)] = output[kept]
