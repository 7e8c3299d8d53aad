"""Rows of frozen backbones: all layers of one from a single pass, then every head on every layer."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from featx.comparison.bench import Bench
from featx.comparison.runs import Row, Run, Trial
from featx.comparison.subsets import keep_shots
from featx.extraction import resolved_recipes
from featx.extraction import run as extract
from featx.model import fit
from featx.model.parallel import outcomes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featx.extraction import Extraction
    from featx.features import Features
    from featx.model import Model
    from featx.recipe import Recipe, Request

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
        self.recipes = Once(self._resolve)
        self._extraction = Once(self._extract)

    def _name_layers(self) -> Request:
        """Return the request with its default layer by name, where that is one of several."""
        if self.layers == (DEFAULT_LAYER,):
            return dataclasses.replace(self.asked, layers=())
        layers = [self._default_layer() if layer == DEFAULT_LAYER else layer for layer in self.layers]
        return dataclasses.replace(self.asked, layers=tuple(layers))

    def _resolve(self) -> list[Recipe]:
        return resolved_recipes(self._named(), cache=self._bench.cache)

    def _default_layer(self) -> str:
        (recipe,) = resolved_recipes(dataclasses.replace(self.asked, layers=()), cache=self._bench.cache)
        return recipe.layer

    def _extract(self) -> Extraction:
        bench = self._bench
        return extract(
            dataclasses.replace(bench.dataset, title=bench.tables),
            self._named(),
            cache=bench.cache,
            options=bench.options,
            views=bench.views,
            on_progress=bench.on_progress,
            remember=False,
        )

    def table(self, place: int) -> Features:
        """Return the table of a layer."""
        key = self.recipes()[place].key
        return next(table for table in self._extraction().tables if table.key == key)

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
    contests = []
    for n, (place, layer), (head, settings) in itertools.product(shots, enumerate(source.layers), heads.items()):
        asked = source.asked
        trial = Trial(kind="frozen", backbone=asked.backbone, layer=layer, pool=asked.pool, head=head, shots=n)
        contests.append(Contest(bench, source, place, trial, dict(settings)))
    fits = Fits(bench, contests)
    for contest in contests:
        yield bench.compete(contest.trial, contest.facts, fits.run_of(contest))


@dataclass(frozen=True)
class Contest:
    """A head on the layer at `place` of `source`."""

    bench: Bench
    source: FrozenSource
    place: int
    trial: Trial
    settings: dict[str, Any]

    def facts(self) -> dict[str, Any]:
        """Return what, beside the trial and the images, decides how it comes out."""
        views = self.bench.views and dataclasses.asdict(self.bench.views)
        return {"recipe": self.source.recipes()[self.place].key, "settings": self.settings, "views": views}

    def work(self, seed: int) -> tuple[Any, ...]:
        """Return the arguments of `fit_and_judge`, with the table extracted."""
        table = self.source.table(self.place)
        judged = table.select(np.isin(table.ids, self.bench.judged_ids))
        n_views = self.bench.views.n if self.bench.views else 1
        return _few(self.bench, table, self.trial.shots, seed), judged, self.trial.head, self.settings, n_views, seed

    def record(self, seed: int, key: str, judged: Judged) -> Run:
        """Return the run that came of `work`."""
        bench, recipe, table = self.bench, self.source.recipes()[self.place], self.source.table(self.place)
        views = {"views": bench.views.n, "augment": bench.views.augment} if bench.views else {}
        return bench.record(
            judged.model,
            self.trial,
            seed,
            key,
            judged.ids,
            judged.best,
            layer=recipe.layer if self.trial.layer == DEFAULT_LAYER else self.trial.layer,
            pool=recipe.pool,
            extract_seconds=cold_seconds(table),
            extract_seconds_now=self.source.seconds_now,
            fit_seconds=judged.fit_seconds,
            settings=self.settings | views,
        )


@dataclass(frozen=True)
class Judged:
    """A fitted model, the ids of the judged rows and their classes as it sees them, and seconds of the fit alone."""

    model: Model
    ids: list[str]
    best: NDArray[np.intp]
    fit_seconds: float


def fit_and_judge(
    table: Features, judged: Features, head: str, settings: dict[str, Any], n_views: int, seed: int
) -> Judged:
    """Fit one head on `table` and let it classify the rows `judged`; this is what travels to workers."""
    started = time.perf_counter()
    model = fit(table, head, settings=settings, views=n_views, seed=seed)
    seconds = round(time.perf_counter() - started, 3)
    return Judged(model, judged.ids.tolist(), model.predict_proba(judged).argmax(axis=1), seconds)


class Fits:
    """All fits of some contests that were not done before, on whatever joblib backend is set; see `outcomes`.

    They start together when the first is asked for, and are handed over in the order of the contests.
    """

    def __init__(self, bench: Bench, contests: Sequence[Contest]) -> None:
        self._bench, self._contests = bench, contests
        self._made: dict[str, Judged | Exception] = {}
        self._coming = self._start()

    def run_of(self, contest: Contest) -> Callable[[int, str], Run]:
        """Return what `Bench.compete` calls for a run of `contest`."""

        def run(seed: int, key: str) -> Run:
            while key not in self._made:
                arrived, outcome = next(self._coming)
                self._made[arrived] = outcome
            judged = self._made.pop(key)
            if isinstance(judged, Exception):
                raise judged
            return contest.record(seed, key, judged)

        return run

    def _start(self) -> Iterator[tuple[str, Judged | Exception]]:
        keys, work = [], []
        for contest, seed, key in self._waiting():
            try:
                work.append(contest.work(seed))
            except Exception as error:  # noqa: BLE001 - the row of this contest says it
                yield key, error
            else:
                keys.append(key)
        yield from zip(keys, outcomes(fit_and_judge, work), strict=True)

    def _waiting(self) -> Iterator[tuple[Contest, int, str]]:
        """Yield each run that was not done before, with its key."""
        for contest, seed in itertools.product(self._contests, self._bench.seeds):
            with contextlib.suppress(Exception):  # a contest without facts never comes to a run
                key = self._bench.key(contest.trial, contest.facts(), seed)
                if self._bench.ledger.get(key) is None:
                    yield contest, seed, key


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
