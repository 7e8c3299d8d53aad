"""Images through the network: batches of a fixed shape, bad images and bad rows listed, nothing stored."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
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
    n_images : int
        That gave a row of any recipe.
    failures : dict of int to ImageError
        Images that could not be read, by position in the dataset.
    parts : list of RecipeRows
        One a recipe.
    """

    parts: list[RecipeRows]
    n_images: int = 0
    failures: dict[int, ImageError] = field(default_factory=dict)

    def failures_of(self, part: RecipeRows) -> dict[int, ImageError]:
        """Return why images have no row in `part`, by position."""
        return self.failures | part.failures


@dataclass
class RecipeRows:
    """Rows of one recipe.

    Attributes
    ----------
    indices : list of int, length n
        Positions in the dataset of the rows that came out well.
    rows : ndarray of shape (n, …)
    failures : dict of int to ImageError
        Rows that did not, by position.
    """

    rows: np.ndarray
    indices: list[int] = field(default_factory=list)
    failures: dict[int, ImageError] = field(default_factory=dict)


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
    block = Block([RecipeRows(np.empty((n_items, *r.shape), dtype=r.dtype)) for r in forward.recipes])
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
    for part in block.parts:
        part.rows = part.rows[: len(part.indices)]
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
    indices, gave = [index for index, _ in batch], np.zeros(len(batch), dtype=bool)
    for recipe, part, output in zip(forward.recipes, block.parts, forward.run(stack, indices), strict=True):
        finite = np.isfinite(output).reshape(len(batch), -1).all(axis=1)
        kept, start = np.flatnonzero(good & finite).tolist(), len(part.indices)
        part.rows[start : start + len(kept)] = output[kept]
        part.indices += [indices[place] for place in kept]
        gave |= good & finite
        for place in np.flatnonzero(good & ~finite).tolist():
            part.failures[indices[place]] = ImageError(
                f"its features are not finite, computed in {recipe.precision} and kept in {recipe.dtype}"
            )
    block.n_images += int(gave.sum())
