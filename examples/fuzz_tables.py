"""Change one thing at a time in tables and segments, with every digest set right, as someone who means harm would.

    python examples/fuzz_tables.py --n 2000

Each mutant is put in the place of the true file of a small cache, and everything that reads it is asked: `Features`
with its columns, rows, views and exports, ``featx cache list``, ``verify``, ``gc`` and ``rm``, and a run that adds rows
and publishes. What featx refuses on purpose is fine; any other exception is a fault, and so are a crash, more than
1 GiB of memory, and more than 10 s of processor time. Expected: no fault.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import multiprocessing
import pickle
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from featx.errors import FeatxError
from featx.features import Features
from featx.recipe import Frame, Recipe, Request, Views
from featx.store import Store, TableContent, maintenance, segment_name
from featx.store.container import FORMAT, MAGIC, extent_from_json
from featx.store.hdf5 import Extent, Inspector, gaps_between
from featx.store.maintenance import collect, entries, reclaimable, remove_table, verify
from featx.store.rows import block_rows, digest

MOST_BYTES = 1 << 30
#: Of processor time: the machine may be busy with others.
MOST_SECONDS = 10
#: Values that no field is ready for, unless it is.
VALUES: list[Any] = [
    None, True, False, -1, 0, 1, 2, 3, 7, 2**31, 2**40, 2**61, 2**62 - 1, 2**62, 2**64, 10**400,
    0.5, 1e308, float("nan"), float("inf"), "", "x", "0", "-1", "\0", "\ud800", "💣" * 100, "a" * 70_000,
    "../../../etc/passwd", "/dev/zero", "view.h5", "{}", "[]", "null", "1e400", "[" * 5000, '{"a":' * 3000,
    [], {}, [[]], [None], [0], [1, 2], [-1], [2**61, 2**61], [0, 2**61], [2**40, 0], {"": ""}, {"a": {"b": 1}},
    "<f4", "<f8", "<f2", "<i4", "<i8", "|u1", "|S1", "|S65536", "|S999999", "|O", "<M8[ns]", "<c16", ">f4", "|b1",
    [["id", "|S3"], ["reason", "|S7"]], [["id", "|S3"], ["id", "|S3"]], [["", "<f4"]], [["a" * 70_000, "<f4"]],
]  # fmt: skip


def recipe_of(shape: tuple[int, ...], **changes: Any) -> Recipe:
    frame = Frame(height=64, width=64, resize="crop", shorter=64, interpolation="bilinear")
    fields: dict[str, Any] = {
        "backbone": "torchvision/alexnet", "weights": "random-0", "weights_digest": "0" * 64, "layer": "features",
        "pool": "avg" if len(shape) == 1 else "none", "shape": shape, "dtype": "float32", "precision": "fp32",
        "frame": frame, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5),
    }  # fmt: skip
    return Recipe(**fields | changes)


ITEMS = np.random.default_rng(0).integers(0, 256, (12, 32), dtype=np.uint8)


def rows_of(items: np.ndarray, recipe: Recipe) -> np.ndarray:
    width = int(np.prod(recipe.shape))
    return np.resize(items, (len(items), width)).astype(recipe.dtype).reshape(len(items), *recipe.shape)


def publish(store: Store, stem: str, recipe: Recipe, n: int, views: tuple[str, ...] = ()) -> Path:
    content = TableContent(
        key=recipe.key, recipe=recipe.to_json(), request=Request(backbone="alexnet", weights="none").to_json(),
        ids=[f"{i}.jpg" for i in range(n)], item_ids=ITEMS[:n], y=np.arange(n) % 3 - 1, classes=("cat", "dog"),
        splits=["train", "test", ""] * (n // 3), errors=[("bad.jpg", "cut off")], probe={"pixels": np.arange(4)},
        provenance={"host": "here"}, views=views,
    )  # fmt: skip
    return store.publish("photos", stem, content)


def make_caches(root: Path) -> dict[Path, Recipe]:
    """Write small caches below `root`, with one of each kind of file; return which are changed, and their recipes."""
    targets = {}
    plans = {"plain": recipe_of((4,)), "half": recipe_of((4,), dtype="float16"), "maps": recipe_of((2, 3, 2))}
    for stem, recipe in plans.items():
        store = Store(root / stem)
        store.commit(recipe.key, ITEMS[:6], rows_of(ITEMS[:6], recipe), errors=[(bytes(31) + b"e", "cut off")])
        targets[publish(store, stem, recipe, 6)] = recipe
    viewed, store = recipe_of((5,)), Store(root / "views")
    view = Views(n=2, augment="light", seed=0).recipe(viewed, 1)
    for recipe in (viewed, view):
        store.commit(recipe.key, ITEMS[:6], rows_of(ITEMS[:6], recipe))
    of_view = publish(store, "viewed-view1", view, 6)
    targets[publish(store, "viewed", viewed, 6, (of_view.name,))] = viewed
    targets[of_view] = viewed
    many, large = recipe_of((3,)), Store(root / "many", limit=1)
    for start in (0, 3):
        targets[large.commit(many.key, ITEMS[start : start + 3], rows_of(ITEMS[start : start + 3], many))] = many
    targets[publish(large, "many", many, 6)] = many
    loose, store = recipe_of((6,)), Store(root / "loose")
    targets[store.commit(loose.key, ITEMS[:6], rows_of(ITEMS[:6], loose), errors=[(bytes(32), "x")])] = loose
    return {path.relative_to(root): recipe for path, recipe in targets.items()}


# Mutants


def mutant(content: bytes, chance: random.Random) -> tuple[str, bytes]:
    """Return what was changed, and the changed file with every digest set right."""
    user_block = int.from_bytes(content[8:12], "little")
    header, image = json.loads(content[32:user_block].rstrip(b"\0")), bytearray(content)
    kind = chance.choices(["header", "attribute", "array", "structure", "bits"], [5, 4, 5, 2, 1])[0]
    if kind == "header":
        what = change(header, chance)
    elif kind == "attribute":
        name = chance.choice(list(header["attributes"]))
        inner = {"": header["attributes"][name]}
        with contextlib.suppress(ValueError):
            inner = {"": json.loads(header["attributes"][name])}
        what = f"{name}: {change(inner, chance)}"
        value = inner.get("")
        header["attributes"][name] = value if isinstance(value, str) and chance.random() < 0.5 else json.dumps(value)
    elif kind == "array":
        what = change_array(header, image, chance)
    elif kind == "structure":
        extents = {name: extent_from_json(extent) for name, extent in header["arrays"].items()}
        low, high = chance.choice(gaps_between(extents, user_block, len(image)))
        what = "structure"
        for _ in range(chance.choice([1, 1, 4, 64])):
            image[chance.randrange(low, high)] = chance.choice([0, 1, 255, chance.randrange(256)])
    else:
        what = "bits"
        for _ in range(chance.choice([1, 8])):
            image[chance.randrange(user_block, len(image))] ^= 1 << chance.randrange(8)
    return what, sealed(header, image, user_block)


def change(node: Any, chance: random.Random, name: str = "") -> str:
    """Change one field somewhere below `node`, in place; return its name."""
    keys = list(node) if isinstance(node, dict) else list(range(len(node)))
    key = chance.choice(keys)
    if isinstance(node[key], dict | list) and node[key] and chance.random() < 0.8:
        return change(node[key], chance, f"{name}.{key}")
    what = chance.randrange(8)
    if what == 0:
        del node[key]
    elif what == 1 and isinstance(node, dict):
        node[chance.choice(["X", "a/b/c", "..", "", "views/table", "segmented"])] = node[key]
    elif what == 2 and type(node[key]) is int:
        node[key] += chance.choice([-64, -1, 1, 64, 512])
    else:
        node[key] = chance.choice(VALUES)
    return f"{name}.{key}"


def change_array(header: dict[str, Any], image: bytearray, chance: random.Random) -> str:
    """Overwrite some of an array's bytes with what is least expected."""
    name = chance.choice([name for name, extent in header["arrays"].items() if extent_from_json(extent).n_bytes])
    extent = extent_from_json(header["arrays"][name])
    size = extent.dtype.itemsize
    values = [b"\0" * size, b"\xff" * size, b"\x7f" * size, b"\xff" * (size - 1) + b"\x7f", b"\x80" * size]
    values += [chance.randbytes(size), b"../../x.h5"[:size].ljust(size, b"\0"), b"\0" * (size - 1) + b"\x80"]
    rows = range(extent.n_bytes // size)
    for row in rows if chance.random() < 0.3 else [chance.choice(rows)]:
        start = extent.offset + row * size
        image[start : start + size] = chance.choice(values)
    return f"array {name}"


def sealed(header: dict[str, Any], image: bytearray, user_block: int) -> bytes:
    """Return the file with every digest as it should be, as far as its user block can be understood."""
    size = header.get("size")
    with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError, OverflowError):
        extents = {name: extent_from_json(extent) for name, extent in header["arrays"].items()}
        if "X" in extents and "X_blocks" in extents:
            blocks = block_digests(extents["X"], image)
            if len(blocks) == extents["X_blocks"].n_bytes:
                image[extents["X_blocks"].offset : extents["X_blocks"].end] = blocks
        header["digests"] = {
            name: digest(bytes(image[e.offset : e.end])).hex() for name, e in extents.items() if name != "X"
        }
        gaps = gaps_between(extents, user_block, len(image))
        header["gaps"] = digest(b"".join(bytes(image[low:high]) for low, high in gaps)).hex()
        header["size"] = len(image) if size == len(image) or (type(size) is int and size % 2) else size
    body = json.dumps(header).encode("utf-8", "surrogatepass")
    grown = 1 << max(11, (len(body) + 31).bit_length())
    if len(body) > user_block - 32:  # offsets stay: a larger user block would move the arrays
        body = body[: user_block - 32] if grown > len(image) else body
        user_block = max(user_block, grown) if grown <= len(image) else user_block
    body = body.ljust(user_block - 32, b"\0")
    start = MAGIC + user_block.to_bytes(4, "little") + FORMAT.to_bytes(4, "little")
    return start + digest(start + body) + body + bytes(image[user_block:])


