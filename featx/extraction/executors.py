"""Who computes what is missing: this process, alone or as one of several launched together, or a cluster."""

from __future__ import annotations

import base64
import logging
import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from featx import probe
from featx.devices import n_cuda_devices, resolve_device, resolve_devices
from featx.engines.choose import FEW_IMAGES
from featx.errors import NoSpaceError, OptionError, ProbeError
from featx.extraction.segments import Tally, run_segments, segment_rows
from featx.images import DecodePool, prepare
from featx.machine import n_cores
from featx.progress import OnProgress, Progress

if TYPE_CHECKING:
    from featx.engines import Engine
    from featx.extraction.options import Options
    from featx.extraction.plan import Plan, Segment
    from featx.recipe import Recipe
    from featx.store import Store

    Probe = dict[str, np.ndarray]

log = logging.getLogger("featx")

#: A batch is timed on an eighth of it, where the engine takes less than a whole one.
_SHARE_TIMED = 8
_T = TypeVar("_T")


class Executor(Protocol):
    """Who computes rows: `LocalExecutor`, or a cluster such as `featx.RayCluster`."""

    def run(self, plan: Plan, segment: Segment, on_progress: OnProgress | None) -> Tally:
        """Compute and commit every row of `segment`, cut as suits the engine."""


def compute_missing(plan: Plan, executor: Executor | None = None, on_progress: OnProgress | None = None) -> Tally:
    """Compute every row of `plan` that the cache lacks: of the images as they are, then of their views.

    Parameters
    ----------
    plan : Plan
    executor : Executor, optional
        This process by default.
    on_progress : callable, optional

    Raises
    ------
    NoSpaceError
        Before any work, if the disk cannot take the rows.
    ProbeError
        Before any work, if this machine computes other features than the rows already there.
    """
    tally, executor, n_missing = Tally(), executor or LocalExecutor(), sum(one.n_passes for one in plan.missing())
    if n_missing:
        plan.store.require_writable()
        check_space(plan, n_missing)
    for segment in plan.missing():
        tally.add(executor.run(plan, segment, on_progress))
        plan.store.drop_plan(_agreement(segment, tally.device))
    return tally


def compute_again(plan: Plan, executor: Executor | None = None, on_progress: OnProgress | None = None) -> Tally:
    """Compute every row of these images anew; rows of others stay, unless this machine computes other features."""
    plan.store.require_writable()
    recipes = [*plan.recipes]
    if views := plan.views:
        recipes += [views.recipe(recipe, number) for recipe in plan.recipes for number in views.numbers]
    for recipe in recipes:
        plan.store.set_aside(recipe.key, plan.item_ids)
    try:
        return compute_missing(plan, executor, on_progress)
    except ProbeError:
        for recipe in recipes:
            plan.store.drop_record(_probe_record(recipe))
            plan.store.set_aside(recipe.key)
        return compute_missing(plan, executor, on_progress)


class LocalExecutor:
    """Computes in this process, and keeps its engine from one call to the next.

    Parameters
    ----------
    engine : Engine, optional
        One to begin with; what it computes is held against no probe.
    """

    def __init__(self, engine: Engine | None = None) -> None:
        self._engine = engine

    def run(self, plan: Plan, segment: Segment, on_progress: OnProgress | None) -> Tally:
        """Compute and commit every row of `segment` that other processes of this launch do not."""
        rank = Rank.here()
        if on_progress is not None:  # to convert a network takes seconds
            on_progress(Progress(segment.step, 0, len(segment), 0.0))
        # Its processes start while the engine is made ready.
        n_images, n_workers = len(segment), n_decoders(plan.options, len(segment))
        with DecodePool(plan.recipes[0].frame, n_workers=n_workers, n_images=n_images) as pool:
            engine, agreed = open_agreed(plan, segment, self._engine, n_workers=rank.size)
            if engine is not self._engine:
                check_probes(plan.store, plan.recipes, engine)
                self._engine = engine
            segments = rank.own_first(segment.cut(agreed["segment_rows"]))
            tally = run_segments(plan, segments, engine, pool, on_progress)
        tally.engine, tally.device, tally.batch_size = engine.name, agreed["device"], engine.batch_size
        return tally


def required_bytes(plan: Plan, n_missing: int) -> int:
    """Return what a run writes at its peak: the segments, and beside them for a moment the new tables."""
    return (n_missing + plan.n_rows) * sum(recipe.row_bytes for recipe in plan.recipes)


