"""What featx does on a real GPU, in at most 8 minutes: tests, forward, decoding, the whole line, heads.

    examples/gpu_check.sh
    python examples/gpu_check.py --device cuda:1 --minutes 5 --out card.json
    python examples/gpu_check.py --device cpu        # tiny sizes: tries the script itself

Sections, in this order; what there is no time left for is named, and what fails is kept with its error
  tests    those marked ``cuda``
  forward  images/s from pixels in memory to rows in memory: eager and compiled, fp32 and fp16
  decode   images/s of all decoding processes, of JPEGs of 500 × 375 for 224 × 224
  line     images/s from JPEGs to a table, eager at fp16, and the share of the time that the GPU waited for images
  heads    seconds to fit (nearest neighbours: to answer) on the GPU and on the CPU, and how far their answers agree

efficientnet_lite0 has its ImageNet weights, the others random ones. Rates are medians over turns of a second.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_extract import jpegs, repeatedly, write

import featx
from featx import backbones
from featx.engines import open_engine
from featx.extraction import Options, open_dataset
from featx.extraction import run as extract
from featx.heads import CentroidHead, DenseHead, KNNHead, LogisticHead, RidgeHead, XGBoostHead
from featx.images import DecodePool
from featx.recipe import Request

NETWORKS = {
    "resnet50": Request(backbone="resnet50", weights="none"),
    "ViT-B/16": Request(backbone="vit_b_16", weights="none"),
    "ViT-L/14": Request(backbone="timm/vit_large_patch14_clip_224", weights="none"),
    "efficientnet_lite0": Request(backbone="efficientnet_lite0"),
}
TINY = {"test_resnet": Request(backbone="timm/test_resnet", weights="none", image_size=32)}
HEADS = {
    "logreg": LogisticHead(C=0.1),
    "ridge": RidgeHead(),
    "centroid": CentroidHead(),
    "knn": KNNHead(),
    "mlp": DenseHead(epochs=5, random_state=0),
    "xgboost": XGBoostHead(n_estimators=20, random_state=0),
}


class Check:
    """Measurements by name, with a deadline; one that fails is its error."""

    def __init__(self, device: str, minutes: float) -> None:
        self.device, self.tiny = device, device == "cpu"
        self.seconds = 0.05 if self.tiny else 1.0
        self.deadline = time.monotonic() + 60 * minutes
        self.found: dict[str, Any] = {"machine": machine(device)}

    def measure(self, section: str, name: str, work: Callable[[], Any], *, needs: float) -> None:
        """Note what `work` returns, unless fewer than the seconds that it `needs` are left."""
        left = self.deadline - time.monotonic()
        try:
            value = work() if left > needs else f"no time left ({left:.0f} s)"
        except Exception as error:  # noqa: BLE001 - one measurement must not cost the others
            value = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        self.found.setdefault(section, {})[name] = value
        print(f"{section:8} {name:36} {shown(value)}", flush=True)

    def rate(self, work: Callable[[], object], n: int) -> float:
        """Return images a second: the median of five turns, after one that does not count."""
        work()
        turns = [repeatedly(work, n, self.seconds) for _ in range(5)]
        return statistics.median(done / seconds for done, seconds in turns)


def machine(device: str) -> dict[str, Any]:
    facts = {"device": device, "featx": featx.__version__, "torch": torch.__version__, "cuda": torch.version.cuda}
    facts |= {"python": platform.python_version(), "cores": len(os.sched_getaffinity(0)), "card": "none"}
    if device != "cpu":
        card = torch.cuda.get_device_properties(device)
        facts |= {"card": card.name, "GiB": round(card.total_memory / 2**30, 1), "capability": [card.major, card.minor]}
    return facts


def shown(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{key} {shown(part)}" for key, part in value.items())
    return (
        f"{value:,.3g}"
        if isinstance(value, float) and value < 100
        else f"{value:,.0f}"
        if isinstance(value, float)
        else str(value)
    )


def tests(seconds: float) -> str:
    """Run the tests marked ``cuda``; return pytest's last line, or what failed."""
    files = [str(path) for path in sorted(Path("tests").glob("test_*.py")) if "mark.cuda" in path.read_text()]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "cuda", *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR")) or " in " in line]
    return "; ".join(lines) or f"exit status {done.returncode}"


