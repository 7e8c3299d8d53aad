"""Images through the network: batches of a fixed shape, bad images and bad rows listed, nothing stored."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING

import numpy as np

from featx.augment import Augmentation, seed_of
from featx.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from featx.engines import Engine
    from featx.engines.engine import Running
    from featx.recipe import Recipe, View

#: Batches that are begun before the first of them is waited for: between two, the engine would have nothing to do.
_UNDER_WAY = 2
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

    def start(self, pixels: np.ndarray, indices: Sequence[int]) -> list[Running]:
        """Begin to compute images `pixels` (m, h, w, 3) that are rows `indices` of the dataset, view by view."""
        return [self.engine.start(self._seen(view, pixels, indices)) for view in self.views]

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

    `on_batch` is called after each batch with its number of images and the seconds that the engine had nothing to do
    for want of them.

    A bad image leaves its place in the batch black instead of moving its neighbours up: the shape and
    the contents of every other batch are then the same whether or not it could be read, so a resumed
    run equals an uninterrupted one bit for bit.
    """
    block = Block([RecipeRows(np.empty((n_items, *r.shape), dtype=r.dtype)) for r in forward.recipes])
    pixels, under_way = islice(pixels, n_items), deque[_Batch]()

    def finish() -> None:
        batch = under_way[0]
        batch.add_to(block, forward.recipes)
        under_way.popleft()  # not before: whoever interrupts the waiting is not to wait for the rest of it
        if on_batch is not None:
            on_batch(len(batch.indices), batch.waited)

    try:
        while True:
            started = time.perf_counter()
            images = list(islice(pixels, forward.engine.batch_size))
            if not images:
                break
            idle_since = max(started, under_way[-1].ended() if under_way else started)
            under_way.append(_Batch(images, forward, max(0.0, time.perf_counter() - idle_since)))
            if len(under_way) == _UNDER_WAY:
                finish()
        while under_way:
            finish()
    finally:
        for batch in under_way:
            batch.cancel()
    for part in block.parts:
        part.rows = part.rows[: len(part.indices)]
    return block


class _Batch:
    """A batch that the engine has begun.

    Parameters
    ----------
    images : list of Pixels
    forward : Forward
    waited : float
        Seconds that the engine had nothing to do before.
    """

    def __init__(self, images: list[Pixels], forward: Forward, waited: float) -> None:
        frame = forward.recipes[0].frame
        stack = np.zeros((len(images), frame.height, frame.width, 3), dtype=np.uint8)
        self.indices = [index for index, _ in images]
        self.waited = waited
        self._errors: dict[int, ImageError] = {}
        self._good = np.zeros(len(images), dtype=bool)
        for place, (index, image) in enumerate(images):
            if isinstance(image, ImageError):
                self._errors[index] = image
            else:
                stack[place] = image
                self._good[place] = True
        self._views = forward.start(stack, self.indices) if self._good.any() else []

    def ended(self) -> float:
        """Return when the engine was done with it, by `time.perf_counter`; infinity as long as it is not."""
        return max((view.ended() for view in self._views), default=0.0)

    def cancel(self) -> None:
        """Leave undone what the engine has not begun."""
        for view in self._views:
            view.cancel()

    def add_to(self, block: Block, recipes: Sequence[Recipe]) -> None:
        """Wait for the rows, and add them to `block`."""
        block.failures |= self._errors
        if not self._views:
            return
        outputs, gave = chain.from_iterable(view.result() for view in self._views), np.zeros(len(self._good), bool)
        for recipe, part, output in zip(recipes, block.parts, outputs, strict=True):
            finite = np.isfinite(output).reshape(len(output), -1).all(axis=1)
            kept, start = np.flatnonzero(self._good & finite).tolist(), len(part.indices)
            part.rows[start : start + len(kept)] = output[kept]
            part.indices += [self.indices[place] for place in kept]
            gave |= self._good & finite
            for place in np.flatnonzero(self._good & ~finite).tolist():
                part.failures[self.indices[place]] = ImageError(
                    f"its features are not finite, computed in {recipe.precision} and kept in {recipe.dtype}"
                )
        block.n_images += int(gave.sum())