def block_digests(extent: Extent, image: bytearray) -> bytes:
    n, step = extent.shape[0], block_rows(extent.shape, extent.dtype)
    row_bytes = extent.n_bytes // max(1, n)
    starts = [extent.offset + low * row_bytes for low in range(0, min(n, 10_000), step)]
    return b"".join(digest(bytes(image[start : min(start + step * row_bytes, extent.end)])) for start in starts)


# Readers


def use(root: Path, target: Path, recipe: Recipe, chance: random.Random) -> None:
    """Do everything that reads the file at `target`; what featx refuses is fine."""
    store = Store(root)
    for action in actions(store, root, target, recipe, chance):
        with contextlib.suppress(FeatxError):
            action()


def actions(store: Store, root: Path, target: Path, recipe: Recipe, chance: random.Random) -> Iterator[Any]:
    if target.parent.name == "photos":
        yield from table_actions(target, root.parent / f"x.{chance.choice(['npz', 'parquet', 'csv', 'h5'])}")
        yield lambda: store.table(target).verify()
    yield lambda: store.find(recipe.key, ITEMS)
    yield lambda: store.known_errors(recipe.key, ITEMS)
    yield lambda: store.read(recipe.key, ITEMS[:6])
    yield lambda: [table.ids for table in store.tables()]
    yield lambda: entries(store)
    yield lambda: list(verify(store))
    yield lambda: reclaimable(store, orphans=True)
    yield lambda: store.commit(recipe.key, ITEMS[6:9], rows_of(ITEMS[6:9], recipe))
    yield lambda: publish(store, "plain", recipe, 9)
    yield lambda: publish(Store(root, limit=1), "many", recipe, 6)
    yield lambda: list(verify(Store(root), repair=True))
    yield lambda: collect(Store(root))
    yield lambda: remove_table(Store(root), target)
    yield lambda: collect(Store(root), orphans=True, max_size=1)


