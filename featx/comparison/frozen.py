"""Rows of frozen backbones: all layers of one from a single pass, then every head on every layer."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from featx.comparison.bench import Bench
from featx.comparison.runs import Row, Run, Trial
from featx.comparison.subsets import keep_shots
from featx.extraction import resolved_recipes
from featx.extraction import run as extract
from featx.model import fit

if TYPE_CHECKING:
    from featx.extraction import Extraction
    from featx.features import Features
    from featx.recipe import Request

Made = TypeVar("Made")

#: The word for the layer that a backbone is tapped at where none is named.
DEFAULT_LAYER = "default"


class Once(Generic[Made]):
    """A value that is made when it is first asked for; what went wrong then is raised again, not tried again."""

    def __init__(self, make: Callable[[], Made]) -> None:
        self._make = make
        self._made: Made | None = None
        self._failure: Exception | None = None

    def __call__(self) -> Made:
        """Return the value, or raise what kept it from being made."""
        if self._failure is None and self._made is None:
            try:
                self._made = self._make()
            except Exception as error:
                self._failure = error
                raise
        if self._failure is not None:
            raise self._failure
        assert self._made is not None
        return self._made


class FrozenSource:
    """The tables of one backbone and one kind of pooling, extracted together when the first of them is needed.

    Parameters
    ----------
    bench : Bench
    request : Request
        Its layers may hold `DEFAULT_LAYER`; none means that one.

    Attributes
    ----------
    layers : tuple of str
        As asked for.
    recipes : callable
        Returns what they come to, one recipe a layer.
    """

    def __init__(self, bench: Bench, request: Request) -> None:
        self.asked = request
        self.layers = request.layers or (DEFAULT_LAYER,)
        self._bench = bench
        self._named = Once(self._name_layers)
        self.recipes = Once(lambda: resolved_recipes(self._named(), cache=bench.cache))
        self._extraction = Once(self._extract)

    def _name_layers(self) -> Request:
        """Return the request with its default layer by name, where that is one of several."""
        if self.layers == (DEFAULT_LAYER,):
            return dataclasses.replace(self.asked, layers=())
        layers = [self._default_layer() if layer == DEFAULT_LAYER else layer for layer in self.layers]
        return dataclasses.replace(self.asked, layers=tuple(layers))

    def _default_layer(self) -> str:
        (recipe,) = resolved_recipes(dataclasses.replace(self.asked, layers=()), cache=self._bench.cache)
        return recipe.layer

    def _extract(self) -> Extraction:
        bench = self._bench
        return extract(
            bench.dataset,
            self._named(),
            cache=bench.cache,
            options=bench.options,
            views=bench.views,
            tick=bench.tick,
        )

    def table(self, place: int) -> Features:
        """Return the table of a layer."""
        return self._extraction().tables[place]

    @property
    def seconds_now(self) -> float:
        """What the extraction took this time; all layers together, since they came from one pass."""
        return round(self._extraction().seconds, 3)


def frozen_rows(
    bench: Bench, source: FrozenSource, heads: Mapping[str, Mapping[str, Any]], shots: Sequence[int | None]
) -> Iterator[Row]:
    """Yield a row for each number of images a class, layer and head.

    Parameters
    ----------
    bench : Bench
    source : FrozenSource
        Backbone, layers and one kind of pooling.
    heads : mapping of str to mapping
        Settings of each.
    shots : sequence of int or None
    """
    request = source.asked
    views = bench.views and dataclasses.asdict(bench.views)
    for n, (place, layer), (head, settings) in itertools.product(shots, enumerate(source.layers), heads.items()):
        trial = Trial(kind="frozen", backbone=request.backbone, layer=layer, pool=request.pool, head=head, shots=n)

        def facts(place: int = place, settings: Mapping[str, Any] = settings) -> dict[str, Any]:
            return {"recipe": source.recipes()[place].key, "settings": settings, "views": views}

        def run(
            seed: int, key: str, place: int = place, trial: Trial = trial, settings: Mapping[str, Any] = settings
        ) -> Run:
            return _fit(bench, source, place, trial, dict(settings), seed, key)

        yield bench.compete(trial, facts, run)


def _fit(
    bench: Bench, source: FrozenSource, place: int, trial: Trial, settings: dict[str, Any], seed: int, key: str
) -> Run:
    table, recipe = source.table(place), source.recipes()[place]
    n_views = bench.views.n if bench.views else 1
    started = time.perf_counter()
    model = fit(_few(bench, table, trial.shots, seed), trial.head, settings=settings, views=n_views, seed=seed)
    fit_seconds = time.perf_counter() - started
    judged = table.select(np.isin(table.ids, bench.judged_ids))
    return bench.record(
        model,
        trial,
        seed,
        key,
        judged.ids.tolist(),
        model.predict_proba(judged).argmax(axis=1),
        layer=recipe.layer if trial.layer == DEFAULT_LAYER else trial.layer,
        pool=recipe.pool,
        extract_seconds=cold_seconds(table),
        extract_seconds_now=source.seconds_now,
        fit_seconds=round(fit_seconds, 3),
        settings=settings | ({"views": n_views, "augment": bench.views.augment} if bench.views else {}),
    )


def _few(bench: Bench, table: Features, shots: int | None, seed: int) -> Features:
    """Return the rows of `table` that are left once only `shots` images a class train."""
    if shots is None:
        return table
    return table.select(np.isin(table.ids, keep_shots(bench.dataset, shots, seed=seed).ids))


def cold_seconds(table: Features) -> float | None:
    """Return what the rows of a table cost when they were computed; None where its file does not tell.

    A file tells of the run that wrote it. Where that run found a part of the rows in the cache, the cost of the
    others stands for all of them; where it found all, nothing is known.
    """
    computed, seconds = table.provenance.get("computed"), table.provenance.get("seconds")
    return round(seconds * max(1.0, len(table) / computed), 3) if computed and seconds else None
