"""Seconds an epoch of fine-tuning the upper blocks: from the cache, against frozen blocks below without gradients.

Both ways make the same updates on the same images, in alternating turns of one process; a turn's first epoch, which
allocates and warms up, does not count. Times are medians over the other epochs, training and validation together.

    python examples/bench_finetune.py                      # noise images, two cases
    python examples/bench_finetune.py --images 1000 --turns 5 --json

Expected: at least 3 times as fast for the last block and the convolutional head of efficientnet_lite0 at 224 pixels,
at least 1.3 times for blocks 4 and 5 of vgg16 at 32 (half of its arithmetic is in those blocks).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import featx
from featx.progress import Progress


@dataclass(frozen=True)
class Case:
    """A network, what trains of it, and how much faster it has to be from the cache."""

    name: str
    network: dict[str, Any]
    bound: float


@dataclass(frozen=True)
class Result:
    """Median seconds an epoch of either way, and whether their ratio holds the bound."""

    name: str
    ordinary_seconds: float
    cached_seconds: float
    bound: float

    @property
    def ratio(self) -> float:
        """How many times faster."""
        return self.ordinary_seconds / self.cached_seconds

    def __str__(self) -> str:
        verdict = "holds" if self.ratio >= self.bound else "MISSES"
        return (
            f"{self.name}: {self.ordinary_seconds:.2f} s an epoch with frozen blocks below, "
            f"{self.cached_seconds:.2f} s from the cache: {self.ratio:.2f} times as fast, {verdict} "
            f"the bound of {self.bound:g}"
        )


CASES = (
    Case("efficientnet_lite0 at 224, last block", {"image_size": 224, "unfreeze": 1}, 3.0),
    Case("vgg16 at 32, blocks 4 and 5", {"backbone": "vgg16", "weights": "none", "image_size": 32, "unfreeze": 2}, 1.3),
)


def main() -> None:
    """Measure, and print a line a case."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="Of each turn; the first does not count.")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = [measure(case, options) for case in CASES]
    if options.json:
        print(json.dumps([asdict(result) | {"ratio": result.ratio} for result in results]))
    else:
        print("\n".join(map(str, results)))


def measure(case: Case, options: argparse.Namespace) -> Result:
    """Take turns between both ways on the same images."""
    side = case.network["image_size"]
    images = np.random.default_rng(0).integers(0, 256, (options.images, side, side, 3), dtype=np.uint8)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(options.turns):
            for from_cache, measured in seconds.items():
                measured.extend(turn(images, case.network, options, from_cache=from_cache, cache=cache))
    return Result(case.name, statistics.median(seconds[False]), statistics.median(seconds[True]), case.bound)


def turn(
    images: np.ndarray, network: dict[str, Any], options: argparse.Namespace, *, from_cache: bool, cache: str
) -> list[float]:
    """Train once, and return the seconds of each epoch but the first."""
    ends: dict[str, float] = {}

    def note(progress: Progress) -> None:
        if progress.step.startswith("epoch"):
            ends[progress.step] = progress.seconds  # of the last step that says so

    featx.finetune(
        images,
        labels=["even", "odd"] * (len(images) // 2),
        **network,
        from_cache=from_cache,
        init_head="none",
        optimizer="sgd",
        lr=1e-4,
        batch_size=32,
        epochs=options.epochs,
        device=options.device,
        cache=cache,
        on_progress=note,
    )
    return np.diff(list(ends.values())).tolist()


if __name__ == "__main__":
    main()
