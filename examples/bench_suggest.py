"""How many labels a classifier needs for 95 % of its full accuracy: suggested by `featx.suggest`, or drawn at random.

    python examples/bench_suggest.py cache/sign-digits-…/….h5 --groups people.csv --batch 25
    python examples/bench_suggest.py cache/cifar10-…/….h5 --batch 100

Nothing is labelled at first. Batch by batch, suggested rows get their labels, and a logistic regression (C = 0.01) is
fitted on all that have one; so are rows drawn at random. Full accuracy is that of the same fit on all training rows.
Test rows are the table's own split, or a fifth of it, whole groups where a CSV (file, …, person) names them.

Expected: at most six tenths of the labels that random rows need, over five seeds.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np

import featx
from featx.heads import LogisticHead

#: Of a table with splits, so many rows are drawn to learn from, and to test on.
MOST, MOST_TEST = 5000, 2000


def main() -> None:
    """Print a line a seed, and the means."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("table", type=Path)
    arguments.add_argument("--groups", type=Path)
    arguments.add_argument("--batch", type=int, default=50)
    arguments.add_argument("--seeds", type=int, default=5)
    how = arguments.parse_args()
    rows = featx.Features.open(how.table)
    needed = []
    print("| seed | full accuracy | labels, suggested | labels, at random |\n|---|---|---|---|")
    for seed in range(how.seeds):
        train, test = divided(rows, how.groups, seed)
        goal = 0.95 * (full := accuracy(train, np.arange(len(train)), test))
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(train))
        counts = [
            labels_needed(train, test, goal, how.batch, next_rows)
            for next_rows in (
                suggested(train, how.batch, seed),
                lambda known, order=order: order[len(known) :][: how.batch],
            )
        ]
        needed.append(counts)
        print(f"| {seed} | {full:.1%} | {counts[0]:,} | {counts[1]:,} |", flush=True)
    few, many = np.mean(needed, axis=0)
    print(f"| mean | | {few:,.0f} | {many:,.0f} |\n\n{few / many:.2f} of the labels that random rows need")


def divided(rows: featx.Features, groups: Path | None, seed: int) -> tuple[featx.Features, featx.Features]:
    """Return rows to learn from and rows to test on, in memory."""
    rng = np.random.default_rng(seed)
    if groups is not None:
        with groups.open() as file:
            person = {line["file"]: line["person"] for line in csv.DictReader(file)}
        people = np.array([person[name] for name in rows.ids])
        held = np.isin(people, rng.permutation(np.unique(people))[: len(np.unique(people)) // 5])
        parts = np.flatnonzero(~held), np.flatnonzero(held)
    else:
        parts = tuple(
            rng.permutation(np.flatnonzero(rows.splits == name))[:most]
            for name, most in (("train", MOST), ("test", MOST_TEST))
        )
    return tuple(featx.Features.from_arrays(rows[part], rows.y[part], classes=rows.classes) for part in parts)


def suggested(train: featx.Features, batch: int, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return what answers, for the rows that have labels, which to label next."""
    X = train.X

    def following(known: np.ndarray) -> np.ndarray:
        y = np.full(len(X), -1)
        y[known] = train.y[known]
        table = featx.Features.from_arrays(X, y, classes=train.classes)
        return featx.suggest(table, n=batch, seed=seed).rows

    return following


def labels_needed(
    train: featx.Features, test: featx.Features, goal: float, batch: int, following: Callable[[np.ndarray], np.ndarray]
) -> int:
    """Return how many labels there are when accuracy has reached the goal, and has kept it with the batch after."""
    known, reached = np.empty(0, np.intp), 0
    while True:
        known = np.concatenate([known, following(known)])
        good = accuracy(train, known, test) >= goal
        if good and reached:
            return reached
        reached = len(known) if good else 0
        if len(known) + batch > len(train):
            return len(train)


def accuracy(train: featx.Features, known: np.ndarray, test: featx.Features) -> float:
    """Return the accuracy on `test` of a logistic regression on the `known` rows of `train`."""
    X, whole = train[known], train.X
    mean, sd = whole.mean(axis=0), np.maximum(whole.std(axis=0), 1e-6)
    head = LogisticHead(C=0.01, tol=1e-3).fit((X - mean) / sd, train.y[known])
    return float((head.predict((test.X - mean) / sd) == test.y).mean())


if __name__ == "__main__":
    main()
