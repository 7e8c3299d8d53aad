"""Images through the network: batches of a fixed shape, bad images and bad rows listed, nothing stored."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
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


@dataclass(eq=False)
class ComputedRows:
    """What came of n images: a row of each recipe, or why there is none.

    Attributes
    ----------
    recipes : sequence of Recipe
        All layers of one view, then all of another, …
    positions : ndarray of int, shape (n,)
        Of the images in their dataset.
    rows : list of ndarray of shape (n, …)
        One array a recipe.
    good : ndarray of bool, shape (n_recipes, n)
        Which rows there are; the others hold no numbers of any meaning.
    errors : list of dict of int to ImageError
        Why rows are missing, by position; one a recipe.
    """

    recipes: Sequence[Recipe]
    positions: np.ndarray
    rows: list[np.ndarray]
    good: np.ndarray
    errors: list[dict[int, ImageError]]

    @classmethod
    def empty(cls, recipes: Sequence[Recipe], n: int) -> ComputedRows:
        """Return the same without any row yet."""
        rows = [np.empty((n, *recipe.shape), dtype=recipe.dtype) for recipe in recipes]
        good = np.zeros((len(recipes), n), dtype=bool)
        return cls(recipes, np.empty(n, dtype=np.intp), rows, good, [{} for _ in recipes])

    @property
    def n_images(self) -> int:
        """Images that gave a row of any recipe."""
        return int(self.good.any(axis=0).sum())

    @property
    def failures(self) -> dict[int, ImageError]:
        """Images that lack a row of any recipe, and why."""
        return dict(chain.from_iterable(errors.items() for errors in self.errors))

    def of(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions (m,) and rows (m, …) that there are of one recipe."""
        good = self.good[number]
        if good.all():  # without a copy of what may be a large array
            return self.positions, self.rows[number]
        return self.positions[good], self.rows[number][good]


def compute_rows(
    pixels: Iterator[Pixels],
    n: int,
    engine: Engine,
    recipes: Sequence[Recipe],
    item_ids: np.ndarray,
    on_batch: Callable[[int, float], None] | None = None,
) -> ComputedRows:
    """Run the next `n` of `pixels` through the network.

    A bad image leaves its place in the batch black instead of moving its neighbours up: the shape and
    the contents of every other batch are then the same whether or not it could be read, so a resumed
    run equals an uninterrupted one bit for bit.

    Parameters
    ----------
    pixels : iterator of (int, ndarray or ImageError)
        Position in the dataset, and uint8 pixels (h, w, 3).
    n : int
    engine : Engine
        Gives one array of rows a layer.
    recipes : sequence of Recipe
        All layers of one view, then all of another, …
    item_ids : ndarray of uint8, shape (n_dataset, 32)
        Content hashes of the dataset's images, from which augmented views are drawn. Looked at when an image has come.
    on_batch : callable, optional
        Called after each batch with its number of images, and the seconds that the engine had nothing to do for want
        of them.
    """
    computed, pixels, n_begun = ComputedRows.empty(recipes, n), islice(pixels, n), 0
    under_way = deque[_Batch]()

    def finish() -> None:
        batch = under_way[0]
        batch.write(computed)
        under_way.popleft()  # not before: whoever interrupts the waiting is not to wait for the rest of it
        if on_batch is not None:
            on_batch(batch.n, batch.waited)

    try:
        while True:
            started = time.perf_counter()
            images = list(islice(pixels, engine.batch_size))
            if not images:
                break
            idle_since = max(started, under_way[-1].ended() if under_way else started)
            waited = max(0.0, time.perf_counter() - idle_since)
            under_way.append(_Batch(images, n_begun, engine, computed, item_ids, waited))
            n_begun += len(images)
            if len(under_way) == _UNDER_WAY:
                finish()
        while under_way:
            finish()
    finally:
        for batch in under_way:
            batch.cancel()
    return computed


class _Batch:
    """A batch that the engine has begun, the images of `computed` from `start` on.

    `waited` are the seconds that the engine had nothing to do before.
    """

    def __init__(
        self,
        images: list[Pixels],
        start: int,
        engine: Engine,
        computed: ComputedRows,
        item_ids: np.ndarray,
        waited: float,
    ) -> None:
        frame = computed.recipes[0].frame
        stack = np.zeros((len(images), frame.height, frame.width, 3), dtype=np.uint8)
        self.n, self.waited, self._start = len(images), waited, start
        self._good = np.zeros(len(images), dtype=bool)
        for place, (position, image) in enumerate(images):
            computed.positions[start + place] = position
            if isinstance(image, ImageError):
                for errors in computed.errors:
                    errors[position] = image
            else:
                stack[place] = image
                self._good[place] = True
        views = dict.fromkeys(recipe.view for recipe in computed.recipes) if self._good.any() else {}
        item_ids = item_ids[computed.positions[start : start + self.n]]
        self._views: list[Running] = [engine.start(_seen(view, stack, item_ids)) for view in views]

    def ended(self) -> float:
        """Return when the engine was done with it, by `time.perf_counter`; infinity as long as it is not."""
        return max((view.ended() for view in self._views), default=0.0)

    def cancel(self) -> None:
        """Leave undone what the engine has not begun."""
        for view in self._views:
            view.cancel()

    def write(self, computed: ComputedRows) -> None:
        """Wait for the rows, and write them to their places."""
        places = slice(self._start, self._start + self.n)
        outputs = chain.from_iterable(view.result() for view in self._views)
        for number, output in enumerate(outputs):
            finite = np.isfinite(output).reshape(len(output), -1).all(axis=1)
            computed.rows[number][places] = output
            computed.good[number, places] = self._good & finite
            recipe = computed.recipes[number]
            for place in np.flatnonzero(self._good & ~finite).tolist():
                computed.errors[number][int(computed.positions[self._start + place])] = ImageError(
                    f"its features are not finite, computed in {recipe.precision} and kept in {recipe.dtype}"
                )


def _seen(view: View | None, pixels: np.ndarray, item_ids: np.ndarray) -> np.ndarray:
    """Return images (m, h, w, 3) as a view shows them: what is drawn depends on their content alone."""
    if view is None:
        return pixels
    seeds = [seed_of(item_id.tobytes(), view.number, view.seed) for item_id in item_ids]
    return Augmentation.parse(view.augment).apply(pixels, np.array(seeds))
