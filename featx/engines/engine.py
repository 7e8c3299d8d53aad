"""An `Engine`: a truncated network ready to run on batches of one fixed shape."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from featx.engines.eager import Compute
    from featx.recipe import Recipe

#: Rows of one request for each recipe, and when they were there by `time.perf_counter`.
Answer = tuple[list[np.ndarray], float]


class Engine:
    """Runs a truncated network on uint8 images, in requests of one shape.

    The last request is padded: a convolution may round otherwise among another number of images, and features must
    not depend on how many came with them.

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
    ) -> None:
        self._compute = compute
        self._recipes = recipes
        self.name = name
        self.precision = recipes[0].precision
        self.batch_size = batch_size
        self.request_size = request_size or batch_size
        self.why = why
        self.n_at_once = n_at_once
        self._threads = ThreadPoolExecutor(n_at_once, thread_name_prefix="featx-engine") if n_at_once else None

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Return one array of rows for each recipe, in its dtype. NaN and inf are returned as they are.

        Parameters
        ----------
        pixels : ndarray of shape (n, height, width, 3), uint8
            Any number of images of the recipes' frame.
        """
        return self.start(pixels).result()

    def start(self, pixels: np.ndarray) -> Running:
        """Begin to `run` images, which are not to be changed until that has a result."""
        frame = self._recipes[0].frame
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (frame.height, frame.width, 3):
            raise ValueError(
                f"Engine.run takes uint8 (n, {frame.height}, {frame.width}, 3), got {pixels.dtype} {pixels.shape}."
            )
        submit: Callable[..., Future[Answer]] = self._threads.submit if self._threads else _here_and_now
        starts = range(0, len(pixels), self.request_size)
        requests = [submit(self._answer, pixels[start : start + self.request_size]) for start in starts]
        return Running(requests, self._recipes)

    def _answer(self, pixels: np.ndarray) -> Answer:
        n = len(pixels)
        if n < self.request_size:
            pixels = np.concatenate([pixels, np.zeros((self.request_size - n, *pixels.shape[1:]), np.uint8)])
        return [rows[:n] for rows in self._compute(np.ascontiguousarray(pixels))], time.perf_counter()


def _here_and_now(function: Callable[[np.ndarray], Answer], pixels: np.ndarray) -> Future[Answer]:
    future: Future[Answer] = Future()
    future.set_result(function(pixels))
    return future


class Running:
    """Rows on their way: what `Engine.start` returns."""

    def __init__(self, requests: list[Future[Answer]], recipes: list[Recipe]) -> None:
        self._requests = requests
        self._recipes = recipes

    def result(self) -> list[np.ndarray]:
        """Wait, and return what `Engine.run` does; raise what it would have raised."""
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
