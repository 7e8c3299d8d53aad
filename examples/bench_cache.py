"""What the cache costs and gives, measured side by side in one run.

    python examples/bench_cache.py            # 50,000 × 1,280 features; needs about 1.5 GB of disk
    python examples/bench_cache.py --json

Expected on two cores: commits under 1 % of extraction for efficientnet_lite0 at 224 pixels and under
3 % for vgg16 ``block3_pool`` at 32; verification above 500 MB/s a core; 512 random rows 8 times
(of 1,280 numbers) to 15 times (of 64) as fast as h5py's fancy indexing of a contiguous dataset, and over
a hundred times as fast as of one that can grow; sequential reads at 0.8 of ``np.fromfile`` or more; a plan for a
million images within 5 s.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from featx.features import Features
from featx.recipe import Request
from featx.store import Store, Table, TableContent

KEY = "ab" * 32
BACKBONES = {
    "efficientnet_lite0 @224": Request(backbone="efficientnet_lite0"),
    "vgg16 block3_pool @32": Request(
        backbone="vgg16", weights="none", layers=("block3_pool",), pool="flatten", image_size=32
    ),
}


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return seconds on the clock and seconds of processor time that `work` took."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


def side_by_side(repeats: int, **contestants: Callable[[], object]) -> dict[str, float]:
    """Run contestants in turn, each round in another order, and return the median seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    order = np.random.default_rng(0)
    for _ in range(repeats):
        for name in order.permutation(list(contestants)):  # who comes after h5py finds the processor's caches emptied
            seconds[name].append(timed(contestants[name])[0])
    return {name: statistics.median(times) for name, times in seconds.items()}


def random_ids(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 32), dtype=np.uint8)


def publish(store: Store, item_ids: np.ndarray) -> Path:
    n = len(item_ids)
    columns = {"ids": [f"{i:07d}.jpg" for i in range(n)], "y": np.zeros(n, np.int64), "splits": ["train"] * n}
    return store.publish(
        "bench", "rows", TableContent(key=KEY, recipe="", request="", item_ids=item_ids, classes=("one",), **columns)
    )