def check_space(plan: Plan, n_missing: int) -> None:
    """Refuse to begin what the disk cannot take: `n_missing` rows of each layer.

    Raises
    ------
    NoSpaceError
    """
    needed, free = required_bytes(plan, n_missing), shutil.disk_usage(plan.store.root).free
    if needed > free:
        raise NoSpaceError(
            f"The features need {needed / 1e9:.1f} GB while they are written; {plan.store.root} has "
            f"{free / 1e9:.1f} GB free. Pool them (--pool avg), halve them (--dtype float16), "
            "or name a larger disk with --cache."
        )


# One of several processes


@dataclass(frozen=True)
class Rank:
    """Which of the processes launched together, by ``torchrun`` or with RANK and WORLD_SIZE set, this one is.

    Attributes
    ----------
    number, size : int
        Its place among all of them, and how many they are.
    local_number, local_size : int
        The same among those on this machine.
    """

    number: int = 0
    size: int = 1
    local_number: int = 0
    local_size: int = 1

    @classmethod
    def here(cls) -> Rank:
        """Read ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``LOCAL_WORLD_SIZE``; without them we are alone."""
        size, local_size = _number("WORLD_SIZE", 1), _number("LOCAL_WORLD_SIZE", 1)
        return cls(_number("RANK", 0) % size, size, _number("LOCAL_RANK", 0), local_size)

    def own_first(self, shares: list[_T]) -> list[_T]:
        """Return every size-th one from our own on, then those of the next rank, and so on.

        So each process begins with its own share of the work, and helps out with the rest.

        Examples
        --------
        >>> Rank(1, 2).own_first(["a", "b", "c", "d", "e"])
        ['b', 'd', 'a', 'c', 'e']
        """
        return [share for i in range(self.size) for share in shares[(self.number + i) % self.size :: self.size]]

    def device(self, device: str) -> str:
        """Return `device`, or our own of several CUDA devices where it is ``auto`` or ``cuda``, any of them."""
        if device not in ("auto", "cuda") or self.local_size == 1:
            return device
        n_devices = n_cuda_devices()
        return f"cuda:{self.local_number % n_devices}" if n_devices else device


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() and int(text) >= default else default


