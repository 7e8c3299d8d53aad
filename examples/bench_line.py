"""How fast the line between images and network is, with a stub in the network's place.

    python examples/bench_line.py                        # an engine without a limit, and one of 8,000/s
    python examples/bench_line.py --images 40000 --rate 5000 --json

Images are decoded already (uint8 arrays) or JPEG files of the network's size, 32 × 32 unless --size says otherwise, so
that little is decoding. The stub takes `1 / rate` seconds an image in a thread of its own, holds no core meanwhile, and
gives rows of efficientnet_lite0's 1,280 features. For each run:

  images/s       from the first image read to the last segment committed
  main µs        processor time of the main thread, per image (`time.thread_time`; other processes do not count)
  all µs         processor time of this process and its decoders, per image
  idle %         of the time in which the engine could have worked, that in which it had nothing to do
  at ends %      the part of it that lies between the last batch of a segment and the first of the next

Expected on two cores: at most 60 µs an image in the main thread, 12,000 images/s where the engine has no limit, and at
most 2 % at segment ends.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from featx import extraction
from featx.engines import Engine
from featx.extraction import Options
from featx.extraction.executors import LocalExecutor, compute_missing
from featx.extraction.plan import Plan, make_plan
from featx.recipe import Recipe, Request
from featx.store.segments import Segment, list_segments

BATCH = 256


class Stub:
    """A network of a fixed speed, which notes when it worked."""

    def __init__(self, recipes: list[Recipe], rate: float | None) -> None:
        self._seconds = 1 / rate if rate else 0.0
        self._rows = np.random.default_rng(0).normal(size=(BATCH, *recipes[0].shape)).astype(np.float32)
        self.worked: list[tuple[float, float, int]] = []
        self.engine = Engine(self, recipes, name="eager", batch_size=BATCH, why="a stub", n_at_once=1, padded=False)

    def __call__(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Take as long as the network would."""
        started = time.perf_counter()
        time.sleep(self._seconds * len(pixels))
        self.worked.append((started, time.perf_counter(), len(pixels)))
        return [self._rows[: len(pixels)]]

    def idle(self, segment_rows: int) -> tuple[float, float]:
        """Return the shares of its time without work: in all, and after the last batch of a segment."""
        worked = self.worked[1:]  # without what it was timed on
        gaps = [max(0.0, after[0] - before[1]) for before, after in itertools.pairwise(worked)]
        done = np.cumsum([n for _, _, n in worked])[:-1]
        at_ends = sum(gap for gap, n in zip(gaps, done, strict=True) if n % segment_rows == 0)
        seconds = worked[-1][1] - worked[0][0]
        return sum(gaps) / seconds, at_ends / seconds


def jpegs(folder: Path, n: int, size: int) -> Path:
    rng = np.random.default_rng(0)
    for i in range(n):
        small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((size, size))
        path = folder / f"{i % 100:02d}" / f"{i:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small.save(path, quality=90)
    return folder


def cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measure(plan: Plan, rate: float | None) -> dict[str, float]:
    """Compute all rows of `plan` once."""
    stub, n = Stub(plan.recipes, rate), len(plan.dataset)
    (everything,) = plan.missing()
    executor = LocalExecutor(stub.engine)
    started, main, every = time.perf_counter(), time.thread_time(), cpu_seconds()
    tally = compute_missing(plan, executor)
    main, every = time.thread_time() - main, cpu_seconds() - every
    seconds = time.perf_counter() - started
    assert tally.computed == len(everything), tally.failures
    store, key = plan.store, plan.recipes[0].key
    segments = [Segment(store.disk, store.root, key, path) for path in list_segments(store.disk, store.root, key)]
    idle, at_ends = stub.idle(max(len(segment.rows) for segment in segments))
    return {
        "images/s": n / tally.seconds, "main µs": 1e6 * main / n, "all µs": 1e6 * every / n,
        "idle %": 100 * idle, "at ends %": 100 * at_ends, "whole s": seconds,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=40_000, help="how many, of each kind")
    parser.add_argument("--rate", type=float, default=8_000.0, help="images a second of the engine that has a limit")
    parser.add_argument("--size", type=int, default=32, help="pixels of an image's side")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each; the median counts")
    parser.add_argument("--workers", type=int, help="decoding processes")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    arguments = parser.parse_args()
    request = Request(backbone="efficientnet_lite0", weights="none", image_size=arguments.size)
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        pixels = np.random.default_rng(0).integers(
            0, 256, (arguments.images, arguments.size, arguments.size, 3), dtype=np.uint8
        )
        sources = {"arrays": pixels, "jpegs": jpegs(Path(folder) / "jpegs", arguments.images, arguments.size)}
        for name, source in sources.items():
            dataset = extraction.open_dataset(source)
            for rate in (None, arguments.rate):
                rounds = []
                for i in range(arguments.rounds):
                    store = extraction.open_store(Path(folder) / f"{name}-{rate}-{i}")
                    plan = make_plan(dataset, request, store, Options(workers=arguments.workers))
                    rounds.append(measure(plan, rate))
                kind = f"{name}, {f'{rate:,.0f}/s' if rate else 'no limit'}"
                found[kind] = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
                if not arguments.json:
                    print(f"{kind:20}", *(f"{key} {value:9,.1f}" for key, value in found[kind].items()), flush=True)
    if arguments.json:
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
