"""See to it that the cache holds every row: look up, check disk and probe, compute what is missing."""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import NoSpaceError
from featx.extraction.compute import Forward
from featx.extraction.fill import Filled, Job, Tick, fill, segment_rows
from featx.extraction.probing import check_probes
from featx.images import DecodePool

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


@dataclass
class Ensured:
    """What it took: views computed, images that failed, on which engine, in how many seconds of pure extraction."""

    filled: Filled = field(default_factory=Filled)
    engine: Engine | None = None
    seconds: float = 0.0

    def add(self, filled: Filled, engine: Engine, seconds: float) -> None:
        """Take in what one more part of the work took."""
        self.filled.computed += filled.computed
        self.filled.failures |= filled.failures
        self.filled.waiting += filled.waiting
        self.engine = engine
        self.seconds += seconds


def ensure_rows(lookup: Lookup, options: Options, tick: Tick | None = None) -> Ensured:
    """Compute and commit every row of `lookup` that the cache lacks: the images as they are, then their views.

    Raises
    ------
    NoSpaceError
        Before any work, if the disk cannot take the rows.
    ProbeError
        Before any work, if this machine computes other features than the rows already there.
    """
    ensured, n_missing = Ensured(), sum(part.n_rows for part in lookup.parts())
    if n_missing:
        lookup.store.require_writable()
        _check_space(lookup, n_missing)
    for part in lookup.parts():
        _compute(lookup, part, options, ensured, tick)
    return ensured


def _compute(lookup: Lookup, part: Part, options: Options, ensured: Ensured, tick: Tick | None) -> None:
    """Compute and commit `part`, and add what it took to `ensured`."""
    engine, rows_per_segment = open_planned(lookup, part, options, ensured.engine)
    if engine is not ensured.engine:
        check_probes(lookup.store, lookup.recipes, engine)
    started = time.perf_counter()
    forward = Forward(engine, part.recipes, lookup.identity.item_ids)
    job = Job(lookup.dataset, lookup.identity, lookup.store, forward)
    with DecodePool(lookup.recipes[0].frame, n_workers=decoders(options, len(part.positions))) as pool:
        filled = fill(job, pool, part.positions, rows_per_segment, tick)
    lookup.store.drop_plan(job.key)
    ensured.add(filled, engine, time.perf_counter() - started)


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
    return 1 if options.workers is None and n_images <= FEW_IMAGES else options.workers


def open_planned(lookup: Lookup, part: Part, options: Options, opened: Engine | None = None) -> tuple[Engine, int]:
    """Open the engine and cut of an unfinished run of the same recipes, or choose them and say so in the cache.

    Equal batches on an equal engine are what makes a resumed run equal an uninterrupted one bit for bit.
    What the user asks for himself goes first; an engine that is `opened` already is chosen where no plan differs.
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
    rows = segment_rows(part.recipes, engine.batch_size, seconds)
    plan = {"engine": engine.name, "batch_size": engine.batch_size, "segment_rows": rows}
    return engine, lookup.store.plan(key, plan)["segment_rows"]


def _open(lookup: Lookup, part: Part, options: Options, planned: dict[str, Any]) -> Engine:
    from featx.engines import open_engine

    engine = open_engine(
        lookup.resolved.backbone,
        lookup.recipes,
        engine=options.engine if options.engine != "auto" else planned.get("engine", "auto"),
        device=options.device,
        batch_size=options.batch_size or planned.get("batch_size"),
        n_images=part.n_rows,
        networks=lookup.store.root / NETWORKS,
    )
    log.info(engine.why)
    return engine


def seconds_per_batch(recipes: list[Recipe], engine: Engine) -> float:
    """Return how long one batch takes, in seconds; the first of an engine, so rather more than the later ones."""
    frame = recipes[0].frame
    batch = np.zeros((engine.batch_size, frame.height, frame.width, 3), dtype=np.uint8)
    started = time.perf_counter()
    engine.run(batch)
    return time.perf_counter() - started
