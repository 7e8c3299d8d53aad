"""Intervals of any metric: rows, or whole groups of rows, are drawn again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

#: Rows are drawn again so many times.
N_DRAWS = 500


def bootstrap_interval(
    metric: Callable[[NDArray[Any], NDArray[Any]], float],
    truth: NDArray[Any],
    found: NDArray[Any],
    groups: NDArray[np.intp] | None = None,
    *,
    n_draws: int = N_DRAWS,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Return the 95 % percentile interval of a metric over rows drawn again with replacement.

    Parameters
    ----------
    metric : callable
        From truth and predictions to a number; NaN where it is not defined.
    truth, found : ndarray, shape (n, …)
    groups : ndarray of int, shape (n,), optional
        Rows of one group are drawn together.
    n_draws, seed : int

    Returns
    -------
    low, high : float
        None where there are fewer than two groups, or the metric is defined in too few draws.

    Notes
    -----
    B. Efron, R. J. Tibshirani, "An introduction to the bootstrap", 1993; of groups, A. C. Davison, D. V. Hinkley,
    "Bootstrap methods and their application", 1997, section 3.8.

    Examples
    --------
    >>> x = np.arange(100.0)
    >>> low, high = bootstrap_interval(lambda a, b: float((a - b).mean()), x, x - 1)
    >>> low, high
    (1.0, 1.0)
    """
    _, group = np.unique(np.arange(len(truth)) if groups is None else groups, return_inverse=True)
    order, sizes = np.argsort(group, kind="stable"), np.bincount(group)
    members, rng = np.split(order, np.cumsum(sizes)[:-1]), np.random.default_rng(seed)
    if len(sizes) < 2:
        return None
    values = []
    for _ in range(n_draws):
        drawn = rng.integers(0, len(sizes), len(sizes))
        rows = order[drawn] if len(sizes) == len(order) else np.concatenate([members[k] for k in drawn.tolist()])
        values.append(metric(truth[rows], found[rows]))
    defined = np.array(values)[~np.isnan(values)]
    if len(defined) < n_draws / 2:
        return None
    low, high = np.quantile(defined, [0.025, 0.975])
    return float(low), float(high)
