"""Kill extractions, thousands of times, and see whether the cache ever lies or loses.

    python examples/soak_cache.py --kills 1000       # kill -9, two extractors at a time
    python examples/soak_cache.py --flips            # every single bit of a segment and a table

Two real extractions of the same images (a tiny network, dozens of segments) run into one cache. One
or both are killed at a random moment and started again, until the table is published; then a fresh
cache follows. After each kill the cache is opened: every row in it must be bit-equal to that of an
uninterrupted run and joined to its own item, every row that was seen before must still be there, and
every finished table must be the uninterrupted one.

Children are forked from this process, which has imported everything: a round takes a second, not ten.
Expected: ``0 unreadable, 0 lost, 0 wrong, 0 doubled, 0 misjoined``, and every table bit-equal. A thousand
kills take ten minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py  # noqa: F401 - imported here so that children need not
import numpy as np
import torch

from featx import extraction
from featx.errors import CorruptFileError
from featx.extraction import Options
from featx.features import Features
from featx.recipe import Request
from featx.store import Disk, Store, TableContent
from featx.store.segments import Segment

N_IMAGES, BATCH, SEGMENT_ROWS = 480, 4, 8
REQUEST = Request(backbone="soak_cache:tiny", weights="none", version="1")
HOW = Options(engine="eager", workers=0, batch_size=BATCH)
PLAN = {"engine": "eager", "batch_size": BATCH, "segment_rows": SEGMENT_ROWS}


def tiny():
    """Return a network so small that a kill more often hits the cache than the arithmetic."""
    layers = [torch.nn.Conv2d(3, 8, 3, stride=2), torch.nn.ReLU(), torch.nn.Conv2d(8, 24, 3, stride=2), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers), {"height": 16, "width": 16, "resize": "squash"}


def extract(data: Path, cache: Path, on_progress=None) -> None:
    """Extract the images in `data`, as this process."""
    extraction.run(extraction.open_dataset(data), REQUEST, cache=cache, options=HOW, on_progress=on_progress)


@dataclass
class Report:
    """What was seen."""

    kills: int = 0
    kills_in_mid_work: int = 0
    caches: int = 0
    tables: int = 0
    tables_bit_equal: int = 0
    rows_checked: int = 0
    unreadable: int = 0
    lost: int = 0
    wrong: int = 0
    doubled: int = 0
    misjoined: int = 0
    seconds: float = 0.0


class Soak:
    """The images, the oracle, and a loop of kills."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random, self.report = folder, random.Random(seed), Report()
        pixels = np.random.default_rng(seed).integers(0, 256, (N_IMAGES, 16, 16, 3), dtype=np.uint8)
        self.data = folder / "images.npz"
        np.savez(self.data, X=pixels, y=pixels[:, 0, 0, 0] % 3)
        self.key = self.learn_key(pixels)
        started = time.perf_counter()
        self.oracle = Features.open(self.in_child(self.cache("oracle")))
        self.duration = time.perf_counter() - started
        self.truth = {item.tobytes(): (row, label) for item, row, label in self.oracle_rows()}

    def learn_key(self, pixels: np.ndarray) -> str:
        """Return the key of the recipe, from an extraction of four images; it also imports all there is to import."""
        torch.set_num_threads(1)  # a process with threads of its own cannot be forked
        np.savez(self.folder / "four.npz", X=pixels[:4], y=[0, 1, 2, 0])
        extract(self.folder / "four.npz", self.folder / "first")
        return next(Store(self.folder / "first").tables()).key

    def oracle_rows(self):
        """Yield item id, row and label of the uninterrupted extraction."""
        return zip(self.oracle.item_ids, self.oracle.X, self.oracle.y, strict=True)

    def cache(self, name: str) -> Path:
        """Make a cache with a plan of many small segments."""
        root = self.folder / name
        store = Store(root)
        store.require_writable()
        store.plan(self.key, PLAN)
        return root

    def in_child(self, root: Path) -> Path:
        """Extract in one child to the end, and return the table."""
        pid, _ = self.fork(root)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            raise SystemExit("an uninterrupted extraction failed")
        (path,) = Store(root).catalog.all_tables()
        return path

    def fork(self, root: Path) -> tuple[int, int]:
        """Start an extraction; return its process and a pipe that gets a byte with each batch."""
        batches, told = os.pipe()
        pid = os.fork()
        if pid:
            os.close(told)
            return pid, batches
        code = 1
        try:
            extract(self.data, root, on_progress=lambda _: os.write(told, b"."))
            code = 0
        finally:
            os._exit(code)

    def run(self, n_kills: int) -> Report:
        """Go through caches until `n_kills` extractions have been killed."""
        started, said = time.perf_counter(), 0
        while self.report.kills < n_kills:
            self.one_cache(n_kills)
            if self.report.kills >= said + 50:
                said = self.report.kills
                print(f"{said} kills, {asdict(self.report)}", file=sys.stderr, flush=True)
        self.report.seconds = round(time.perf_counter() - started, 1)
        return self.report

    def one_cache(self, n_kills: int) -> None:
        """Kill extractions into a fresh cache until one gets through."""
        root, seen = self.cache(f"cache-{self.report.caches}"), set()
        self.report.caches += 1
        running = [self.fork(root), self.fork(root)]
        while running:
            pid, batches = self.random.choice(running)
            if self.random.random() < 0.8:
                select.select([batches], [], [], 2 * self.duration)  # most kills shall strike in mid-work
            time.sleep(self.random.uniform(0, 0.6 * self.duration))
            victims = running if self.random.random() < 0.3 else [(pid, batches)]
            for victim in list(victims) if self.report.kills < n_kills else []:
                running.remove(victim)
                if self.kill(*victim):
                    running.append(self.fork(root))
            seen = self.check(root, seen)
            running = [child for child in running if not self.is_over(*child)]
        self.check_tables(root)
        shutil.rmtree(root)

    def kill(self, pid: int, pipe: int) -> bool:
        """Kill an extraction; True if it was still at it."""
        os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        began = bool(os.read(pipe, 1 << 16))
        os.close(pipe)
        if not os.WIFSIGNALED(status):
            return False
        self.report.kills += 1
        self.report.kills_in_mid_work += began
        return True

    def is_over(self, pid: int, pipe: int) -> bool:
        """Say whether an extraction ended by itself, which it must do well."""
        over, status = os.waitpid(pid, os.WNOHANG)
        if over:
            os.close(pipe)
            self.report.unreadable += os.waitstatus_to_exitcode(status) != 0
        return bool(over)

    def check(self, root: Path, seen: set[bytes]) -> set[bytes]:
        """Compare what the cache holds with the oracle; return the items that it holds."""
        items = self.oracle.item_ids
        try:
            store = Store(root)
            found = store.find(self.key, items)
            rows = store.read(self.key, items[found]) if found.any() else []
        except CorruptFileError as error:
            print(error, file=sys.stderr)
            self.report.unreadable += 1
            return seen
        here = [item.tobytes() for item in items[found]]
        self.report.lost += len(seen - set(here))
        self.report.wrong += sum(
            row.tobytes() != self.truth[item][0].tobytes() for item, row in zip(here, rows, strict=True)
        )
        self.report.rows_checked += len(here)
        return set(here)

    def check_tables(self, root: Path) -> None:
        """Hold the published table against the uninterrupted one: rows, order, labels, ids."""
        for path in Store(root).catalog.all_tables():
            t, oracle = Features.open(path), self.oracle
            X, names = t.X, t.ids.tolist()
            report, joined = self.report, dict(zip(oracle.ids.tolist(), self.oracle_rows(), strict=True))
            report.tables += 1
            report.lost += len(set(joined) - set(names))
            report.doubled += len(names) - len(set(names))
            for name, item, row, label in zip(names, t.item_ids, X, t.y, strict=True):
                item_there, row_there, label_there = joined[name]
                report.wrong += row.tobytes() != row_there.tobytes()
                report.misjoined += (item.tobytes(), label) != (item_there.tobytes(), label_there)
            report.tables_bit_equal += X.tobytes() == oracle.X.tobytes() and names == oracle.ids.tolist()


