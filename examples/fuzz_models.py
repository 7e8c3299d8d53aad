"""Change model files of every kind of head, seal them again, and use them: nothing but featx's own errors may come.

    python examples/fuzz_models.py --n 10000

Each mutant is a small model file (those of ``tests/data/models``) with one to three values changed: a value of its
JSON replaced, dropped, doubled or of another type, an array of other numbers, shape or type, a member of another
model. Its checksums are right, as whoever means harm would see to. It is loaded, shown, asked for predictions and
reported on. Expected: a `featx.FeatxError` or an answer, within 10 seconds of processor time and 1 GiB, each time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

import featx
from featx.errors import FeatxError
from featx.model import archive

MODELS = Path(__file__).parents[1] / "tests" / "data" / "models"
SECONDS, BYTES = 10, 1 << 30

STRANGE = [
    None, True, False, 0, 1, -1, 2, 3, 7, 10**6, 2**31, 2**63, -(2**63), 10**40, 0.5, -0.0, 1e-320, 1e308, -1e308, "",
    "0", "nan", "inf", "a", "../../etc/passwd", "\x1b[31m", "=1+1", "é\u202e", "x" * 5000, [], {}, [[]], [None], [0],
    [1, 2], ["a"], {"a": 1}, {"float": "nan"}, {"float": "inf"}, {"float": []}, {"pairs": []}, {"pairs": [[1, 2]]},
    {"pairs": 3}, [[[[]]]], [1e308] * 3, list(range(300)),
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield every place in nested JSON but the root."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield (*path, key)
        yield from places(value[key], (*path, key))


def change_json(document: Any, rng: random.Random) -> None:
    """Change one value somewhere in `document`."""
    *path, last = rng.choice([place for place in places(document) if place[0] != "members"])
    holder = document
    for key in path:
        holder = holder[key]
    found, what = holder[last], rng.randrange(8)
    if what == 0:
        del holder[last]
    elif what == 1 and isinstance(holder, list):
        holder.insert(rng.randrange(len(holder) + 1), rng.choice([found, *STRANGE]))
    elif what == 1:
        holder[rng.choice(["extra", "n", "accuracy", "__class__", str(last) + "_"])] = found
    elif what == 2 and isinstance(found, int | float):
        holder[last] = rng.choice(
            [-found, found + 1, found - 1, found * 1e9, float(found), int(min(found, 1e18)), str(found)]
        )
    elif what == 3 and isinstance(found, list):
        holder[last] = rng.choice([found[::-1], found + found, found[:-1], [found], found[:1] * 1000])
    elif what == 4:
        others = [place for place in places(document) if place[0] != "members"]
        other = document
        for key in rng.choice(others):
            other = other[key]
        holder[last] = json.loads(json.dumps(other))
    else:
        holder[last] = rng.choice(STRANGE)


def change_arrays(content: bytes, rng: random.Random) -> bytes:
    """Change one array of a safetensors file."""
    arrays = {name: array.copy() for name, array in load_arrays(content).items()}
    if not arrays:
        return save_arrays({"a": np.zeros(1)})
    name = rng.choice(sorted(arrays))
    array, what = arrays[name], rng.randrange(9)
    if what == 0:
        del arrays[name]
    elif what == 1:
        arrays[name + "_"] = array
    elif what == 2:
        arrays[name] = array.astype(
            rng.choice([np.int8, np.uint8, np.int64, np.uint64, np.float16, np.float64, np.bool_])
        )
    elif what == 3:
        arrays[name] = rng.choice([array.ravel(), array[None], array[:0], array[:1], np.repeat(array, 2, axis=0)])
    elif what == 4:
        arrays[name] = np.zeros(rng.choice([(), (0,), (1, 1), (3, 0), (2**20,)]), array.dtype)
    elif array.size:
        extreme = [0, 1, -1, 127, -128] if array.dtype.kind in "iu" else [0, -1, 1e-30, 6e4, -6e4, 3e38, np.nan, np.inf]
        places = slice(None) if what == 5 else rng.randrange(array.size)
        with np.errstate(all="ignore"):
            array.reshape(-1)[places] = np.array(rng.choice(extreme)).astype(array.dtype)
    return save_arrays({key: np.ascontiguousarray(value) for key, value in arrays.items()})


def mutant(models: dict[str, dict[str, bytes]], name: str, rng: random.Random) -> dict[str, bytes]:
    """Return the members of a changed model, sealed."""
    members = dict(models[name])
    fields = json.loads(members.pop("model.json"))
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        target = rng.choice(["model.json"] * 3 + ["report"] * 2 + sorted(members) + ["swap"])
        if target == "model.json":
            change_json(fields, rng)
        elif target == "report":
            if isinstance(fields.get("report"), dict) and fields["report"]:
                change_json(fields["report"], rng)
        elif target == "swap":
            other = models[rng.choice(sorted(models))]
            key = rng.choice(sorted(other.keys() - {"model.json"}))
            members[key] = other[key]
        elif target == "head.json":
            document = json.loads(members[target])
            change_json(document, rng)
            members[target] = json.dumps(document).encode()
        else:
            members[target] = change_arrays(members[target], rng)
    fields["members"] = {
        key: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()} for key, content in members.items()
    }
    return {"model.json": json.dumps(fields).encode(), **members}


def use(path: Path, sources: dict[tuple[int, ...], np.ndarray], images: np.ndarray) -> str:
    """Load a model, show it, predict with it and report on it; return how far it came."""
    model = featx.load(path)
    repr(model)
    model._repr_html_()
    json.dumps(model.report.to_dict(), allow_nan=False)
    shape = model.recipe.shape if model.recipe is not None else (model.head.n_features_in_,)
    X = sources.get(tuple(shape), np.zeros((3, *shape), np.float32))
    model._predict_rows(X)  # noqa: SLF001 - a table of its recipe would have to be published for each
    if model.network is not None:
        model.predict(images, workers=0, engine="eager")
    featx.report(model)
    return "used"


def fuzz(n: int, seed: int = 0, *, quiet: bool = False) -> Counter[str]:
    """Make and use `n` mutants; return how many ended in which way. Faults are printed with their number."""
    models = {path.stem: archive.read(path) for path in sorted(MODELS.glob("*.featx"))}
    sources = {(6,): np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)}
    images = np.random.default_rng(0).integers(0, 255, (2, 12, 12, 3), dtype=np.uint8)
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        use(MODELS / "finetuned.featx", sources, images)  # what is imported now takes no mutant's time
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        path = Path(folder) / "m.featx"
        for i in range(n):
            rng = random.Random(f"{seed}-{i}")
            name = rng.choice(sorted(models))
            archive.write(path, mutant(models, name, rng))
            started = time.process_time()
            try:
                outcome = use(path, sources, images)
            except FeatxError:
                outcome = "refused"
            except Exception as error:  # noqa: BLE001 - what must never come
                outcome = f"fault: {type(error).__name__}"
                where = traceback.extract_tb(error.__traceback__)[-1]
                print(f"{i} {name}: {error!r} at {where.filename}:{where.lineno}", file=sys.stderr)
            taken = time.process_time() - started
            if taken > SECONDS:
                outcome = "fault: too slow"
                print(f"{i} {name}: {taken:.1f} s", file=sys.stderr)
            found[outcome] += 1
            if not quiet and (i + 1) % 500 == 0:
                print(f"{i + 1:,} mutants: {dict(found)}", file=sys.stderr, flush=True)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    if grown > BYTES:
        found[f"fault: {grown >> 20:,} MiB"] += 1
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    outcomes = fuzz(args.n, args.seed)
    print("\n".join(f"{count:>8,} {outcome}" for outcome, count in sorted(outcomes.items())))
    sys.exit(any(outcome.startswith("fault") for outcome in outcomes))