def forward(check: Check, request: Request, engine: str, precision: str) -> dict[str, float]:
    torch.manual_seed(0)
    backbone, recipes = backbones.resolve(dataclasses.replace(request, precision=precision))
    size = 4 if check.tiny else None
    started = time.perf_counter()
    opened = open_engine(backbone, recipes, engine=engine, device=check.device, batch_size=size)
    seconds = time.perf_counter() - started
    frame = recipes[0].frame
    shape = (opened.batch_size, frame.height, frame.width, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    def two_at_once() -> None:
        for running in [opened.start(pixels), opened.start(pixels)]:
            running.result()

    rate = check.rate(two_at_once, 2 * opened.batch_size)
    return {"images/s": rate, "batch": float(opened.batch_size), "seconds to open": seconds}


def decode(check: Check, photos: Path, request: Request) -> float:
    dataset = open_dataset(photos)
    with DecodePool(backbones.resolve(request)[1][0].frame) as pool:

        def work() -> None:
            for _ in pool.map(dataset.iterate(np.arange(len(dataset)))):
                pass

        return check.rate(work, len(dataset))


def line(check: Check, photos: Path, request: Request, cache: Path) -> dict[str, float]:
    asked = dataclasses.replace(request, precision="fp32" if check.tiny else "fp16")
    options = Options(device=check.device, engine="eager")
    done = extract(open_dataset(photos), asked, cache=cache, options=options)
    return {"images/s": float(done.images_per_second or 0), "waited for images": float(done.waiting or 0)}


def head(check: Check, name: str, X: np.ndarray, y: np.ndarray) -> dict[str, float]:
    found, answers = {}, []
    for device in dict.fromkeys([check.device, "cpu"]):
        fitted = HEADS[name].set_params(device=device)
        started = time.perf_counter()
        fitted.fit(X, y)
        answers.append(fitted.predict(X[:2000] if name != "knn" else X))
        found[f"seconds on {device}"] = time.perf_counter() - started
    return found | {"agree": float((answers[0] == answers[-1]).mean())}


def table_of(check: Check) -> tuple[np.ndarray, np.ndarray]:
    """Return rows like a backbone's: 100 overlapping classes, most of the variance in few directions."""
    n, d, k = (300, 16, 3) if check.tiny else (40_000, 768, 100)
    rng = np.random.default_rng(0)
    y = np.arange(n) % k
    spread = np.linspace(2, 0.1, d, dtype=np.float32)
    return (rng.standard_normal((k, d), np.float32)[y] * 0.3 + rng.standard_normal((n, d), np.float32)) * spread, y


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"))
    asked = parser.parse_args()
    if asked.device != "cpu" and not torch.cuda.is_available():
        sys.exit(
            "There is no GPU here: torch sees 0 CUDA devices. --device cpu tries this script itself, on tiny sizes."
        )
    check = Check(asked.device, asked.minutes)
    networks = TINY if check.tiny else NETWORKS
    check.measure("tests", "marked cuda", lambda: tests(60 * asked.minutes / 3), needs=60)
    for name, request in networks.items():
        for precision in ["fp32"] if check.tiny else ["fp16", "fp32"]:
            check.measure(
                "forward",
                f"{name} eager {precision}",
                lambda r=request, p=precision: forward(check, r, "eager", p),
                needs=30,
            )
    with tempfile.TemporaryDirectory() as folder:
        photos = write(jpegs(16 if check.tiny else 4000, 500, 375, 24), Path(folder) / "photos")
        check.measure(
            "decode", "JPEG 500 x 375", lambda: decode(check, photos, next(iter(networks.values()))), needs=20
        )
        for name, request in networks.items():
            check.measure(
                "line",
                name,
                lambda r=request, n=name: line(check, photos, r, Path(folder) / n.replace("/", "-")),
                needs=20,
            )
    X, y = table_of(check)
    for name in HEADS:
        check.measure("heads", name, lambda n=name: head(check, n, X, y), needs=20)
    for name, request in networks.items():  # at the end: compiling takes longest
        check.measure(
            "forward",
            f"{name} compiled fp16",
            lambda r=request: forward(check, r, "compile", "fp32" if check.tiny else "fp16"),
            needs=60,
        )
    asked.out.write_text(json.dumps(check.found, indent=1) + "\n")
    print(f"{json.dumps(check.found['machine'])}\n{asked.out} has all of it.")


if __name__ == "__main__":
    main()
