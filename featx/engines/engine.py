"""An `Engine`: a truncated network ready to run on batches of one fixed shape, and a watch over its threads."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import sys
import threading
import time
import traceback
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import ForkError
from featx.machine import n_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from featx.engines.pytorch import Compute
    from featx.recipe import Recipe

log = logging.getLogger("featx")

#: Seconds without any request's end after which whoever waits is told; loaded machines take long over sound work.
STALL_SECONDS = 120.0
#: Seconds between two looks while waiting: Ctrl-C is heard at each.
_TICK = 1.0
#: Rows of one request for each recipe, and when they were there by `time.perf_counter`.
Answer = tuple[list[np.ndarray], float]


class Engine:
    """Runs a truncated network on uint8 images, in requests of one shape.

    The last request is padded to the shape of the others: a convolution may round otherwise among another number of
    images, and rows that are kept must not depend on how many were computed with them. Where `padded` is False, it is
    padded to a power of two, so that one image takes the time of one.

    Attributes
    ----------
    name : {"eager", "compile", "openvino"}
    precision : str
        As in `Recipe`.
    batch_size : int
        Images to run at a time.
    request_size : int
        Images that go through the network together, a divisor of `batch_size`.
    why : str
        One sentence: why this engine and not another.
    n_at_once : int
        Requests that are run at the same time, in threads of the engine's own; 0 runs them in the caller's, where
        nothing is gained by its doing something else meanwhile.
    n_under_way : int
        Batches to begin before the first of them is waited for: between two, the engine would have nothing to do.
    pinned : callable
        Takes the memory that batches will lie in; its context manager is to be around their way through the engine.
    """

    def __init__(
        self,
        compute: Compute,
        recipes: list[Recipe],
        *,
        name: str,
        batch_size: int,
        why: str,
        request_size: int | None = None,
        n_at_once: int = 0,
        padded: bool = True,
        pinned: Callable[[np.ndarray], AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> None:
        self._compute = compute
        self._recipes = recipes
        self.name = name
        self.precision = recipes[0].precision
        self.batch_size = batch_size
        self.request_size = request_size or batch_size
        self.why = why
        self.n_at_once = n_at_once
        self.n_under_way = max(2, -(-n_at_once * self.request_size // batch_size))
        self.pinned = pinned
        self._padded = padded
        self._pid = os.getpid()
        self._threads = ThreadPoolExecutor(n_at_once, thread_name_prefix="featx-engine") if n_at_once else None
        self._watch = _Watch(name)
        self._batches = itertools.count(1)

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Return one array of rows for each recipe, in its dtype. NaN and inf are returned as they are.

        Parameters
        ----------
        pixels : ndarray of shape (n, height, width, 3), uint8
            Any number of images of the recipes' frame.
        """
        return self.start(pixels).result()

    def start(self, pixels: np.ndarray) -> Running:
        """Begin to `run` images, which are not to be changed until that has a result.

        Raises
        ------
        ForkError
            If this process was forked from one that had run a network.
        """
        check_not_forked(self._threads is not None and os.getpid() != self._pid)
        frame = self._recipes[0].frame
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (frame.height, frame.width, 3):
            raise ValueError(
                f"Engine.run takes uint8 (n, {frame.height}, {frame.width}, 3), got {pixels.dtype} {pixels.shape}."
            )
        submit: Callable[..., Future[Answer]] = self._threads.submit if self._threads else _here_and_now
        starts = range(0, len(pixels), self.request_size)
        batch = next(self._batches)
        requests = [submit(self._answer, pixels[start : start + self.request_size], batch, start) for start in starts]
        return Running(requests, self._recipes, self._watch)

    def _answer(self, pixels: np.ndarray, batch: int, start: int) -> Answer:
        n = len(pixels)
        shape = self.request_size if self._padded else min(self.request_size, 1 << (n - 1).bit_length())
        if n < shape:
            pixels = np.concatenate([pixels, np.zeros((shape - n, *pixels.shape[1:]), np.uint8)])
        _Forks.n_forwards += 1
        with self._watch.over(f"images {start + 1} to {start + n} of batch {batch}"):
            return [rows[:n] for rows in self._compute(np.ascontiguousarray(pixels))], time.perf_counter()