def table_actions(path: Path, out: Path) -> Iterator[Any]:
    for name in ("y", "ids", "splits", "item_ids", "classes", "errors", "recipe", "request", "key", "provenance"):
        yield lambda name=name: getattr(Features.open(path), name)
    for name in ("probe", "views", "augmentation", "X", "__repr__", "_repr_html_", "to_pandas", "all_views"):
        yield lambda name=name: call(getattr(Features.open(path), name))
    yield lambda: Features.open(path).view(1).X
    yield lambda: Features.open(path)[[0, 3, 1]]
    yield lambda: Features.open(path).split("train")
    yield lambda: [X.sum() for _, X in Features.open(path).blocks(64, shuffle=True)]
    yield lambda: pickle.loads(pickle.dumps(Features.open(path))).X
    for columns in (False, True):
        yield lambda columns=columns: Features.open(path).export(out, columns=columns)


def call(value: Any) -> Any:
    return value() if callable(value) else value


def place(target: Path, content: bytes, chance: random.Random) -> Path:
    """Put the mutant where the true file was; a segment mostly under the name that belongs to its items now."""
    target.write_bytes(content)
    if target.parent.name != "photos" and chance.random() < 0.8:
        with contextlib.suppress(Exception):
            header = json.loads(content[32 : int.from_bytes(content[8:12], "little")].rstrip(b"\0"))
            parts = [extent_from_json(header["arrays"][name]) for name in ("item_id", "error_item_id")]
            items = b"".join(content[extent.offset : extent.end] for extent in parts)
            named = target.with_name(segment_name(np.frombuffer(items, np.uint8).reshape(-1, 32)) + ".h5")
            return target.rename(named)
    return target