def flip_all(folder: Path) -> dict[str, int]:
    """Flip every single bit of a segment and of a table, and read each in full."""
    store, items = Store(folder), np.random.default_rng(0).integers(0, 256, (6, 32), dtype=np.uint8)
    rows = np.arange(30, dtype=np.float32).reshape(6, 5)
    segment = store.commit("ab" * 32, items, rows, errors=[(bytes(32), "cut off")])
    kept = folder / ".segments" / ("cd" * 32) / segment.name
    table = publish_small(store, items)
    segment = store.commit("cd" * 32, items, rows, errors=[(bytes(32), "cut off")])
    readers = {
        "segment": (segment, lambda: Segment(store.disk, folder, "cd" * 32, kept).verify()),
        "table": (table, lambda: read_all(table)),
    }
    counts = {}
    for name, (path, read) in readers.items():
        counts[f"{name}_bits"] = path.stat().st_size * 8
        counts[f"{name}_undetected"] = sum(not is_detected(path, bit, read) for bit in range(path.stat().st_size * 8))
    return counts


def publish_small(store: Store, items: np.ndarray) -> Path:
    content = TableContent(
        key="ab" * 32,
        recipe="{}",
        request="{}",
        ids=[f"{i}.jpg" for i in range(6)],
        item_ids=items,
        y=np.arange(6),
        classes=list("abcdef"),
        splits=["train"] * 6,
        errors=[("x.jpg", "cut off")],
        probe={"pixels": np.arange(4, dtype=np.uint8)},
        provenance={"host": "here"},
    )
    return store.publish("photos", "toy", content)


def read_all(path: Path) -> None:
    t = Features.open(path)
    _ = (t.X, t.y, t.ids, t.splits, t.item_ids, t.classes, t.errors, t.probe, t.provenance)
    t._table.verify()  # noqa: SLF001 - errors' item ids, which Features does not show


def is_detected(path: Path, bit: int, read) -> bool:
    disk = Disk()
    fd = disk.open(path, os.O_RDWR)
    try:
        (byte,) = os.pread(fd, 1, bit // 8)
        os.pwrite(fd, bytes([byte ^ 1 << bit % 8]), bit // 8)
        try:
            read()
        except CorruptFileError:
            return True
        finally:
            os.pwrite(fd, bytes([byte]), bit // 8)
        return False
    finally:
        disk.close(fd)


def main() -> None:
    """Run what the options say, print what was seen; exit 1 if anything was amiss."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--flips", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where caches are made; a temporary folder by default")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    logging.getLogger("featx").setLevel(logging.ERROR)
    with contextlib.ExitStack() as stack:
        folder = args.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        report = asdict(Soak(folder, args.seed).run(args.kills)) if args.kills else {}
        report |= flip_all(folder / "flips") if args.flips else {}
    print(json.dumps(report) if args.json else "\n".join(f"{value:>12,} {name}" for name, value in report.items()))
    amiss = ("unreadable", "lost", "wrong", "doubled", "misjoined", "segment_undetected", "table_undetected")
    sys.exit(any(report.get(name, 0) for name in amiss))


if __name__ == "__main__":
    main()
