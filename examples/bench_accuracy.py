"""How right classifiers are, and how long they take: layers, heads and images a class, on data of your own.

    python examples/bench_accuracy.py photos/ cifar10/ --most 6000
    python examples/bench_accuracy.py "houses.csv images=houses/ label_column=room group_column=house" --shots 25,all

Data without a test split get one: three tenths, drawn by content and by group, another for each seed. Validation rows
are drawn once for all rows of a comparison, and choose; test rows only report.

Expected with efficientnet_lite0 and logreg on four data sets of 1,500 to 6,000 images: all stages side by side, of
which validation takes those that are worth it, are right more often than the last layer alone by more than a point.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import shlex
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import featx
from featx.comparison.plan import parse_shots
from featx.datasets import Dataset
from featx.datasets.dataset import select
from featx.datasets.splits import ValidationShare

#: Share of the rows that become the test split of data without one.
TEST_SHARE = 0.3


def opened(words: str, most: int | None, seed: int) -> Dataset:
    """Open data as typed, a path and options of `featx.open_dataset`, with a test split and at most `most` rows."""
    path, *options = shlex.split(words)
    dataset = featx.open_dataset(path, **dict(option.split("=", 1) for option in options))
    if most is not None and most < len(dataset):
        dataset = select(dataset, np.sort(np.random.default_rng(0).permutation(len(dataset))[:most]))
    if "test" in dataset.given_splits:
        return dataset
    drawn = dataclasses.replace(dataset, validation=ValidationShare.parse(TEST_SHARE, seed)).splits
    splits = np.where(drawn == "val", "test", "train")
    return dataclasses.replace(dataset, given_splits=splits, validation=None)


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a row for each data set, seed, number of images a class, backbone, set of layers and head."""
    for words in args.data:
        cases = itertools.product(range(args.seeds), args.shots.split(","), args.layers.split(","))
        for seed, shots, layers in cases:
            board = featx.compare(
                opened(words, args.most, seed),
                backbones=args.backbones.split(","),
                layers=[layers],
                heads=args.heads.split(","),
                shots=parse_shots(shots),
                seeds=[seed],
                cache=args.cache,
            )
            for row in board.rows:
                if row["error"]:
                    raise SystemExit(f"{words}, {shots} images a class, {layers}, {row['head']}: {row['error']}")
                asked = {"data": Path(shlex.split(words)[0]).stem, "seed": seed, "shots": shots, "layers": layers}
                yield row | asked


def summarised(found: list[dict[str, Any]], first: str) -> list[str]:
    """Return the lines of a table: means over seeds, and how much each set of layers gains on the `first`."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in found:
        groups[row["data"], row["shots"], row["backbone"], row["head"], row["layers"]].append(row)
    accuracies = {case: 100 * float(np.mean([row["test_accuracy"] for row in runs])) for case, runs in groups.items()}
    lines = [
        "| data | images a class | backbone | head | layers | test accuracy | gain | extraction | fit |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    gains: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for case, runs in groups.items():
        gain = accuracies[case] - accuracies[*case[:-1], first]
        gains[case[2:]].append(gain)
        seconds = [float(np.mean([row[name] or 0 for row in runs])) for name in ("extract_seconds", "fit_seconds")]
        cells = [*case, f"{accuracies[case]:.1f} %", f"{gain:+.1f}", *(f"{value:.1f} s" for value in seconds)]
        lines.append("| " + " | ".join(cells) + " |")
    for case, all_gains in gains.items():
        mean, worst = float(np.mean(all_gains)), min(all_gains)
        lines.append(f"\n{', '.join(case)}: {mean:+.2f} points on {first} on average, {worst:+.2f} at worst")
    return lines


def main() -> None:
    """Compare, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", metavar="DATA", help="a path, or a path and options in one quoted text")
    parser.add_argument("--backbones", default="efficientnet_lite0", metavar="A,B")
    parser.add_argument(
        "--layers", default="default,stages", metavar="L,M", help="the others are held against the first"
    )
    parser.add_argument("--heads", default="logreg", metavar="X,Y")
    parser.add_argument("--shots", default="25,all", metavar="1,25,all")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("--most", type=int, metavar="N", help="take at most so many images of each data set")
    parser.add_argument("--cache", default="cache", metavar="DIR")
    parser.add_argument("--json", action="store_true", help="print the rows")
    args = parser.parse_args()
    found = []
    for row in rows(args):
        found.append(row)
        print(row["data"], row["seed"], row["shots"], row["head"], row["layers"], row["test_accuracy"],
              file=sys.stderr, flush=True)  # fmt: skip
    print(json.dumps(found, default=str) if args.json else "\n".join(summarised(found, args.layers.split(",")[0])))


if __name__ == "__main__":
    main()
