"""Compute the rows a cache lacks: cut them into segments, run them, commit each segment as it is done."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.datasets import item_id
from featx.errors import ImageError
from featx.extraction.compute import Block, Forward, Pixels, compute_block
from featx.progress import OnProgress, Progress

if TYPE_CHECKING:
    from featx.datasets import Dataset
    from featx.extraction.identify import Identity
    from featx.extraction.ranks import Rank
    from featx.images import DecodePool
    from featx.recipe import Recipe, View
    from featx.store import Store

#: A killed run loses at most the segment in hand: this many bytes of features, or this many seconds of work.
SEGMENT_BYTES = 64 << 20
SEGMENT_SECONDS = 30.0
#: Where several workers share the images, each gets at least so many segments: the fast ones take more.
SEGMENTS_PER_WORKER = 16
#: How often to look again for segments that another process claimed, in seconds.
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Job:
    """What `fill` works on: images of `dataset`, known by `identity`, of which `forward` makes rows for `store`."""

    dataset: Dataset
    identity: Identity
    store: Store
    forward: Forward

    @property
    def key(self) -> str:
        """The key under which segments are claimed: rows of all recipes are committed together."""
        return self.forward.recipes[0].key


@dataclass
class Filled:
    """What `fill` did: views computed, images that failed this time, by position, and seconds of waiting for pixels."""

    computed: int = 0
    failures: dict[int, ImageError] = field(default_factory=dict)
    waiting: float = 0.0


def segment_rows(recipes: list[Recipe], batch_size: int, batch_seconds: float, share: int | None = None) -> int:
    """Return how many images make a segment: a multiple of the batch within the promised loss.

    Parameters
    ----------
    recipes : list of Recipe
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


def cut(missing: np.ndarray, rows_per_segment: int) -> list[np.ndarray]:
    """Return the positions `missing` in segments."""
    cuts = range(rows_per_segment, len(missing), rows_per_segment)
    return np.split(missing, list(cuts)) if len(missing) else []


def fill(
    job: Job, pool: DecodePool, segments: list[np.ndarray], rank: Rank, on_progress: OnProgress | None = None
) -> Filled:
    """Compute and commit the rows of `segments` (ascending positions, one for each distinct image).

    Segments that another process has claimed are left to it, and taken over when its claim expires
    without a commit: claims save work, the commit protocol alone keeps the result right. So processes
    that were launched together begin with the share of their `rank`, and help out with the rest.
    """
    segments, n = rank.own_first(segments), sum(map(len, segments))
    filled, meter = Filled(), _Meter(step_name(job.forward.views), n, on_progress)
    while segments:
        left = _pass(job, pool, segments, filled, meter)
        segments = [segment for segment in left if not _is_done(job, segment)]
        if len(segments) == len(left) and segments:
            time.sleep(POLL_SECONDS)
    filled.waiting = meter.waiting
    return filled


def step_name(views: list[View | None]) -> str:
    """Return what `Progress` calls the work on `views`."""
    return "extract" if None in views else "views"


def extract_segment(
    job: Job, pixels: Iterator[Pixels], segment: np.ndarray, on_batch: Callable[[int, float], None] | None = None
) -> Block:
    """Compute the images of one segment and commit them; doing it twice does no harm.

    Parameters
    ----------
    job : Job
        Where images come from and rows go to.
    pixels : iterator
        Yields the pixels of exactly the segment's images, in order.
    segment : ndarray of int
        Positions in the dataset.
    """
    block = compute_block(pixels, job.forward, len(segment), on_batch)
    item_ids = job.identity.item_ids
    for recipe, part in zip(job.forward.recipes, block.parts, strict=True):
        failures = block.failures_of(part).items()
        errors = [(item_ids[i].tobytes(), str(error)) for i, error in failures if not error.transient]
        job.store.commit(recipe.key, item_ids[part.indices], part.rows, errors=errors)
    return block


def _pass(job: Job, pool: DecodePool, segments: list[np.ndarray], filled: Filled, meter: _Meter) -> list[np.ndarray]:
    """Work through all segments that nobody else holds or has done, and return those that somebody holds.

    One stream of images runs through all of them, so that decoding never pauses while a segment is committed.
    """
    key, held, started = job.key, [], deque[np.ndarray]()

    def feed() -> Iterator[tuple[int, Any]]:
        for segment in segments:
            if _is_done(job, segment):
                meter.add(len(segment), 0.0)
            elif not job.store.claim(key, _name(job, segment)):
                held.append(segment)
            elif _is_done(job, segment):  # whoever held it finished between the two questions
                job.store.release(key, _name(job, segment))
                meter.add(len(segment), 0.0)
            else:
                started.append(segment)
                yield from read_segment(job, segment)

    pixels = pool.map(feed())
    try:
        while (first := next(pixels, None)) is not None:
            block = extract_segment(job, chain([first], pixels), started[0], meter.add)
            filled.computed += block.n_images * len(job.forward.views)
            filled.failures |= block.failures
            job.store.release(key, _name(job, started.popleft()))
    finally:
        for segment in started:
            job.store.release(key, _name(job, segment))
    return held


def read_segment(job: Job, segment: np.ndarray) -> Iterator[tuple[int, Any]]:
    """Read the bytes of a segment's images, and hold them against the hashes they were planned under."""
    for index, data in job.dataset.iterate(segment):
        if not isinstance(data, ImageError) and item_id(data) != job.identity.item_ids[index].tobytes():
            yield index, ImageError("changed while featx was reading it; run the command again", transient=True)
        else:
            yield index, data


def _name(job: Job, segment: np.ndarray) -> str:
    return job.store.segment_name(job.identity.item_ids[segment])


def _is_done(job: Job, segment: np.ndarray) -> bool:
    return all_known(job.store, job.forward.recipes, job.identity.item_ids[segment])


def all_known(store: Store, recipes: Sequence[Recipe], item_ids: np.ndarray) -> bool:
    """Say whether the cache holds, for every item and recipe, a row or why there is none."""
    for recipe in recipes:
        found = store.find(recipe.key, item_ids)
        found[list(store.known_errors(recipe.key, item_ids))] = True
        if not found.all():
            return False
    return True


class _Meter:
    """Adds up what batches report and passes it on."""

    def __init__(self, step: str, total: int, on_progress: OnProgress | None) -> None:
        self._step, self._total, self._on_progress = step, total, on_progress
        self._done, self.waiting, self._start = 0, 0.0, time.perf_counter()

    def add(self, n: int, waiting: float) -> None:
        self._done += n
        self.waiting += waiting
        if self._on_progress is not None:
            seconds = time.perf_counter() - self._start
            self._on_progress(Progress(self._step, self._done, self._total, seconds, self.waiting))
