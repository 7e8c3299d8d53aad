"""Segments: how large they are, and how one is read, computed and committed, by whichever process claims it.

One stream of batches runs through all segments (`compute_segments`), so the network never waits for a segment's end:
the next one's images are decoded, and its first batches begun, while a thread commits the rows of the one before. Bad
images and bad rows are listed.
"""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING

import numpy as np

from featx.augment import Augmentation, seed_of
from featx.errors import ImageError
from featx.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from featx.datasets import Dataset
    from featx.engines import Engine
    from featx.engines.engine import Running
    from featx.extraction.plan import Plan, Segment
    from featx.images import DecodePool, Slab, Unread
    from featx.progress import OnProgress
    from featx.recipe import Recipe, View

#: A killed run loses at most the segment in hand: this many bytes of features, or this many seconds of work.
SEGMENT_BYTES = 64 << 20
SEGMENT_SECONDS = 30.0
#: Where several workers share the images, each gets at least so many segments: the fast ones take more.
SEGMENTS_PER_WORKER = 16
#: How often to look again for segments that another process claimed, in seconds.
POLL_SECONDS = 0.5


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
    """Work through all segments that nobody else holds or has done, and return those that somebody holds."""
    held: list[Segment] = []
    claimed: deque[tuple[str, str]] = deque()

    def unclaimed() -> Iterator[Segment]:
        for segment in segments:
            claim = segment.recipes[0].key, plan.store.segment_name(plan.item_ids[segment.positions])
            if plan.is_done(segment):
                report(len(segment))
            elif not plan.store.claim(*claim):
                held.append(segment)
            elif plan.is_done(segment):  # whoever held it finished between the two questions
                plan.store.release(*claim)
                report(len(segment))
            else:
                claimed.append(claim)
                yield segment

    def wait_for(commit: Future[None]) -> None:
        commit.result()
        plan.store.release(*claimed.popleft())

    commits: deque[Future[None]] = deque()
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="featx-commit") as thread:
            for computed in compute_segments(plan.dataset, unclaimed(), engine, pool, plan.item_ids, report):
                if commits:  # no more than one, whose rows take memory
                    wait_for(commits.popleft())
                commits.append(thread.submit(commit, plan, computed))
                tally.computed += computed.n_images * len(computed.segment.views)
                tally.failures |= computed.failures
            while commits:
                wait_for(commits.popleft())
    finally:
        for claim in claimed:
            plan.store.release(*claim)
    return held


def commit(plan: Plan, computed: ComputedRows) -> None:
    """Keep the rows of a segment, and why others are missing; doing it twice does no harm."""
    for number, recipe in enumerate(computed.segment.recipes):
        positions, rows = computed.of(number)
        failed = computed.errors[number].items()
        errors = [(plan.item_ids[i].tobytes(), str(error)) for i, error in failed if not error.transient]
        plan.store.commit(recipe.key, plan.item_ids[positions], rows, errors=errors)


@dataclass(eq=False)
class ComputedRows:
    """What came of the n images of a segment: a row of each recipe, or why there is none.

    Attributes
    ----------
    segment : Segment
    rows : list of ndarray of shape (n, …)
        One array a recipe.
    good : ndarray of bool, shape (n_recipes, n)
        Which rows there are; the others hold no numbers of any meaning.
    errors : list of dict of int to ImageError
        Why rows are missing, by position; one a recipe.
    """

    segment: Segment
    rows: list[np.ndarray]
    good: np.ndarray
    errors: list[dict[int, ImageError]]

    @classmethod
    def empty(cls, segment: Segment) -> ComputedRows:
        """Return the same without any row yet."""
        n, recipes = len(segment), segment.recipes
        rows = [np.empty((n, *recipe.shape), dtype=recipe.dtype) for recipe in recipes]
        return cls(segment, rows, np.zeros((len(recipes), n), dtype=bool), [{} for _ in recipes])

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
        good, positions = self.good[number], self.segment.positions
        if good.all():  # without a copy of what may be a large array
            return positions, self.rows[number]
        return positions[good], self.rows[number][good]


