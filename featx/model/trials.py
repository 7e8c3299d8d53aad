"""What ``--head auto`` tries for each task, with which settings, and about how long each takes."""

from __future__ import annotations

from typing import Any

_ALPHAS = tuple(10.0**power for power in range(-2, 7))

#: Task → head → settings that differ from its own. The first is what tables are ranked by.
TRIES: dict[str, dict[str, dict[str, Any]]] = {
    "classify": {
        "ridge": {"alpha": _ALPHAS},
        "centroid": {},
        "knn": {},
        "logreg": {},
        "svm": {},
        "mlp": {},
        "xgboost": {},
    },
    "multilabel": {"ridge": {"alpha": _ALPHAS}, "knn": {}, "logreg": {}, "mlp": {}, "xgboost": {}},
    "regress": {"ridge": {}, "knn": {}, "mlp": {}, "xgboost": {}},
}
#: Products a second of one core, about.
_SPEED = 2e10


def seconds_of(head: str, n: int, d: int, k: int) -> float:
    """Return about how many seconds a fit of `head` on n rows of d columns with k classes takes on one core.

    Parameters
    ----------
    head : str
    n, d, k : int

    Notes
    -----
    Only the order and the magnitude matter: a plan made of these is the same wherever it is made.
    """
    least = 0.05 + 2 * n * d / _SPEED
    square = n * d * min(n, d) / _SPEED + min(n, d) ** 3 * 4 / _SPEED
    more = {
        "ridge": 3 * square,
        "centroid": 0.0,
        "knn": n * n * d / 10 / _SPEED,
        "logreg": 0.2 + 600 * n * d * k / _SPEED,
        "svm": 0.2 + 600 * n * d * k / _SPEED,
        "mlp": 1.0 + 6 * 20 * n * (d * 256 + 40_000) / _SPEED,
        "xgboost": 1.0 + 100 * n * min(d, 256) * k * 20 / _SPEED,
    }.get(head, 5.0)
    return least + more
