"""What ``--head auto`` tries for each task, with which settings, and about how long each takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_ALPHAS = tuple(10.0**power for power in range(-2, 7))


@dataclass(frozen=True)
class Kind:
    """A head as it is tried.

    Attributes
    ----------
    head : str
    settings : dict
        That differ from its own.
    scale : str
        The step before it, as ``--scale``.
    """

    head: str
    settings: dict[str, Any] = field(default_factory=dict)
    scale: str = "auto"


_RIDGE = {"alpha": _ALPHAS}
_SMALL = {"alpha": tuple(10.0**power for power in range(-5, 3))}
#: Task → what is tried, of equally dear ones in this order.
TRIES: dict[str, tuple[Kind, ...]] = {
    "classify": (
        Kind("ridge", _RIDGE),
        Kind("ridge", _SMALL, "l2"),
        Kind("lda"),
        Kind("centroid"),
        Kind("knn"),
        Kind("logreg"),
        Kind("svm"),
        Kind("mlp"),
        Kind("xgboost"),
    ),
    "multilabel": (Kind("ridge", _RIDGE), Kind("knn"), Kind("logreg"), Kind("mlp"), Kind("xgboost")),
    "regress": (Kind("ridge"), Kind("knn"), Kind("mlp"), Kind("xgboost")),
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
        "ridge": square,
        "lda": square,
        "centroid": 0.0,
        "knn": n * n * d / 10 / _SPEED,
        "logreg": 0.1 + 1200 * n * d * k / _SPEED,
        "svm": 0.1 + 1200 * n * d * k / _SPEED,
        "mlp": 2.0 + 6 * 20 * n * (d * 256 + 40_000) / _SPEED,
        "xgboost": 2.0 + 100 * n * min(d, 256) * k * 100 / _SPEED,
    }.get(head, 5.0)
    return least + more
