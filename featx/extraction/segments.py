"""Segments: how large they are, and how one is read, computed and committed, by whichever process claims it.

Images go through the network in batches of a fixed shape (`compute_rows`); bad images and bad rows are listed.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.augment import Augmentation, seed_of
from featx.datasets import item_id
from featx.errors import ImageError
from featx.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from featx.engines import Engine
    from featx.engines.engine import Running
    from featx.extraction.plan import Plan, Segment
    from featx.images import DecodePool
    from featx.progress import OnProgress
    from featx.recipe import Recipe, View

#: A killed run loses at most the segment in hand: this many bytes of features, or this many seconds of work.
SEGMENT_BYTES = 64 << 20
SEGMENT_SECONDS = 30.0
#: Where several workers share the images, each gets at least so many segments: the fast ones take more.
SEGMENTS_PER_WORKER = 16
#: How often to look again for segments that another process claimed, in seconds.
POLL_SECONDS = 0.5
#: Batches that are begun before the first of them is waited for: between two, the engine would have nothing to do.
_UNDER_WAY = 2
#: A row's position in its dataset, and its pixels (h, w, 3) or why there are none.
Pixels = tuple[int, np.ndarray | ImageError]


@dataclass
class Tally:
    """What has been computed, by what, and how long it took.

    Attributes
    ----------
    computed : int
        Images that gave features, each augmented view for one.
    failures : dict of int to ImageError
        Images that did not, by position.
    waiting, seconds : float
        Of the `seconds` from the first image on, those in which the network waited for pixels.
    engine, device : str
        The engine, and ``cpu`` or the name of the GPU; ``none`` where nothing had to be computed.
    batch_size : int or None
    """

    computed: int = 0
    failures: dict[int, ImageError] = field(default_factory=dict)
    waiting: float = 0.0
    seconds: float = 0.0
    engine: str = "none"
    device: str = "none"
    batch_size: int | None = None

    def add(self, other: Tally) -> None:
        """Take in what more work took."""
        self.computed += other.computed
        self.failures |= other.failures
        self.waiting += other.waiting
        self.seconds += other.seconds
        self.engine, self.device, self.batch_size = other.engine, other.device, other.batch_size


def segment_rows(recipes: Sequence[Recipe], batch_size: int, batch_seconds: float, share: int | None = None) -> int:
    """Return how many images make a segment: a multiple of the batch within the promised loss.

    Parameters
    ----------
    recipes : sequence of Recipe
        Rows of all of them are in a segment.
    batch_size : int
    batch_seconds : float
    share : int, optional
        Images that each of several workers gets: cut so that none waits long for the last one.

    Examples
    --------
    >>> segment_rows([], batch_size=32, batch_seconds=1.0)
    960
    >>> segment_rows([], batch_size=32, batch_seconds=1.0, share=600)
    32
    """
    by_time = int(SEGMENT_SECONDS / max(batch_seconds, 1e-6)) * batch_size
    by_size = SEGMENT_BYTES // max(1, sum(recipe.row_bytes for recipe in recipes))
    by_share = by_size if share is None else share // SEGMENTS_PER_WORKER
    return max(1, min(by_time, by_size, by_share) // batch_size) * batch_size


def run_segments(
    plan: Plan, segments: list[Segment], engine: Engine, pool: DecodePool, on_progress: OnProgress | None = None
) -> Tally:
    """Compute and commit `segments`, which were cut from one, in their order.

    Segments that another process has claimed are left to it, and taken over when its claim expires without a commit:
    claims save work, the commit protocol alone keeps the result right.

    Parameters
    ----------
    plan : Plan
    segments : list of Segment
    engine : Engine
        Computes all layers of their recipes.
    pool : DecodePool
    on_progress : callable, optional
        Called with a `Progress` after each batch.
    """
    tally, started, n_done, total = Tally(), time.perf_counter(), 0, sum(map(len, segments))

    def report(n: int, waiting: float = 0.0) -> None:
        nonlocal n_done
        n_done += n
        tally.waiting += waiting
        if on_progress is not None:
            on_progress(Progress(step, n_done, total, time.perf_counter() - started, tally.waiting))

    step = segments[0].step if segments else ""
    while segments:
        held = _run_unclaimed(plan, segments, engine, pool, tally, report)
        segments = [segment for segment in held if not plan.is_done(segment)]
        if len(segments) == len(held) and segments:
            time.sleep(POLL_SECONDS)
    tally.seconds = time.perf_counter() - started
    return tally


def _run_unclaimed(
    plan: Plan,
    segments: list[Segment],
    engine: Engine,
    pool: DecodePool,
    tally: Tally,
    report: Callable[..., None],
) -> list[Segment]:
    """Work through all segments that nobody else holds or has done, and return those that somebody holds.

    One stream of images runs through all of them, so that decoding never pauses while a segment is committed.
    """
    held: list[Segment] = []
    begun: deque[tuple[Segment, str]] = deque()

    def feed() -> Iterator[tuple[int, Any]]:
        for segment in segments:
            key, name = segment.recipes[0].key, plan.store.segment_name(plan.item_ids[segment.positions])
            if plan.is_done(segment):
                report(len(segment))
            elif not plan.store.claim(key, name):
                held.append(segment)
            elif plan.is_done(segment):  # whoever held it finished between the two questions
                plan.store.release(key, name)
                report(len(segment))
            else:
                begun.append((segment, name))
                yield from read_segment(plan, segment)

    pixels = pool.map(feed(), plan.dataset.ids)
    try:
        while (first := next(pixels, None)) is not None:
            segment, name = begun[0]
            computed = commit_segment(plan, segment, chain([first], pixels), engine, report)
            tally.computed += computed.n_images * len(segment.views)
            tally.failures |= computed.failures
            plan.store.release(segment.recipes[0].key, name)
            begun.popleft()
    finally:
        for segment, name in begun:
            plan.store.release(segment.recipes[0].key, name)
    return held


def read_segment(plan: Plan, segment: Segment) -> Iterator[tuple[int, Any]]:
    """Read the bytes of a segment's images, and hold them against the hashes they were planned under."""
    for position, data in plan.dataset.iterate(segment.positions):
        if not isinstance(data, ImageError) and item_id(data) != plan.item_ids[position].tobytes():
            yield position, ImageError("changed while featx was reading it; run the command again", transient=True)
        else:
            yield position, data


def commit_segment(
    plan: Plan,
    segment: Segment,
    pixels: Iterator[Pixels],
    engine: Engine,
    on_batch: Callable[[int, float], None] | None = None,
) -> ComputedRows:
    """Compute the images of one segment and commit their rows; doing it twice does no harm.

    Parameters
    ----------
    plan : Plan
        Where rows go, and the content hashes under which they are kept.
    segment : Segment
    pixels : iterator
        Yields the pixels of exactly the segment's images, in order.
    engine : Engine
    on_batch : callable, optional
        As in `compute_rows`.
    """
    computed = compute_rows(pixels, len(segment), engine, segment.recipes, plan.item_ids, on_batch)
    for number, recipe in enumerate(segment.recipes):
        positions, rows = computed.of(number)
        failed = computed.errors[number].items()
        errors = [(plan.item_ids[i].tobytes(), str(error)) for i, error in failed if not error.transient]
        plan.store.commit(recipe.key, plan.item_ids[positions], rows, errors=errors)
    return computed


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