def n_decoders(options: Options, n_images: int) -> int | None:
    """Return how many decoding processes `n_images` are worth: one for a handful, else as asked or chosen.

    Of processes launched together each takes its share of the machine; None is all of it.
    """
    if options.workers is not None:
        return options.workers
    if n_images <= FEW_IMAGES:  # they are decoded before a second process has started
        return 1
    n_here = Rank.here().local_size
    return None if n_here == 1 else max(1, n_cores() // n_here)


# The engine


def open_agreed(
    plan: Plan, segment: Segment, opened: Engine | None = None, *, n_workers: int = 1
) -> tuple[Engine, dict[str, Any]]:
    """Open the engine of an unfinished run of the same recipes, or choose one and say so in the cache.

    Equal batches on an equal engine are what makes a resumed run equal an uninterrupted one bit for bit. So the first
    of several processes to choose chooses for all on the same kind of device; what another kind chose is of no use
    here: it would leave a GPU idle, or have a batch that does not fit. What the user asks for himself goes first.

    Parameters
    ----------
    plan : Plan
    segment : Segment
        All that is missing.
    opened : Engine, optional
        Taken where nothing else was agreed on.
    n_workers : int
        That share the images.

    Returns
    -------
    engine : Engine
    agreed : dict
        ``engine`` and ``batch_size``, ``segment_rows``, and ``device``: ``cpu`` or the name of the GPU.
    """
    device = device_name(plan)
    name = _agreement(segment, device)
    before = plan.store.plan(name)
    fits = opened if not before or (opened and _is(opened, before)) else None
    engine = fits or _open(plan, segment, before)
    if before.get("batch_size") == engine.batch_size:
        return engine, before | {"device": device}
    seconds = seconds_per_batch(plan.recipes, engine) * len(segment.views)
    share = None if n_workers == 1 else -(-len(segment) // n_workers)
    rows = segment_rows(segment.recipes, engine.batch_size, seconds, share)
    chosen = {"engine": engine.name, "batch_size": engine.batch_size, "segment_rows": rows, "device": device}
    agreed = plan.store.plan(name, chosen)
    if not before and not _is(engine, agreed):
        engine = _open(plan, segment, agreed)
    return engine, agreed | {"device": device}


def chosen_devices(options: Options) -> list[str]:
    """Return where this process computes: on one device, by its name, or on several GPUs.

    Raises
    ------
    OptionError
        If one is not there, or others than this process share the GPUs out.
    """
    if options.devices is None:
        return [Rank.here().device(options.device)]
    if options.device != "auto":
        raise OptionError(f"--devices names GPUs, and so does --device {options.device}. Leave one of them out.")
    if Rank.here().size > 1:
        raise OptionError("--devices shares the GPUs out, and so does what started this process. Leave one out.")
    return resolve_devices(options.devices)


def device_name(plan: Plan) -> str:
    """Return ``cpu``, ``mps``, or the name of the GPU on which this process computes."""
    options = plan.options
    device = "cpu" if options.engine == "openvino" else resolve_device(chosen_devices(options)[0], frozen=True)
    if device in ("cpu", "mps"):
        return device
    import torch

    return torch.cuda.get_device_name(device)


def _agreement(segment: Segment, device: str) -> str:
    """Return the name under which the cache keeps what was agreed on for these recipes on one kind of device."""
    key = segment.recipes[0].key
    return key if device == "cpu" else f"{key}-{device}"


def _is(engine: Engine, agreed: dict[str, Any]) -> bool:
    return (engine.name, engine.batch_size) == (agreed["engine"], agreed["batch_size"])


def _open(plan: Plan, segment: Segment, agreed: dict[str, Any]) -> Engine:
    from featx.engines import gain_of_bf16, kept, open_engine

    options = plan.options
    name = options.engine if options.engine != "auto" else agreed.get("engine", "auto")
    engine = open_engine(
        lambda: plan.backbone,
        plan.recipes,
        engine=name,
        device=options.device if name == "openvino" and not options.devices else chosen_devices(options),
        batch_size=options.batch_size or agreed.get("batch_size"),
        n_images=segment.n_passes,
        networks=kept.folder(),
    )
    log.info(engine.why)
    if log.isEnabledFor(logging.INFO) and (gain := gain_of_bf16(engine, plan.recipes, kept.folder())):
        log.info("--precision bf16 would run %.1f times as fast here, and round features to 1 in 256", gain)
    return engine


def seconds_per_batch(recipes: list[Recipe], engine: Engine) -> float:
    """Return how long one batch takes, in seconds; by the first requests of an engine, so rather more than later."""
    frame, together = recipes[0].frame, engine.request_size
    n = -(-engine.batch_size // (_SHARE_TIMED * together)) * together
    images = np.zeros((n, frame.height, frame.width, 3), dtype=np.uint8)
    started = time.perf_counter()
    engine.run(images)
    return (time.perf_counter() - started) * engine.batch_size / n


# The probe: does this machine compute the rows that are there already?


def check_probes(store: Store, recipes: list[Recipe], engine: Engine) -> None:
    """Measure the probe, compare it with what the rows of `recipes` were computed with, and keep it for the next run.

    Raises
    ------
    ProbeError
        If this machine would compute other pixels or other features.
    """
    measured = probe.measure(prepare, engine, recipes[0].frame)
    for recipe, now in zip(recipes, measured, strict=True):
        before = stored_probe(store, recipe)
        if before is None:
            store.put_record(_probe_record(recipe), {name: _encode(array) for name, array in now.items()})
        else:
            probe.compare(before, now, recipe.precision)


def stored_probe(store: Store, recipe: Recipe) -> Probe | None:
    """Return the probe that rows of `recipe` in this cache were computed with, None if there is none yet."""
    record = store.record(_probe_record(recipe))
    if record is not None:
        return {name: _decode(entry) for name, entry in record.items()}
    for table in store.tables():
        if table.key == recipe.key and table.probe:
            return dict(table.probe)
    return None


def _probe_record(recipe: Recipe) -> str:
    return f"probe-{recipe.key}"


def _encode(array: np.ndarray) -> dict[str, Any]:
    data = base64.b85encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"dtype": array.dtype.str, "shape": list(array.shape), "data": data}


def _decode(entry: dict[str, Any]) -> np.ndarray:
    flat = np.frombuffer(base64.b85decode(entry["data"]), dtype=entry["dtype"])
    return flat.reshape(entry["shape"])
