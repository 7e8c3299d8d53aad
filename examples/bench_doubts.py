"""Of labels that were planted wrong, how many are among the first doubts: featx beside cleanlab, on the same rows.

    pip install cleanlab
    python examples/bench_doubts.py cache/cifar10-…/….h5 --rows 10000

Five of a hundred labels are changed to another class at random. Three rankings are counted in one run: `featx.doubts`,
cleanlab's `find_label_issues` of featx's own out-of-fold probabilities, and the same of those that scikit-learn's
logistic regression (C = 1, standardised, five folds) gives, which is what cleanlab's tutorials do. Without a table the
digits of scikit-learn are taken.

Expected: at least 80 % of the planted labels are in the first 8 % of the rows.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import featx
from featx.curation import out_of_fold

WRONG = 0.05


def main() -> None:
    """Print one line a ranking, its counts averaged over seeds."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("table", nargs="?", type=Path)
    arguments.add_argument("--rows", type=int, default=10_000)
    arguments.add_argument("--seeds", type=int, default=3)
    how = arguments.parse_args()
    rows = (
        featx.Features.from_arrays(*load_digits(return_X_y=True))
        if how.table is None
        else featx.Features.open(how.table)
    )
    drawn = np.sort(np.random.default_rng(0).permutation(len(rows))[: how.rows])
    X, y, groups = rows[drawn], rows.y[drawn], rows.groups[drawn]
    rankings: dict[str, Callable[[featx.Features], np.ndarray]] = {
        "featx": lambda table: featx.doubts(table).rows,
        "cleanlab on featx's probabilities": lambda table: cleaned(table, out_of_fold(table)[0]),
        "cleanlab on scikit-learn's": lambda table: cleaned(table, by_scikit_learn(table)),
    }
    print(f"{len(y):,} rows, {len(rows.classes)} classes, {WRONG:.0%} of the labels wrong, {how.seeds} seeds")
    print("| ranking | found in the first 5 % | in the first 8 % | seconds |\n|---|---|---|---|")
    for name, ranking in rankings.items():
        shares, seconds = [], 0.0
        for seed in range(how.seeds):
            wrong, planted = with_wrong_labels(y, seed)
            table = featx.Features.from_arrays(X, wrong, classes=rows.classes, groups=groups)
            started = time.perf_counter()
            order = ranking(table)
            seconds += time.perf_counter() - started
            shares.append([np.isin(planted, order[: round(part * len(y))]).mean() for part in (0.05, 0.08)])
        five, eight = np.mean(shares, axis=0)
        print(f"| {name} | {five:.1%} | {eight:.1%} | {seconds / how.seeds:.1f} |", flush=True)


def with_wrong_labels(y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels of which some are another class, and the rows of those."""
    rng = np.random.default_rng(seed)
    planted = rng.choice(len(y), round(WRONG * len(y)), replace=False)
    wrong, k = y.copy(), int(y.max()) + 1
    wrong[planted] = (wrong[planted] + rng.integers(1, k, len(planted))) % k
    return wrong, planted


def by_scikit_learn(table: featx.Features) -> np.ndarray:
    """Return out-of-fold probabilities (n, k)."""
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return cross_val_predict(pipeline, table.X, table.y, cv=5, method="predict_proba")


def cleaned(table: featx.Features, probabilities: np.ndarray) -> np.ndarray:
    """Return the rows in cleanlab's order: its issues, and behind them the others by its score."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    issues = find_label_issues(table.y, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    rest = np.argsort(get_label_quality_scores(table.y, probabilities), kind="stable")
    return np.concatenate([issues, rest[~np.isin(rest, issues)]])


if __name__ == "__main__":
    main()
