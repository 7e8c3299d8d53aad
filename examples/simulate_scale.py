"""What a million, a hundred million and ten billion images cost, and what breaks first.

    python examples/simulate_scale.py                                  # measures this machine, about two minutes
    python examples/simulate_scale.py --images-per-second 900 --machines 8 --json > scale.json
    python examples/simulate_scale.py --costs scale.json --memory 256GiB   # the same costs, other machines

Costs of one image, one segment and one row are measured here with the code that featx runs: listing and hashing files,
the memo of hashes, commits, the catalog, publishing, opening, reading. All else is arithmetic on them. The plan for
``--plan`` items (100 million) is not: it is made, in a process of its own, by the code that plans an extraction.

Expected on two cores with 24 GiB: that plan takes a minute of processor time and 6.2 GiB, 66 bytes an item. The first
to break is the catalog, at some forty million images where 53 a second are computed: it is indexed anew after each
segment. Next is memory, at some seventy millions: that of publishing, and of opening what was published.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from featx.cli.common import n_bytes_text, seconds_text, table
from featx.datasets import Dataset, item_id, open_dataset
from featx.extraction.plan import Plan as ExtractionPlan
from featx.extraction.segments import segment_rows
from featx.features import Features
from featx.recipe import Frame, Recipe, Request
from featx.settings import parse_bytes
from featx.store import Store, TableContent
from featx.store.catalog import KeyRows

COUNTS = (1_000_000, 100_000_000, 10_000_000_000)
#: Files that a folder of ext4 holds before its index is full (two levels of 4 KiB, names of 43 bytes).
MOST_FILES = 10_000_000
#: Bytes of a photo, for the time that hashing takes.
IMAGE_BYTES = 110_000


@dataclass(frozen=True)
class Costs:
    """What was measured. Seconds and bytes; ``row`` is an image in a table, ``file`` a segment in its folder."""

    images_per_second: float
    row_bytes: int
    segment_rows: int
    list_seconds_per_image: float
    list_bytes_per_image: float
    hash_bytes_per_second: float
    memo_seconds_per_image: float
    memo_bytes_per_image: float
    memo_disk_bytes_per_image: float
    commit_seconds_per_segment: float
    look_seconds_per_file: float
    index_seconds_per_row: float
    publish_seconds_per_row: float
    publish_bytes_per_row: float
    table_disk_bytes_per_row: float
    open_bytes_per_row: float
    read_bytes_per_second: float
    shuffled_bytes_per_second: float


@dataclass(frozen=True)
class Plan:
    """A plan that was made: of how many items, into how many segments, in which time, and the memory at its peak."""

    items: int
    segments: int
    seconds: float
    processor_seconds: float
    n_bytes: int


@dataclass(frozen=True)
class Scale:
    """What some number of images costs; hours are of one machine, memory is that of one process."""

    images: int
    compute_hours: float
    hash_hours: float
    list_hours: float
    commit_hours: float
    index_hours: float
    publish_hours: float
    read_hours: float
    disk_bytes: float
    table_bytes: float
    files: int
    plan_bytes: float
    list_bytes: float
    memo_bytes: float
    publish_bytes: float
    open_bytes: float

    @property
    def hours(self) -> float:
        """All that an extraction takes."""
        steps = (self.compute_hours, self.hash_hours, self.list_hours, self.commit_hours, self.index_hours)
        return sum(steps) + self.publish_hours


@dataclass(frozen=True)
class Break:
    """From how many images on a part does not do any more, and why."""

    part: str
    images: float
    why: str


# Measuring


def timed(work: Callable[[], object]) -> float:
    """Return seconds on the clock."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def traced(work: Callable[[], object]) -> tuple[object, int]:
    """Return what `work` made, and the memory that it took at its peak."""
    tracemalloc.start()
    made = work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return made, peak


