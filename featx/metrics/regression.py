"""How near predicted numbers come to the true ones."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def r2_score(truth: ArrayLike, found: ArrayLike) -> float:
    """Return the share of the variance that predictions explain, at most 1: the mean over columns.

    Parameters
    ----------
    truth, found : array_like, shape (n,) or (n, t)
        NaN where a column does not vary: there is nothing to explain.

    Examples
    --------
    >>> r2_score([1.0, 2.0, 3.0], [1.0, 2.0, 3.5])
    0.875
    """
    y, p = _columns(truth), _columns(found)
    spread = ((y - y.mean(axis=0)) ** 2).sum(axis=0) if len(y) else np.zeros(y.shape[1])
    shares = [1 - ((y[:, k] - p[:, k]) ** 2).sum() / spread[k] for k in np.flatnonzero(spread > 0)]
    return float(np.mean(shares)) if shares else math.nan


def mean_absolute_error(truth: ArrayLike, found: ArrayLike) -> float:
    """Return the mean distance between predictions and truth, over rows and columns.

    Examples
    --------
    >>> mean_absolute_error([1.0, 2.0], [1.0, 4.0])
    1.0
    """
    return float(np.abs(_columns(truth) - _columns(found)).mean())


def root_mean_squared_error(truth: ArrayLike, found: ArrayLike) -> float:
    """Return the root of the mean squared distance, of several columns the mean of theirs.

    Examples
    --------
    >>> root_mean_squared_error([1.0, 2.0], [1.0, 4.0])
    1.41...
    """
    return float(np.sqrt(((_columns(truth) - _columns(found)) ** 2).mean(axis=0)).mean())


def conformal_margins(truth: ArrayLike, found: ArrayLike, coverage: float = 0.9) -> Floats:
    """Return how far from a prediction the truth may be, so that intervals ± that cover their share of new rows.

    Parameters
    ----------
    truth, found : array_like, shape (n,) or (n, t)
        Of rows that what predicts was not fitted on.
    coverage : float
        Share of new rows that lie within, 0–1.

    Returns
    -------
    ndarray, shape (t,)
        Infinite where there are too few rows to promise that.

    Notes
    -----
    Split conformal prediction: J. Lei, M. G'Sell, A. Rinaldo, R. J. Tibshirani, L. Wasserman, "Distribution-free
    predictive inference for regression", JASA 2018. It holds for rows exchangeable with these, whatever predicts.

    Examples
    --------
    >>> conformal_margins(np.arange(19.0), np.zeros(19), coverage=0.9).tolist()
    [17.0]
    """
    distances = np.sort(np.abs(_columns(truth) - _columns(found)), axis=0)
    place = math.ceil((len(distances) + 1) * coverage)
    return distances[place - 1] if place <= len(distances) else np.full(distances.shape[1], np.inf)


def _columns(values: ArrayLike) -> Floats:
    array = np.asarray(values, np.float64)
    return array.reshape(len(array), -1)
