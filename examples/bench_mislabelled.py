"""How many of twelve labels planted among 500 digits are found, by head and by rank.

    python examples/bench_mislabelled.py

Expected: 10 to 12 among the first 20 rows, in under 3 s each.
"""

from __future__ import annotations

import time

import numpy as np
from sklearn.datasets import load_digits

import featx
from featx.evaluation import find_mislabelled

HEADS = ("logreg", "knn", "svm", "ridge", "mlp", "xgboost")


def main() -> None:
    """Print one line a head."""
    X, y = load_digits(return_X_y=True)
    X, y = (X[:500] / 16).astype(np.float32), y[:500]
    print("| head | found in the first 20, by seed | seconds |\n|---|---|---|")
    for head in HEADS:
        found, seconds = [], 0.0
        for seed in range(3):
            planted = np.random.default_rng(seed).choice(len(y), 12, replace=False)
            wrong = y.copy()
            wrong[planted] = (wrong[planted] + 3) % 10
            table = featx.Features.from_arrays(X, wrong)
            model = featx.fit(table, head, settings={"epochs": 2} if head == "mlp" else {})
            started = time.perf_counter()
            suspects = find_mislabelled(model, table).suspects
            seconds += time.perf_counter() - started
            found.append(len({suspect.row for suspect in suspects[:20]} & set(planted.tolist())))
        print(f"| {head} | {', '.join(map(str, found))} | {seconds / 3:.1f} |", flush=True)


if __name__ == "__main__":
    main()