def random_ids(n: int, seed: int = 0, width: int = 32) -> np.ndarray:
    words = np.random.default_rng(seed).integers(0, 1 << 64, (n, width // 8), dtype=np.uint64)
    return words.view(np.uint8)


def recipe_of(d: int) -> Recipe:
    frame = Frame(height=224, width=224, resize="crop", shorter=256, interpolation="bicubic")
    return Recipe(
        backbone="scale", weights="none", weights_digest="0" * 64, layer="last", pool="avg", shape=(d,),
        dtype="float32", precision="fp32", frame=frame, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5),
    )  # fmt: skip


def measure_images_per_second(folder: Path, n: int = 192) -> float:
    """Extract `n` photos of 500 × 375 with the default backbone, and once more what it takes to start."""
    from PIL import Image

    from featx.extraction import Options, run

    (folder / "photos").mkdir()
    coarse = np.random.default_rng(0).integers(0, 256, (n, 12, 16, 3), dtype=np.uint8)
    for i, pixels in enumerate(coarse):
        Image.fromarray(pixels).resize((500, 375)).save(folder / "photos" / f"{i}.jpg", quality=90)
    return (
        run(open_dataset(folder / "photos"), Request(), cache=folder / "extracted", options=Options()).images_per_second
        or math.nan
    )


def measure_listing(folder: Path, n: int) -> tuple[float, float]:
    """Return seconds and bytes an image: of finding files, and of what a dataset keeps of each."""
    for i in range(n):
        path = folder / f"class-{i % 100:03}" / f"image-{i:09}.jpg"
        if i < 100:
            path.parent.mkdir(parents=True)
        path.touch()
    seconds = timed(lambda: open_dataset(folder).stamps())
    _, n_bytes = traced(lambda: open_dataset(folder))
    return seconds / n, n_bytes / n


def measure_memo(folder: Path, n: int) -> tuple[float, float, float]:
    """Return seconds, bytes of memory and bytes on disk an image of remembering hashes and finding them again."""
    stamps, ids = random_ids(n, 1, 16), random_ids(n)
    seconds = timed(lambda: Store(folder).remember_hashes(stamps, ids))
    seconds += timed(lambda: Store(folder).known_hashes(stamps))
    _, n_bytes = traced(lambda: Store(folder).known_hashes(stamps))
    return seconds / n, n_bytes / n, sum(path.stat().st_size for path in (folder / ".hashes").iterdir()) / n


def measure_rows(folder: Path, d: int, n_rows: int) -> tuple[float, float, float]:
    """Return seconds a commit of `n_rows`, and bytes a second that a table of four reads in order and shuffled."""
    store, recipe, n = Store(folder, limit=1), recipe_of(d), 4 * n_rows
    ids, rows = random_ids(n), np.random.default_rng(0).standard_normal((n_rows, d), dtype=np.float32)
    commits = [
        timed(lambda start=start: store.commit(recipe.key, ids[start : start + n_rows], rows))
        for start in range(0, n, n_rows)
    ]
    features = Features.open(publish(store, recipe, ids))
    n_bytes = math.prod(features.shape) * features.dtype.itemsize
    read = [
        n_bytes / timed(lambda shuffle=shuffle: [None for _ in features.blocks(16 << 20, shuffle=shuffle)])
        for shuffle in (False, True)
    ]
    return statistics.median(commits), read[0], read[1]


def publish(store: Store, recipe: Recipe, ids: np.ndarray) -> Path:
    n = len(ids)
    content = TableContent(
        key=recipe.key, recipe=recipe.to_json(), request=Request().to_json(), item_ids=ids,
        ids=[f"class-{i % 100:03}/image-{i:09}.jpg" for i in range(n)], y=np.arange(n) % 100,
        classes=[f"class-{i:03}" for i in range(100)], splits=["train"] * n,
    )  # fmt: skip
    return store.publish("scale", "rows", content)


def measure_table(folder: Path, n: int) -> dict[str, float]:
    """Return what a row costs in the catalog, when a table is published, and when that is opened."""
    store, recipe, ids = Store(folder, limit=1), recipe_of(1), random_ids(n)
    step = max(1, n // 100)
    for start in range(0, n, step):
        store.commit(recipe.key, ids[start : start + step], np.zeros((len(ids[start : start + step]), 1), np.float32))
    holdings = store.catalog.rows(recipe.key).holdings
    again = [timed(lambda: store.catalog.rows(recipe.key)) for _ in range(5)]
    index = min(timed(lambda: KeyRows(store.disk, store.root, recipe.key, holdings)) for _ in range(5))
    seconds = timed(lambda: publish(store, recipe, ids))
    path, n_bytes = traced(lambda: publish(Store(folder / "again", limit=1), recipe, filled(folder / "again", ids)))
    assert isinstance(path, Path)
    _, opened = traced(lambda: [Features.open(path).ids, Features.open(path).item_ids])
    return {
        "look_seconds_per_file": statistics.median(again) / len(holdings),
        "index_seconds_per_row": index / n,
        "publish_seconds_per_row": seconds / n,
        "publish_bytes_per_row": n_bytes / n,
        "table_disk_bytes_per_row": path.stat().st_size / n,
        "open_bytes_per_row": opened / n,
    }


def filled(folder: Path, ids: np.ndarray) -> np.ndarray:
    Store(folder).commit(recipe_of(1).key, ids, np.zeros((len(ids), 1), np.float32))
    return ids


def measure(folder: Path, d: int, images_per_second: float | None, n: int) -> Costs:
    """Measure all costs, those of rows on `n` of them."""
    rate = images_per_second or measure_images_per_second(folder)
    rows = segment_rows([recipe_of(d)], 64, 64 / rate)
    list_seconds, list_bytes = measure_listing(folder / "files", n // 10)
    memo_seconds, memo_bytes, memo_disk = measure_memo(folder / "memo", n)
    commit, read, shuffled = measure_rows(folder / "rows", d, min(rows, n))
    blob = bytes(IMAGE_BYTES)
    return Costs(
        images_per_second=rate,
        row_bytes=recipe_of(d).row_bytes,
        segment_rows=rows,
        list_seconds_per_image=list_seconds,
        list_bytes_per_image=list_bytes,
        hash_bytes_per_second=IMAGE_BYTES / statistics.median(timed(lambda: item_id(blob)) for _ in range(200)),
        memo_seconds_per_image=memo_seconds,
        memo_bytes_per_image=memo_bytes,
        memo_disk_bytes_per_image=memo_disk,
        commit_seconds_per_segment=commit * rows / min(rows, n),
        read_bytes_per_second=read,
        shuffled_bytes_per_second=shuffled,
        **measure_table(folder / "table", n),
    )


# Planning


class Numbered(Sequence):
    """Ids that are made when they are asked for."""

    def __init__(self, n: int) -> None:
        self._n = n

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, i: int) -> str:
        return f"image-{i:012}.jpg"


def make_plan(n: int, rows_per_segment: int) -> Plan:
    """Plan `n` images of which the cache holds none, as an extraction does once their hashes are known."""
    nothing = np.zeros(1, np.int8)
    dataset = Dataset(
        title="scale", identity=lambda: "scale", ids=Numbered(n), classes=(), images=None,
        labels=np.broadcast_to(nothing, n), given_splits=np.broadcast_to(np.array([""]), n),
    )  # fmt: skip
    before = memory_bytes("VmRSS")
    item_ids = random_ids(n)
    with tempfile.TemporaryDirectory() as folder:
        plan = ExtractionPlan(dataset, Request(), [recipe_of(1280)], Store(folder), item_ids)
        started, processor = time.perf_counter(), time.process_time()
        segments = [segment for missing in plan.missing() for segment in missing.cut(rows_per_segment)]
        seconds, processor = time.perf_counter() - started, time.process_time() - processor
    return Plan(n, len(segments), seconds, processor, memory_bytes("VmHWM") - before)


def memory_bytes(field: str) -> int:
    """Read what Linux says of this process; rusage would count what its parent took before it started this one."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith(field)).split()[1])


def plan_apart(n: int, rows_per_segment: int) -> Plan:
    """Make a plan in a process of its own, so that its peak is that of the plan."""
    words = [sys.executable, __file__, "--only-plan", str(n), str(rows_per_segment)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return Plan(**json.loads(done.stdout))


# Arithmetic


def scale_of(n: int, costs: Costs, plan: Plan) -> Scale:
    """Return what `n` images cost."""
    segments = math.ceil(n / costs.segment_rows)
    seconds = {
        "compute": n / costs.images_per_second,
        "hash": n * (IMAGE_BYTES / costs.hash_bytes_per_second + costs.memo_seconds_per_image),
        "list": n * costs.list_seconds_per_image,
        "commit": segments * costs.commit_seconds_per_segment,
        "index": index_seconds(n, costs),
        "publish": n * costs.publish_seconds_per_row,
        "read": n * costs.row_bytes / costs.shuffled_bytes_per_second,
    }
    features = n * costs.row_bytes
    return Scale(
        images=n,
        **{f"{name}_hours": spent / 3600 for name, spent in seconds.items()},
        disk_bytes=features + n * (costs.table_disk_bytes_per_row + costs.memo_disk_bytes_per_image),
        table_bytes=n * costs.table_disk_bytes_per_row,
        files=segments,
        plan_bytes=n * plan.n_bytes / plan.items,
        list_bytes=n * costs.list_bytes_per_image,
        memo_bytes=n * costs.memo_bytes_per_image,
        publish_bytes=n * costs.publish_bytes_per_row,
        open_bytes=n * costs.open_bytes_per_row,
    )


def index_seconds(n: float, costs: Costs) -> float:
    """Before each of S segments all files so far are looked at and all rows so far indexed: half of S² and n · S."""
    segments = n / costs.segment_rows
    return segments / 2 * (segments * costs.look_seconds_per_file + n * costs.index_seconds_per_row)


def breaks(costs: Costs, plan: Plan, memory: int) -> list[Break]:
    """Return what does not do any more from which number of images on, the first of them first."""
    plan_bytes = plan.n_bytes / plan.items
    parts = [
        ("plan", plan_bytes, "content hashes and their order"),
        ("listing", costs.list_bytes_per_image, "names as Python strings"),
        ("memo of hashes", costs.memo_bytes_per_image, "stamps and hashes"),
        ("publish", costs.publish_bytes_per_row, "columns in memory"),
        ("opening a table", costs.open_bytes_per_row, "its row index, ids and hashes"),
    ]
    room = n_bytes_text(memory)
    found = [Break(name, memory / each, f"{what}: {each:,.0f} B an image fill {room}") for name, each, what in parts]
    files = MOST_FILES * costs.segment_rows
    found.append(
        Break("folder of segments", files, f"{MOST_FILES:,} files of {costs.segment_rows:,} rows in one folder")
    )
    tenth = 0.1 / costs.images_per_second / (index_seconds(1e6, costs) / 1e12)
    found.append(Break("catalog", tenth, "indexed anew after each segment: a tenth of the time to compute"))
    return sorted(found, key=lambda one: one.images)


# Output


def as_text(costs: Costs, plan: Plan, scales: list[Scale], found: list[Break], machines: int) -> str:
    rows = [
        ["computing", *(hours_text(one.compute_hours) for one in scales)],
        ["hashing", *(hours_text(one.hash_hours) for one in scales)],
        ["listing", *(hours_text(one.list_hours) for one in scales)],
        ["commits", *(hours_text(one.commit_hours) for one in scales)],
        ["catalog", *(hours_text(one.index_hours) for one in scales)],
        ["publish", *(hours_text(one.publish_hours) for one in scales)],
        ["machine time in all", *(hours_text(one.hours) for one in scales)],
        ["machines", *(f"{machines:,}: {hours_text(one.hours / machines)}" for one in scales)],
        ["one shuffled epoch", *(hours_text(one.read_hours) for one in scales)],
        ["disk", *(n_bytes_text(one.disk_bytes) for one in scales)],
        ["of it the table file", *(n_bytes_text(one.table_bytes) for one in scales)],
        ["segments", *(f"{one.files:,}" for one in scales)],
        ["memory: plan", *(n_bytes_text(one.plan_bytes) for one in scales)],
        ["memory: listing", *(n_bytes_text(one.list_bytes) for one in scales)],
        ["memory: memo", *(n_bytes_text(one.memo_bytes) for one in scales)],
        ["memory: publish", *(n_bytes_text(one.publish_bytes) for one in scales)],
        ["memory: open table", *(n_bytes_text(one.open_bytes) for one in scales)],
    ]
    speeds = [f"{n_bytes_text(speed)}/s" for speed in (costs.read_bytes_per_second, costs.shuffled_bytes_per_second)]
    lines = [
        f"{costs.images_per_second:,.0f} images a second; {costs.segment_rows:,} rows of {costs.row_bytes:,} bytes",
        f"committed in {costs.commit_seconds_per_segment:.2f} s; tables read at {speeds[0]}, shuffled at {speeds[1]}.",
        f"Plan of {plan.items:,} items: {plan.segments:,} segments, {plan.seconds:.1f} s, {n_bytes_text(plan.n_bytes)}",
        "",
        table(rows, ["", *(f"{one.images:,}" for one in scales)], "l" + "r" * len(scales)),
        "",
        table([[one.part, f"{one.images:,.0f}", one.why] for one in found], ["breaks", "at images", "why"], "lrl"),
        "",
        f"First: {found[0].part}, at {found[0].images:,.0f} images.",
    ]
    return "\n".join(lines)


def hours_text(hours: float) -> str:
    """Write a duration from seconds to years."""
    return seconds_text(3600 * hours) if hours < 48 else f"{hours / 24:,.0f} days"


def read_costs(path: Path) -> Costs:
    """Read the costs that ``--json`` printed before."""
    said = json.loads(path.read_text())["costs"]
    return Costs(**{field.name: said[field.name] for field in fields(Costs)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=COUNTS, help="numbers of images to tell about")
    parser.add_argument("--plan", type=int, default=100_000_000, help="items of the plan that is really made")
    parser.add_argument("--images-per-second", type=float, help="as bench_extract.py tells it; measured without")
    parser.add_argument("--features", type=int, default=1280, help="numbers a row")
    parser.add_argument("--rows", type=int, default=200_000, help="rows on which costs are measured")
    parser.add_argument("--costs", type=Path, help="a --json output to take the costs from")
    parser.add_argument("--memory", default="24GiB", help="of one machine")
    parser.add_argument("--machines", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where to measure, for example on a shared disk")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.add_argument("--only-plan", type=int, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only_plan:
        print(json.dumps(asdict(make_plan(*args.only_plan))))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        costs = (
            read_costs(args.costs)
            if args.costs
            else measure(Path(folder), args.features, args.images_per_second, args.rows)
        )
    plan = plan_apart(args.plan, costs.segment_rows)
    scales = [scale_of(n, costs, plan) for n in args.images]
    found = breaks(costs, plan, parse_bytes(args.memory))
    if args.json:
        data = {"costs": asdict(costs), "plan": asdict(plan), "breaks": [asdict(one) for one in found]}
        print(json.dumps(data | {"scales": [asdict(one) | {"hours": one.hours} for one in scales]}))
    else:
        print(as_text(costs, plan, scales, found, args.machines))


if __name__ == "__main__":
    main()