def compute_segments(
    dataset: Dataset,
    segments: Iterable[Segment],
    engine: Engine,
    pool: DecodePool,
    item_ids: np.ndarray | None = None,
    on_batch: Callable[[int, float], None] | None = None,
) -> Iterator[ComputedRows]:
    """Run the images of segments through the network; yield the rows of each when its last batch has come.

    A bad image leaves its place in the batch black instead of moving its neighbours up: the shape and
    the contents of every other batch are then the same whether or not it could be read, so a resumed
    run equals an uninterrupted one bit for bit.

    Parameters
    ----------
    dataset : Dataset
    segments : iterable of Segment
        Asked for as far ahead as images are decoded.
    engine : Engine
        Gives one array of rows a layer.
    pool : DecodePool
    item_ids : ndarray of uint8, shape (n_dataset, 32), optional
        Content hashes that the dataset's images must still have.
    on_batch : callable, optional
        Called after each batch with its number of images, and the seconds that the engine had nothing to do for want
        of them.
    """
    begun, under_way = deque[tuple[ComputedRows, int]](), deque[_Batch]()

    def batches() -> Iterator[Iterator[tuple[int, Unread | ImageError]]]:
        for segment in segments:
            computed, images = ComputedRows.empty(segment), dataset.unread(segment.positions)
            for start in range(0, len(segment), engine.batch_size):
                begun.append((computed, start))
                yield islice(images, engine.batch_size)

    slabs = pool.batches(batches(), engine.batch_size, dataset.ids, held=engine.n_under_way, around=engine.pinned)
    try:
        while True:
            started = time.perf_counter()
            slab = next(slabs, None)
            if slab is not None:
                idle_since = max(started, under_way[-1].ended() if under_way else started)
                waited = max(0.0, time.perf_counter() - idle_since)
                if item_ids is not None:
                    _refuse_changed(slab, item_ids)
                under_way.append(_Batch(slab, *begun.popleft(), engine, waited))
            elif not under_way:
                return
            if slab is None or len(under_way) == engine.n_under_way:
                batch = under_way[0]
                batch.write()
                under_way.popleft()  # not before: whoever interrupts the waiting is not to wait for the rest of it
                pool.release(batch.slab)
                if on_batch is not None:
                    on_batch(batch.n, batch.waited)
                if batch.is_last:
                    yield batch.computed
    finally:
        for batch in under_way:
            batch.cancel()
        slabs.close()


def _refuse_changed(slab: Slab, item_ids: np.ndarray) -> None:
    """Have no row of an image that is another than the one whose hash was planned with."""
    known = slab.item_ids.any(axis=1)
    changed = known & (slab.item_ids != item_ids[slab.indices]).any(axis=1)
    for place in np.flatnonzero(changed).tolist():
        error = ImageError("changed while featx was reading it; run the command again", transient=True)
        slab.fail(place, error)


class _Batch:
    """A batch that the engine has begun, the images of `computed` from `start` on.

    `waited` are the seconds that the engine had nothing to do before.
    """

    def __init__(self, slab: Slab, computed: ComputedRows, start: int, engine: Engine, waited: float) -> None:
        self.slab, self.computed, self.n, self.waited = slab, computed, slab.n, waited
        self._places = slice(start, start + self.n)
        self.is_last = self._places.stop == len(computed.segment)
        self._good = np.ones(self.n, dtype=bool)
        self._good[list(slab.errors)] = False
        for errors in computed.errors:
            errors.update((slab.indices[place], error) for place, error in slab.errors.items())
        views = computed.segment.views if self._good.any() else []
        self._views: list[Running] = [engine.start(_seen(view, slab)) for view in views]

    def ended(self) -> float:
        """Return when the engine was done with it, by `time.perf_counter`; infinity as long as it is not."""
        return max((view.ended() for view in self._views), default=0.0)

    def cancel(self) -> None:
        """Leave undone what the engine has not begun."""
        for view in self._views:
            view.cancel()

    def write(self) -> None:
        """Wait for the rows, and write them to their places."""
        computed = self.computed
        outputs = chain.from_iterable(view.result() for view in self._views)
        for number, output in enumerate(outputs):
            finite = np.isfinite(output).reshape(len(output), -1).all(axis=1)
            computed.rows[number][self._places] = output
            computed.good[number, self._places] = self._good & finite
            recipe = computed.segment.recipes[number]
            for place in np.flatnonzero(self._good & ~finite).tolist():
                computed.errors[number][self.slab.indices[place]] = ImageError(
                    f"its features are not finite, computed in {recipe.precision} and kept in {recipe.dtype}"
                )


def _seen(view: View | None, slab: Slab) -> np.ndarray:
    """Return images (m, h, w, 3) as a view shows them: what is drawn depends on their content alone."""
    if view is None:
        return slab.pixels
    seeds = [seed_of(item_id.tobytes(), view.number, view.seed) for item_id in slab.item_ids]
    return Augmentation.parse(view.augment).apply(slab.pixels, np.array(seeds))