def overhead(folder: Path, request: Request) -> dict[str, float]:
    """Compare committing and publishing rows with computing them, in clock time on the same machine."""
    from featx import backbones, engines

    backbone, recipes = backbones.resolve(request)
    engine = engines.open_engine(backbone, recipes, n_images=50_000)
    frame, batch = recipes[0].frame, engine.batch_size
    pixels = np.random.default_rng(0).integers(0, 256, (batch, frame.height, frame.width, 3), dtype=np.uint8)
    engine.run(pixels)
    n_batches = max(4, 512 // batch)
    forwards = [timed(lambda: engine.run(pixels)) for _ in range(n_batches)]
    per_image, processor_per_image = (statistics.median(times) / batch for times in zip(*forwards, strict=True))

    n = min(8192, (64 << 20) // recipes[0].row_bytes)
    rows = np.random.default_rng(0).standard_normal((n, *recipes[0].shape), dtype=np.float32)
    store = Store(folder)
    store.commit(KEY, random_ids(n, 99), rows)
    commits = [timed(lambda seed=seed: store.commit(KEY, random_ids(n, seed), rows)) for seed in range(5)]
    published = timed(lambda: publish(store, np.concatenate([random_ids(n, seed) for seed in range(5)])))
    clock, processor = (statistics.median(times) / n for times in zip(*commits, strict=True))
    return {
        "engine": engine.name,
        "images_per_second": 1 / per_image,
        "commit_ms_per_1000": 1e6 * clock,
        "commit_percent": 100 * clock / per_image,
        "publish_percent": 100 * published[0] / (5 * n) / per_image,
        "commit_percent_of_processor_time": 100 * processor / processor_per_image,
        "publish_percent_of_processor_time": 100 * published[1] / (5 * n) / processor_per_image,
    }


def filled(folder: Path, n: int, d: int) -> Path:
    """Publish a table of noise."""
    store, item_ids = Store(folder), random_ids(n)
    for start in range(0, n, 5000):
        rows = np.random.default_rng(start).standard_normal((min(5000, n - start), d), dtype=np.float32)
        store.commit(KEY, item_ids[start : start + 5000], rows)
    return publish(store, item_ids)


def random_batches(path: Path, n: int) -> dict[str, float]:
    """512 rows from all over the table, in the order asked for: featx, h5py, and what memory itself allows.

    That is numpy gathering them from an array, and less than which nobody can do, a copy of 512 rows in a run.
    h5py reads the table as it is, contiguous, and a copy in a dataset that can grow, with chunks of its own choice.
    """
    features, picks = Features.open(path), np.random.default_rng(0).integers(0, n, (64, 512))
    whole = features[np.random.default_rng(1).permutation(n)]  # every block verified, every page mapped
    orders = {name: iter(picks) for name in ("featx", "h5py", "memory", "copy")}
    copied = np.empty_like(whole[:512])
    with h5py.File(path) as file, h5py.File(path.with_suffix(".growing.h5"), "w") as growing:
        X = file["X"]
        chunked = growing.create_dataset("X", data=whole, maxshape=(None, *whole.shape[1:]))

        def fancy(X: h5py.Dataset = X) -> np.ndarray:
            chosen, places = np.unique(next(orders["h5py"]), return_inverse=True)  # h5py takes no other order
            return X[chosen][places]

        def copy() -> None:
            start = int(next(orders["copy"])[0]) % (n - 512)
            np.copyto(copied, whole[start : start + 512])

        batch = side_by_side(
            51,
            h5py=fancy,
            featx=lambda: features[next(orders["featx"])],
            memory=lambda: whole[next(orders["memory"])],
            copy=copy,
        )
        batch |= side_by_side(5, growing=lambda: fancy(chunked))
    return {
        "random_512_ms": 1e3 * batch["featx"],
        "random_512_h5py_ms": 1e3 * batch["h5py"],
        "random_512_ratio": batch["h5py"] / batch["featx"],
        "random_512_ratio_if_it_can_grow": batch["growing"] / batch["featx"],
        "random_512_ratio_of_numpy_in_memory": batch["h5py"] / batch["memory"],
        "random_512_ratio_of_a_copy_in_memory": batch["h5py"] / batch["copy"],
    }


def reading(folder: Path, n: int, d: int) -> dict[str, float]:
    """Verification, random batches and sequential reads of one table."""
    path = filled(folder, n, d)
    size = path.stat().st_size
    clock, processor = min(timed(Table(path).verify) for _ in range(5))
    with h5py.File(path) as file:
        offset = file["X"].id.get_offset()
    batch, features = random_batches(path, n), Features.open(path)
    _ = features.X
    fresh = iter([Features.open(path) for _ in range(15)])
    stream = side_by_side(
        15,
        fromfile=lambda: np.fromfile(path, np.float32, n * d, offset=offset),
        first=lambda: next(fresh).X,
        again=lambda: features.X,
    )
    return {
        "verify_MB_per_second": size / clock / 1e6,
        "verify_MB_per_processor_second": size / processor / 1e6,
        **batch,
        "sequential_ratio": stream["fromfile"] / stream["again"],
        "sequential_ratio_with_verification": stream["fromfile"] / stream["first"],
    }


def planning(folder: Path, n: int) -> dict[str, float]:
    """How long a run over `n` images needs to know what is missing, when half of them are in the cache."""
    store, item_ids, stamps = Store(folder), random_ids(n), random_ids(n, 1)[:, :16].copy()
    store.remember_hashes(stamps, item_ids)
    half = n // 2
    for start in range(0, half, 50_000):
        store.commit(
            KEY, item_ids[start : min(half, start + 50_000)], np.zeros((min(50_000, half - start), 8), np.float32)
        )
    publish(store, item_ids[:half])

    def plan() -> None:
        again = Store(folder)
        known_ids, known = again.known_hashes(stamps)
        missing = np.flatnonzero(~again.find(KEY, known_ids))
        again.known_errors(KEY, known_ids)
        names = [again.segment_name(known_ids[rows]) for rows in np.split(missing, range(4096, len(missing), 4096))]
        assert known.all()
        assert len(missing) == n - half
        assert len(names) == -(-len(missing) // 4096)

    return {"plan_images": n, "plan_seconds": timed(plan)[0]}


def main() -> None:
    """Measure all, and print it as a table or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--folder", type=Path, default=Path(), help="a folder on the disk to measure")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        parts = {
            "reading rows of 1,280 numbers": lambda: reading(folder / "reading", args.rows, 1280),
            "reading rows of 256 numbers": lambda: reading(folder / "narrow", args.rows, 256),
            "reading rows of 64 numbers": lambda: reading(folder / "narrowest", args.rows, 64),
            "planning": lambda: planning(folder / "planning", 1_000_000),
        }
        for label, request in BACKBONES.items():
            parts[label] = lambda label=label, request=request: overhead(folder / label, request)
        report = {}
        for label, measure in parts.items():
            report[label] = measure()
            if not args.json:
                print(label)
                for what, value in report[label].items():
                    print(f"  {what:<36}", value if isinstance(value, str) else f"{value:,.4g}", flush=True)
    if args.json:
        print(json.dumps(report))


if __name__ == "__main__":
    main()
