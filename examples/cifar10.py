"""CIFAR-10 with frozen ImageNet features: extract once, fit four heads, choose on validation, look at test once.

Expected (efficientnet_lite0 at its own resize and crop): logreg ≥ 79.8 % test.

    python examples/cifar10.py path/to/cifar10

The folder holds ``train*.parquet`` and ``test*.parquet`` in the Hugging Face form (columns ``image`` and
``label``). All that ``featx extract`` takes works: ``torchvision:CIFAR10``, class folders, npz.
"""

from __future__ import annotations

import argparse
import time

import featx

HEADS = {"logreg": {}, "mlp": {}, "xgboost": {}, "knn": {}, "ridge": {}, "centroid": {}}


def main() -> None:
    """Print a Markdown table: head, validation and test accuracy, seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--resize", default="weights")
    parser.add_argument("--cache", default=None)
    args = parser.parse_args()

    started = time.perf_counter()
    table = featx.extract(
        args.data, backbone=args.backbone, resize=args.resize, cache=args.cache, val="0.1", on_progress=_Line()
    )
    print(f"{len(table):,} rows in {time.perf_counter() - started:.1f} s: {table.path}\n")
    print("| head | chosen | train | validation | test | seconds |\n|---|---|---|---|---|---|")
    for head, settings in HEADS.items():
        report = featx.fit(table, head, settings=settings, test=True).report
        accuracies = " | ".join(f"{100 * report[split]['accuracy']:.2f} %" for split in ("train", "val", "test"))
        print(f"| {head} | {report['chosen'] or ''} | {accuracies} | {report['seconds']:.1f} |", flush=True)


class _Line:
    """Print how far extraction is, now and then."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def __call__(self, progress: featx.progress.Progress) -> None:
        if time.perf_counter() - self._last > 30:
            self._last = time.perf_counter()
            print(f"{progress.step}: {progress.done:,}/{progress.total:,}", flush=True)


if __name__ == "__main__":
    main()
