"""Segments: how large they are, and how one is read, computed and committed, by whichever process claims it."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from featx.datasets import item_id
from featx.errors import ImageError
from featx.extraction.compute import ComputedRows, Pixels, compute_rows
from featx.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from featx.engines import Engine
    from featx.extraction.plan import Plan, Segment
    from featx.images import DecodePool
    from featx.progress import OnProgress
    from featx.recipe import Recipe

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

    pixels = pool.map(feed())
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
