"""Rows of features in memory: through the cache for estimators, past it for a model that meets new images."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.datasets import open_dataset
from featx.engines.choose import FEW_IMAGES
from featx.errors import ProbeError, WeightsError
from featx.extraction.executors import compute_missing, n_decoders, stored_probe
from featx.extraction.extracting import reasons_for_missing
from featx.extraction.options import Options
from featx.extraction.plan import Segment, identify, make_plan
from featx.extraction.segments import compute_segments
from featx.images import DecodePool, prepare
from featx.probe import compare, measure
from featx.store.opening import open_store
from featx.store.store import is_cache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from featx.backbones import Backbone
    from featx.datasets import Dataset
    from featx.engines import Engine
    from featx.errors import ImageError
    from featx.recipe import Frame, Recipe, Request, Views


#: More than pay for the conversion of any network.
_MANY_IMAGES = 1_000_000


def cached_rows(
    images: Any, request: Request, *, cache: str | Path | None = None, options: Options | None = None
) -> tuple[np.ndarray, dict[int, str]]:
    """Return a row for each of `images`, computing only those that the cache lacks.

    Parameters
    ----------
    images : anything that `featx.datasets.open_dataset` takes
    request : Request
        With at most one layer.
    cache : str or Path, optional
    options : Options, optional

    Returns
    -------
    rows : ndarray of shape (n, …)
        NaN where there is none.
    reasons : dict of int to str
        Why, by position.
    """
    plan = make_plan(open_dataset(images), request, open_store(cache), options)
    tally = compute_missing(plan)
    (recipe,) = plan.recipes
    found = plan.found(recipe)
    rows = np.full((len(found), *recipe.shape), np.nan, dtype=recipe.dtype)
    rows[found] = plan.store.read(recipe.key, plan.item_ids[found])
    return rows, reasons_for_missing(plan, recipe, tally)


class RowMaker:
    """Rows of a network's recipes from any images: those that a cache has are read, others computed and kept nowhere.

    The network is loaded when the first image needs it; its engine and one decoder stay open from call to call, and a
    few images take the time of a few. Their features are within 1e-5 (tier B at fp32) of those in any other company.
    Calls from several threads take turns.

    Parameters
    ----------
    requested : callable
        Returns a context manager that gives each `Request` to make of one network: its weights file may be there only
        for the length of a block.
    recipes : sequence of Recipe
        What they must come to: a backbone with other weights is refused.
    probes : sequence of mapping or None
        What this machine must compute of each recipe for the probe images, as stored with the model.
    converted : mapping of str to bytes
        As `featx.engines.open_engine` takes it; not used without all probes, which tell whether it computes the same.
    """

    def __init__(
        self,
        requested: Callable[[], AbstractContextManager[Sequence[Request]]],
        recipes: Sequence[Recipe],
        probes: Sequence[Mapping[str, np.ndarray] | None],
        converted: Mapping[str, bytes] | None = None,
    ) -> None:
        self._requested, self._recipes, self._probes = requested, list(recipes), list(probes)
        self._frame = self._recipes[0].frame
        self._converted = converted if all(probe is not None for probe in self._probes) else None
        self._backbone: Backbone | None = None
        self._engine: Engine | None = None
        self._asked: tuple[Any, ...] = ()
        self._largest = 0
        self._pool: tuple[int, DecodePool] | None = None
        self._turn = threading.Lock()

    def rows(
        self, dataset: Dataset, *, views: Views | None = None, cache: str | Path | None = None, **how: Any
    ) -> tuple[list[np.ndarray], dict[int, str]]:
        """Return rows for each image of `dataset`.

        Parameters
        ----------
        dataset : Dataset
            Images.
        views : Views, optional
            Augmented views to compute as well. Each image is decoded once.
        cache : str or Path, optional
            A cache folder: rows that it has of these images are taken where they agree with the probe. It gets none.
        **how
            Fields of `Options`: engine, device, batch_size, workers.

        Returns
        -------
        rows : list of ndarray of shape (n, …)
            Of each recipe, for the plain image; then those of each further view. NaN where there is none.
        reasons : dict of int to str
            Why, by position.

        Raises
        ------
        WeightsError
            If the backbone is not the one that the recipe names.
        ProbeError
            If this machine computes other features than the probe says.
        """
        options, n = Options(**how), len(dataset)
        recipes = [*self._recipes]
        recipes += [views.recipe(own, number) for number in views.numbers for own in self._recipes] if views else []
        rows = [np.full((n, *recipe.shape), np.nan, dtype=recipe.dtype) for recipe in recipes]
        with self._turn:
            known = () if cache is None else self._read(dataset, recipes, rows, Path(cache))
            missing = np.setdiff1d(np.arange(n), known)
            failures = self._compute(dataset, recipes, missing, rows, options) if len(missing) else {}
        for all_rows in rows:  # an image without one of its views has none
            all_rows[list(failures)] = np.nan
        return rows, {index: str(error) for index, error in failures.items()}

    def _read(self, dataset: Dataset, recipes: Sequence[Recipe], rows: list[np.ndarray], cache: Path) -> Sequence[int]:
        """Write the rows that `cache` has of all `recipes` into `rows`, and return the positions of their images."""
        if not is_cache(cache):
            return ()
        store = open_store(cache)
        item_ids, unreadable = identify(dataset, store)
        found = np.logical_and.reduce([store.find(recipe.key, item_ids) for recipe in recipes])
        found[list(unreadable)] = False
        if not found.any() or not self._agrees([stored_probe(store, recipe) for recipe in self._recipes]):
            return ()
        for recipe, all_rows in zip(recipes, rows, strict=True):
            all_rows[found] = store.read(recipe.key, item_ids[found])
        return np.flatnonzero(found).tolist()

    def _agrees(self, found: Sequence[Mapping[str, np.ndarray] | None]) -> bool:
        """Say whether rows with such probes were computed as those that the model was fitted on."""
        try:
            self._check(found)
        except ProbeError:
            return False
        return True

    def _check(self, found: Sequence[Mapping[str, np.ndarray] | None]) -> None:
        for mine, other, recipe in zip(self._probes, found, self._recipes, strict=True):
            if mine is not None and other is not None:
                compare(mine, other, recipe.precision)

    def _compute(
        self,
        dataset: Dataset,
        recipes: Sequence[Recipe],
        positions: np.ndarray,
        rows: list[np.ndarray],
        options: Options,
    ) -> dict[int, ImageError]:
        """Compute the images at `positions` into `rows`, and return why some have none."""
        n = len(positions)
        with self._decoding(n_decoders(options, n), n) as pool:  # starts while the network is opened
            engine = self._open(options, n)
            (computed,) = compute_segments(dataset, [Segment(recipes, positions)], engine, pool)
        for number, all_rows in enumerate(rows):
            good, values = computed.of(number)
            all_rows[good] = values
        return computed.failures

    @property
    def frame(self) -> Frame:
        """What images are fitted to."""
        return self._frame

    def run(self, pixels: np.ndarray, options: Options) -> list[np.ndarray]:
        """Return the rows of each recipe for images that are fitted already, of a service that many ask for few.

        The network is opened at the first call as for a long job, so that it is converted where that pays, but an image
        then is a request of its own.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (n, frame.height, frame.width, 3)
        options : Options

        Raises
        ------
        WeightsError, ProbeError
            As of `rows`.
        """
        with self._turn:
            if self._engine is None:
                engine = self._open(options, _MANY_IMAGES)
                if engine.name == "openvino" and engine.request_size > 1:
                    self._engine = None
                    if self._open(options, 1).name != engine.name:  # there is no folder that keeps what was converted
                        self._engine = engine
            return self._open(options, 1).run(pixels)

    @contextlib.contextmanager
    def _decoding(self, n_workers: int | None, n_images: int) -> Iterator[DecodePool]:
        """Open a pool of decoders; a single one stays from call to call, since its start takes longer than an image."""
        if n_workers != 1:
            with DecodePool(self._frame, n_workers=n_workers, n_images=n_images) as pool:
                yield pool
            return
        if self._pool is None or self._pool[0] != os.getpid():
            self._pool = os.getpid(), DecodePool(self._frame, n_workers=1)
            weakref.finalize(self, _close, *self._pool)
        try:
            yield self._pool[1]
        except BaseException:  # its process may be in the middle of something
            _close(*self._pool)
            self._pool = None
            raise

    def _open(self, options: Options, n: int) -> Engine:
        """Return the engine of the last call, unless another is asked for or a much longer job may want one."""
        from featx.engines import kept, open_engine

        asked = (os.getpid(), options.engine, options.device, options.batch_size)  # a fork has none of its threads
        # A handful of images pays for no conversion; what is converted already stays, once it is open for many.
        longer = options.engine == "auto" and n > max(FEW_IMAGES, 2 * self._largest)
        stays = self._engine is not None and self._engine.name == "openvino" and self._largest > FEW_IMAGES
        if self._engine is None or asked != self._asked or (longer and not stays):
            engine = open_engine(
                self._load,
                self._recipes,
                engine=options.engine,
                device=options.device,
                batch_size=options.batch_size,
                n_images=n,
                networks=kept.folder(),
                converted=self._converted,
                padded=False,
            )
            if any(probe is not None for probe in self._probes):
                try:
                    self._check(measure(prepare, engine, self._frame))
                except ProbeError:
                    if not self._converted:
                        raise
                    self._converted = None  # as the model has it, OpenVINO computes something else here
                    return self._open(options, n)
            self._engine, self._asked, self._largest = engine, asked, n
        return self._engine

    def _load(self) -> Backbone:
        if self._backbone is None:
            from featx import backbones

            with self._requested() as requests:
                backbone, found = backbones.resolve(requests[0])
                found += [recipe for request in requests[1:] for recipe in backbone.recipes(request)]
            for recipe in self._recipes:
                _check_same(recipe, found, requests[0])
            self._backbone = backbone
        return self._backbone


def _close(pid: int, pool: DecodePool) -> None:
    if pid == os.getpid():  # a fork leaves its parent's processes alone
        pool.close()


def _check_same(recipe: Recipe, recipes: list[Recipe], request: Request) -> None:
    """Refuse a backbone that comes to another recipe than `recipe`, but for the tag of its weights."""
    if any(dataclasses.replace(own, weights=recipe.weights) == recipe for own in recipes):
        return
    if all(own.weights_digest != recipe.weights_digest for own in recipes):
        raise WeightsError(
            f"{request.backbone} has other weights here (digest {recipes[0].weights_digest[:8]}) than those the model "
            f"was fitted on ({recipe.weights_digest[:8]}, {recipe.weights}). Name the right file, or save the model "
            "with --bundle."
        )
    raise WeightsError(
        f"{request.backbone} comes to another recipe here than the one the model was fitted on: a library changed. "
        "Fit again: featx extract, featx fit."
    )
