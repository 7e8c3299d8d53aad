"""An `Engine`: a truncated network ready to run on batches of one fixed shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from featx.engines.eager import Compute
    from featx.recipe import Recipe


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
    ) -> None:
        self._compute = compute
        self._recipes = recipes
        self.name = name
        self.precision = recipes[0].precision
        self.batch_size = batch_size
        self.request_size = request_size or batch_size
        self.why = why

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Return one array of rows for each recipe, in its dtype. NaN and inf are returned as they are.

        Parameters
        ----------
        pixels : ndarray of shape (n, height, width, 3), uint8
            Any number of images of the recipes' frame.
        """
        frame = self._recipes[0].frame
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (frame.height, frame.width, 3):
            raise ValueError(
                f"Engine.run takes uint8 (n, {frame.height}, {frame.width}, 3), got {pixels.dtype} {pixels.shape}."
            )
        batches = [
            self._run_batch(pixels[start : start + self.batch_size]) for start in range(0, len(pixels), self.batch_size)
        ]
        with np.errstate(over="ignore"):  # a float16 that overflows is inf, which the extractor lists by name
            return [
                np.concatenate([batch[index] for batch in batches]).astype(recipe.dtype, copy=False)
                if batches
                else np.empty((0, *recipe.shape), recipe.dtype)
                for index, recipe in enumerate(self._recipes)
            ]

    def _run_batch(self, pixels: np.ndarray) -> list[np.ndarray]:
        n = len(pixels)
        if n_lacking := -n % self.request_size:
            pixels = np.concatenate([pixels, np.zeros((n_lacking, *pixels.shape[1:]), np.uint8)])
        return [rows[:n] for rows in self._compute(np.ascontiguousarray(pixels))]
