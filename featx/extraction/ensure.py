"""See to it that the cache holds every row: look up, check the disk, have computed what is missing."""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from featx.errors import NoSpaceError
from featx.extraction.compute import Forward, views_of
from featx.extraction.fill import Filled, Job, cut, fill, segment_rows, step_name
from featx.extraction.probing import check_probes
from featx.extraction.ranks import Rank
from featx.images import DecodePool
from featx.progress import OnProgress, Progress

if TYPE_CHECKING:
    from featx.engines import Engine
    from featx.extraction.lookup import Lookup, Part
    from featx.extraction.options import Options
    from featx.recipe import Recipe

log = logging.getLogger("featx")

#: Folder of the cache that keeps converted networks.
NETWORKS = ".networks"
#: So few images are decoded before a second process has started.
FEW_IMAGES = 64
#: A batch is timed on an eighth of it, where the engine takes less than a whole one.
_SHARE_TIMED = 8


@dataclass
class Ensured:
    """What it took: views computed, images that failed, on which engine, in how many seconds of pure extraction."""

    filled: Filled = field(default_factory=Filled)
    engine: str = "none"
    batch_size: int | None = None
    seconds: float = 0.0

    def add(self, other: Ensured) -> None:
        """Take in what one more part of the work took."""
        self.filled.computed += other.filled.computed
        self.filled.failures |= other.filled.failures
        self.filled.waiting += other.filled.waiting
        self.engine, self.batch_size = other.engine, other.batch_size
        self.seconds += other.seconds


class Executor(Protocol):
    """Who computes rows: `Here`, or a cluster such as `featx.RayCluster`."""

    def compute(self, lookup: Lookup, part: Part, options: Options, on_progress: OnProgress | None) -> Ensured:
        """Compute and commit every row of `part`."""


class Here:
    """Computes in this process, and keeps its engine from one part of the work to the next."""

    def __init__(self) -> None:
        self._engine: Engine | None = None

    def compute(self, lookup: Lookup, part: Part, options: Options, on_progress: OnProgress | None) -> Ensured:
        """Compute and commit every row of `part` that other processes of this launch do not."""
        rank = Rank.here()
        if on_progress is not None:  # to convert a network takes seconds
            on_progress(Progress(step_name(views_of(part.recipes)), 0, len(part.positions), 0.0))
        # Its processes start while the engine is made ready.
        with DecodePool(lookup.recipes[0].frame, n_workers=decoders(options, len(part.positions))) as pool:
            engine, rows = open_planned(lookup, part, options, self._engine, n_workers=rank.size)
            if engine is not self._engine:
                check_probes(lookup.store, lookup.recipes, engine)
                self._engine = engine
            started, item_ids = time.perf_counter(), lookup.identity.item_ids
            job = Job(lookup.dataset, lookup.identity, lookup.store, Forward(engine, part.recipes, item_ids))
            filled = fill(job, pool, cut(part.positions, rows), rank, on_progress)
        return Ensured(filled, engine.name, engine.batch_size, time.perf_counter() - started)


def ensure_rows(
    lookup: Lookup, options: Options, on_progress: OnProgress | None = None, executor: Executor | None = None
) -> Ensured:
    """Have every row of `lookup` that the cache lacks computed: of the images as they are, then of their views.

    Raises
    ------
    NoSpaceError
        Before any work, if the disk cannot take the rows.
    ProbeError
        Before any work, if this machine computes other features than the rows already there.
    """
    ensured, n_missing = Ensured(), sum(part.n_rows for part in lookup.parts())
    executor = executor or Here()
    if n_missing:
        lookup.store.require_writable()
        _check_space(lookup, n_missing)
    for part in lookup.parts():
        ensured.add(executor.compute(lookup, part, options, on_progress))
        lookup.store.drop_plan(part.recipes[0].key)
    return ensured


def required_bytes(lookup: Lookup, n_missing: int) -> int:
    """Return what a run writes at its peak: the segments, and beside them for a moment the new tables."""
    return (n_missing + lookup.n_rows) * sum(recipe.row_bytes for recipe in lookup.recipes)


def _check_space(lookup: Lookup, n_missing: int) -> None:
    needed, free = required_bytes(lookup, n_missing), shutil.disk_usage(lookup.store.root).free
    if needed > free:
        raise NoSpaceError(
            f"The features need {needed / 1e9:.1f} GB while they are written; {lookup.store.root} has "
            f"{free / 1e9:.1f} GB free. Pool them (--pool avg), halve them (--dtype float16), "
            "or name a larger disk with --cache."
        )


def decoders(options: Options, n_images: int) -> int | None:
    """Return how many decoding processes `n_images` are worth: one for a handful, else as asked or chosen."""
    if options.workers is None and n_images <= FEW_IMAGES:
        return 1
    return Rank.here().n_decoders() if options.workers is None else options.workers


def open_planned(
    lookup: Lookup, part: Part, options: Options, opened: Engine | None = None, *, n_workers: int = 1
) -> tuple[Engine, int]:
    """Open the engine and cut of an unfinished run of the same recipes, or choose them and say so in the cache.

    Equal batches on an equal engine are what makes a resumed run equal an uninterrupted one bit for bit.
    What the user asks for himself goes first; an engine that is `opened` already is chosen where no plan differs.
    Of several processes that choose at once the first one's choice is everyone's.
    """
    key = part.recipes[0].key
    planned = lookup.store.plan(key)
    if opened and (not planned or (planned["engine"], planned["batch_size"]) == (opened.name, opened.batch_size)):
        engine = opened
    else:
        engine = _open(lookup, part, options, planned)
    if planned.get("batch_size") == engine.batch_size:
        return engine, planned["segment_rows"]
    seconds = seconds_per_batch(lookup.recipes, engine) * part.n_views
    share = None if n_workers == 1 else -(-len(part.positions) // n_workers)
    rows = segment_rows(part.recipes, engine.batch_size, seconds, share)
    chosen = {"engine": engine.name, "batch_size": engine.batch_size, "segment_rows": rows}
    agreed = lookup.store.plan(key, chosen)
    if not planned and agreed != chosen:
        engine = _open(lookup, part, options, agreed)
    return engine, agreed["segment_rows"]


def _open(lookup: Lookup, part: Part, options: Options, planned: dict[str, Any]) -> Engine:
    from featx.engines import open_engine

    name = options.engine if options.engine != "auto" else planned.get("engine", "auto")
    engine = open_engine(
        lookup.resolved.backbone,
        lookup.recipes,
        engine=name,
        device=options.device if name == "openvino" else Rank.here().device(options.device),
        batch_size=options.batch_size or planned.get("batch_size"),
        n_images=part.n_rows,
        networks=lookup.store.root / NETWORKS,
    )
    log.info(engine.why)
    return engine


def seconds_per_batch(recipes: list[Recipe], engine: Engine) -> float:
    """Return how long one batch takes, in seconds; by the first requests of an engine, so rather more than later."""
    frame, together = recipes[0].frame, engine.request_size
    n = -(-engine.batch_size // (_SHARE_TIMED * together)) * together
    images = np.zeros((n, frame.height, frame.width, 3), dtype=np.uint8)
    started = time.perf_counter()
    engine.run(images)
    return (time.perf_counter() - started) * engine.batch_size / n
