"""Seconds from Enter to the answer: small jobs as whole processes, on a quiet machine and beside a busy neighbour.

    python examples/bench_latency.py --data photos/          # class folders of real images
    python examples/bench_latency.py --only fit --runs 5     # on made-up tables of 2,934 and 50,000 rows
    python examples/bench_latency.py --only predict --json

Each command is started anew so many times, in turn with the plain script that does the same without featx; medians are
printed, and how many times as long each takes while one other process keeps one core busy at the same priority.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

#: Loads the weights that featx's default has, and predicts one image the way a tutorial does.
PLAIN_PREDICT = """
import sys, timm, torch
from PIL import Image
network = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0).eval()
pixels = torch.rand(1, 3, 224, 224)
Image.open(sys.argv[1]).convert("RGB").resize((224, 224))
with torch.inference_mode():
    print(network(pixels).sum().item())
"""
#: Fits scikit-learn's own classifier on the same rows.
PLAIN_FIT = """
import sys, numpy as np
from sklearn.linear_model import LogisticRegression
with np.load(sys.argv[1]) as rows:
    X, y = rows["X"], rows["y"]
print(LogisticRegression(C=0.01, max_iter=1000).fit(X, y).score(X, y))
"""


#: Eigenvectors of a matrix of 1,280 rows by so many threads of OpenBLAS: what waiting for each other costs them.
EIGENVECTORS = """
import os, sys
os.environ["OPENBLAS_NUM_THREADS"] = sys.argv[1]
import numpy as np
from scipy import linalg
A = np.random.default_rng(0).standard_normal((3000, 1280), np.float32)
for _ in range(3):
    linalg.eigh(A.T @ A, driver="evd", check_finite=False)
"""


@dataclass(frozen=True)
class Job:
    """A command by name."""

    name: str
    command: list[str]


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="Class folders; without them, random JPEGs.")
    parser.add_argument("--only", choices=["predict", "fit"])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["FEATX_NETWORKS"] = str(folder / "networks")
        jobs = []
        if args.only != "fit":
            jobs += predict_jobs(folder, args.data or random_photos(folder / "photos"))
        if args.only != "predict":
            jobs += fit_jobs(folder)
        seconds: dict[str, dict[str, list[float]]] = {job.name: {"quiet": [], "busy": []} for job in jobs}
        for _ in range(args.runs):  # in turn, so that a slow minute of the machine meets all alike
            for job in jobs:
                seconds[job.name]["quiet"].append(timed(job, folder))
            with busy_neighbour():
                for job in jobs:
                    seconds[job.name]["busy"].append(timed(job, folder))
    medians = {job: {how: statistics.median(values) for how, values in both.items()} for job, both in seconds.items()}
    if args.json:
        print(json.dumps({"cores": len(os.sched_getaffinity(0)), "seconds": medians}))
        return
    print("| job | quiet, s | beside a busy process, s | times |\n|---|---|---|---|")
    for job_name, found in medians.items():
        quiet, busy = found["quiet"], found["busy"]
        print(f"| {job_name} | {quiet:.2f} | {busy:.2f} | {busy / quiet:.2f} |")


def featx(*words: str | Path) -> list[str]:
    """Return a command line of featx."""
    return [sys.executable, "-m", "featx", *map(str, words)]


def predict_jobs(folder: Path, photos: Path) -> list[Job]:
    """Extract and fit once, then predict one photo and all of them, with what is kept and without.

    OpenVINO must be installed.
    """
    photo = next(path for path in sorted(photos.rglob("*")) if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    cache, model = folder / "cache", folder / "model.featx"
    for command in (
        featx("extract", photos, "--val", "0.1", "--cache", cache, "--engine", "openvino"),
        featx("fit", "--head", "ridge", "-o", model, "--cache", cache),
    ):
        subprocess.run(command, check=True, cwd=folder, capture_output=True)
    unknown = featx("predict", model, photo, "--cache", folder / "empty")
    return [
        Job("predict one photo, warm cache", featx("predict", model, photo, "--cache", cache)),
        Job("predict one photo, empty cache, network converted", unknown),
        Job("predict one photo, empty cache, nothing converted", ["env", "FEATX_NETWORKS=off", *unknown]),
        Job("plain script, one photo", [sys.executable, "-c", PLAIN_PREDICT, str(photo)]),
        Job("predict the folder, warm cache", featx("predict", model, photos, "--cache", cache)),
        Job("extract the folder, all rows cached", featx("extract", photos, "--val", "0.1", "--cache", cache)),
        Job(
            "extract the folder anew",
            ["sh", "-c", f"rm -rf anew; {shlex.join(featx('extract', photos, '--cache', 'anew'))}"],
        ),
    ]


def fit_jobs(folder: Path) -> list[Job]:
    """Fit each head on a table of 2,934 rows of 1,280 features in five classes, and one on a table of 50,000."""
    table, large = folder / "table.h5", folder / "large.h5"
    rows = write_table(table, 2934)
    write_table(large, 50_000)
    heads = ("logreg", "mlp", "knn", "ridge", "centroid", "xgboost")
    return [
        *(
            Job(f"fit --head {head}", featx("fit", table, "--head", head, "-o", folder / f"{head}.featx"))
            for head in heads
        ),
        Job(
            "fit --head logreg, 50,000 rows",
            featx("fit", large, "--head", "logreg", "--set", "C=0.01", "-o", "l.featx"),
        ),
        Job("plain scikit-learn, one C", [sys.executable, "-c", PLAIN_FIT, str(rows)]),
        *(
            Job(f"eigenvectors, {n} threads", [sys.executable, "-c", EIGENVECTORS, str(n)])
            for n in sorted({1, len(os.sched_getaffinity(0))})
        ),
    ]


def write_table(table: Path, n: int) -> Path:
    """Write `n` made-up rows of five classes as a table, and as arrays in a file whose path is returned."""
    rng = np.random.default_rng(0)
    d, k = 1280, 5
    y = rng.integers(0, k, n)
    scales = np.arange(1, d + 1) ** -0.5
    X = np.maximum((0.6 * rng.standard_normal((k, d)) * scales)[y] + rng.standard_normal((n, d)) * scales, 0)
    rows = table.with_suffix(".npz")
    np.savez(rows, X=X.astype(np.float32), y=y)
    code = (
        "import sys, numpy as np; from featx import Features\n"
        "with np.load(sys.argv[1]) as rows: Features.from_arrays(rows['X'], rows['y']).export(sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", code, str(rows), str(table)], check=True)
    return rows


def random_photos(folder: Path, n: int = 40) -> Path:
    """Write JPEGs of 500 × 375 noise in two class folders."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(n):
        path = folder / f"class{i % 2}" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (15, 20, 3), dtype=np.uint8))
        small.resize((500, 375)).save(path, quality=90)
    return folder


def timed(job: Job, folder: Path) -> float:
    """Return the seconds that a whole process takes."""
    started = time.perf_counter()
    done = subprocess.run(job.command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{job.name}: {done.stderr}")
    return time.perf_counter() - started


@contextlib.contextmanager
def busy_neighbour() -> Iterator[None]:
    """Keep one core busy, at our own priority, for the length of a block."""
    neighbour = multiprocessing.get_context("spawn").Process(target=_spin, daemon=True)
    neighbour.start()
    try:
        yield
    finally:
        neighbour.kill()
        neighbour.join()


def _spin() -> None:
    while True:
        pass


if __name__ == "__main__":
    main()