# The run


class OneInspector(Inspector):
    """The same process for all mutants but those that end it: to start one takes longer than all the rest."""

    def __exit__(self, *_: object) -> None:
        pass


def judge(number: int, seed: int, pristine: Path, targets: dict[Path, Recipe]) -> tuple[str, str | None]:
    """Try one mutant; return what was changed, and the fault if there is one."""
    chance = random.Random(seed * 1_000_003 + number)
    target = chance.choice(list(targets))
    what, content = mutant((pristine / target).read_bytes(), chance)
    what = f"{target.name[:14]} {what}"
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / target.parts[0]
        shutil.copytree(pristine / root.name, root)
        try:
            use(root, place(root.parent / target, content, chance), targets[target], chance)
        except Exception as error:  # noqa: BLE001 - which is what is looked for
            frames = traceback.extract_tb(error.__traceback__)
            where = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames[-4:]))
            return what, f"{type(error).__name__}: {str(error)[:100]} at {where}"
    return what, None


def work(pipe: Connection, numbers: range, seed: int, pristine: Path, targets: dict[Path, Recipe]) -> None:
    """Try mutants, and tell of each before and after."""
    logging.disable(logging.CRITICAL)
    inspector = OneInspector()
    maintenance.Inspector = lambda: inspector
    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    signal.signal(signal.SIGPROF, too_long)
    for number in numbers:
        pipe.send((number, None, None))
        signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
        what, fault = judge(number, seed, pristine, targets)
        signal.setitimer(signal.ITIMER_PROF, 0)
        taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before
        if taken > MOST_BYTES:
            fault, before = f"took {taken:,} bytes", before + taken
        pipe.send((number, what, fault))
    inspector.close()
    pipe.send(None)


def too_long(*_: object) -> None:
    raise TimeoutError(f"more than {MOST_SECONDS} s")


def fuzz(n: int, seed: int = 0) -> tuple[Counter[str], list[str]]:
    """Try `n` mutants in child processes; return how many there were of each kind, and the faults."""
    counts: Counter[str] = Counter()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        pristine = Path(name)
        targets = make_caches(pristine)
        first = 0
        while first < n:
            first = batch(range(first, n), seed, pristine, targets, counts, faults)
    return counts, faults


def batch(
    numbers: range, seed: int, pristine: Path, targets: dict[Path, Recipe], counts: Counter[str], faults: list[str]
) -> int:
    """Let one child try `numbers`; return where the next one goes on, which is behind the mutant that killed it."""
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    child = context.Process(target=work, args=(theirs, numbers, seed, pristine, targets))
    child.start()
    theirs.close()
    number = numbers.start
    try:
        while ours.poll(30 * MOST_SECONDS) and (told := ours.recv()) is not None:
            number, what, fault = told
            if what:
                counts[what.split(maxsplit=2)[1].split(".")[0]] += 1
            if fault:
                faults.append(f"{number} {what}: {fault}")
            if what and (number + 1) % 500 == 0:
                print(f"{number + 1:,} mutants; {faults}", file=sys.stderr, flush=True)
        if not ours.poll(0) and child.is_alive():
            child.join(1)
        ended = child.exitcode == 0
    except EOFError:
        ended = False
    if not ended:
        child.kill()
        child.join()
        if child.exitcode == 0:
            return numbers.stop
        faults.append(f"{number}: the process ended with {child.exitcode}, or took too long")
        return number + 1
    return numbers.stop


def main() -> None:
    """Fuzz, and print what was tried and what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2000, help="mutants")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    counts, faults = fuzz(args.n, args.seed)
    print(f"{sum(counts.values()):,} mutants; {len(faults)} faults")
    for what, count in counts.most_common():
        print(f"  {count:6,}  {what}")
    print("\n".join(faults))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
