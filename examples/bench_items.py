"""How much the photos of one house tell together: R² of its log-price by single photos, their mean, side by side.

    python examples/bench_items.py houses.csv images/ [--cache cache]

`houses.csv` has the columns file, house, room and price. Five folds by house; the network runs once.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from pathlib import Path

import numpy as np

import featx

WAYS = ("none", "mean", "max", "mean+max", "attention", "slots")


def main() -> None:
    """Fit each way of combining photos on five folds, and print R², coverage of the intervals, and seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--cache", default="cache")
    parser.add_argument("--head", default="ridge")
    parser.add_argument("--ways", default=",".join(WAYS))
    asked = parser.parse_args()
    with asked.table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = featx.extract(
        [str(asked.images / row["file"]) for row in rows],
        labels=np.log([float(row["price"]) for row in rows]),
        items=[row["house"] for row in rows],
        slots=[row["room"] for row in rows],
        task="regress",
        name="houses",
        cache=asked.cache,
    )
    houses = np.unique(table.items)
    fold_of = dict(zip(houses, np.random.default_rng(0).permutation(len(houses)) % 5, strict=True))
    fold = np.array([fold_of[house] for house in table.items])
    print(f"{len(houses)} houses, {len(table):,} photos, head {asked.head}")
    for way in asked.ways.split(","):
        started = time.perf_counter()
        truth, found, within = [], [], []
        for k in range(5):
            taught, held = table.select(fold != k), table.select(fold == k)
            model = featx.fit(taught, asked.head, combine=way, val=0.2, refit=True)
            answer = model.classify(held)
            first = dict(zip(held.ids if way == "none" else held.items, held.targets[:, 0], strict=True))
            y = np.array([first[name] for name in answer.ids], dtype=float)
            low, high = answer.intervals[:, 0].T
            truth.append(y)
            found.append(answer.numbers[:, 0])
            within.append((low <= y) & (y <= high))
        y, p = np.concatenate(truth), np.concatenate(found)
        r2 = 1 - ((y - p) ** 2).sum() / ((y - y.mean()) ** 2).sum()
        covered, seconds = 100 * np.concatenate(within).mean(), time.perf_counter() - started
        error = math.exp(np.abs(y - p).mean()) - 1
        told = f"R² {r2:.3f}   off by {100 * error:.0f} %   90 % intervals cover {covered:.1f} %"
        print(f"{way:10}  {told}   {seconds:.1f} s")


if __name__ == "__main__":
    main()