class _Forks:
    """Whether this process has run a network, and whether it was forked from one that had."""

    n_forwards = 0
    after_forward = False


def _forked() -> None:
    _Forks.after_forward = _Forks.after_forward or _Forks.n_forwards > 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def check_not_forked(without_threads: bool = False) -> None:
    """Refuse to compute where torch would wait for ever for threads that stayed in the parent process.

    Parameters
    ----------
    without_threads : bool
        Whether the threads of an engine stayed there; torch's own are not needed where it uses one.
    """
    torch = sys.modules.get("torch")  # OpenVINO does without, and has as many threads
    if without_threads or (_Forks.after_forward and (torch.get_num_threads() if torch else n_cores()) > 1):
        raise ForkError(
            "This process was forked from one that had run a network, whose threads stayed behind: it would wait for "
            "ever. Start workers by multiprocessing.get_context('spawn') or joblib's default backend, loky."
        )


def _here_and_now(function: Callable[..., Answer], *arguments: Any) -> Future[Answer]:
    future: Future[Answer] = Future()
    future.set_result(function(*arguments))
    return future


class _Watch:
    """Knows which thread of an engine is at what, and says so when none of them gets any further."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._at_work: dict[int, tuple[str, str]] = {}
        self._n_ended = 0

    @contextlib.contextmanager
    def over(self, work: str) -> Iterator[None]:
        """Note that this thread is at `work`."""
        thread = threading.current_thread()
        self._at_work[threading.get_ident()] = (thread.name, work)
        try:
            yield
        finally:
            del self._at_work[threading.get_ident()]
            self._n_ended += 1

    def wait_for(self, requests: list[Future[Answer]]) -> None:
        """Wait until all `requests` have ended, or raise what one of them did.

        Warns of each `STALL_SECONDS` in which no request of the engine has ended. Only time spent waiting counts, in
        short steps: a run stopped with Ctrl-Z is not taken for a stall.
        """
        n_ended, silent = self._n_ended, 0.0
        while True:
            started = time.monotonic()
            done, rest = wait(requests, _TICK, FIRST_EXCEPTION)
            for request in done:
                request.result()
            if not rest:
                return
            silent = silent + min(time.monotonic() - started, 2 * _TICK) if n_ended == self._n_ended else 0.0
            n_ended = self._n_ended
            if silent >= STALL_SECONDS:
                self._report(silent)
                silent = 0.0

    def _report(self, silent: float) -> None:
        at_work = dict(self._at_work)
        places = "; ".join(f"thread {name} is at {work}" for name, work in at_work.values()) or "no thread has begun"
        log.warning(
            "The %s engine has finished nothing for %.0f s: %s. featx waits on; Ctrl-C stops it and keeps what is "
            "committed, --engine eager does without threads, --debug shows where each thread stands.",
            self._engine, silent, places,
        )  # fmt: skip
        if log.isEnabledFor(logging.DEBUG):
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            for ident, frame in sys._current_frames().items():  # noqa: SLF001 - the documented way to other threads
                log.debug("%s:\n%s", names.get(ident, ident), "".join(traceback.format_stack(frame)))


class Running:
    """Rows on their way: what `Engine.start` returns."""

    def __init__(self, requests: list[Future[Answer]], recipes: list[Recipe], watch: _Watch) -> None:
        self._requests = requests
        self._recipes = recipes
        self._watch = watch

    def result(self) -> list[np.ndarray]:
        """Wait, and return what `Engine.run` does; raise what it would have raised."""
        self._watch.wait_for(self._requests)
        answers = [request.result()[0] for request in self._requests]
        with np.errstate(over="ignore"):  # a float16 that overflows is inf, which the extractor lists by name
            return [
                np.concatenate([rows[index] for rows in answers]).astype(recipe.dtype, copy=False)
                if answers
                else np.empty((0, *recipe.shape), recipe.dtype)
                for index, recipe in enumerate(self._recipes)
            ]

    def ended(self) -> float:
        """Return when the last row was there, by `time.perf_counter`; infinity as long as one is not."""
        if not all(request.done() for request in self._requests):
            return float("inf")
        return max((request.result()[1] for request in self._requests), default=0.0)

    def cancel(self) -> None:
        """Give up what has not begun."""
        for request in self._requests:
            request.cancel()
