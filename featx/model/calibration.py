"""Temperature scaling: one number that makes probabilities mean what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Natural logarithms of the smallest and largest temperature tried.
_BOUNDS = (np.log(0.05), np.log(20.0))


def fit_temperature(logits: NDArray[np.float64], y: NDArray[np.int64]) -> float:
    """Return the temperature that gives the rows their highest likelihood.

    Parameters
    ----------
    logits : ndarray, shape (n, k)
        Scores of rows that the head was not fitted on.
    y : ndarray of int, shape (n,)
        Their classes.

    Returns
    -------
    float
        T in 0.05 … 20: probabilities are softmax(logits / T). Above 1 where the head is too sure.
        It never changes which class is the most probable.

    Notes
    -----
    C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks", 2017. The
    targets are smoothed by 1/(n + 2), as in J. Platt, "Probabilistic outputs for support vector machines",
    1999: twenty rows that are all right are no proof of certainty.

    Examples
    --------
    >>> sure, nine_in_ten = np.array([[9.0, 0.0]] * 1000), np.array([0] * 900 + [1] * 100)
    >>> round(9 / fit_temperature(sure, nine_in_ten), 1)  # the log-odds of nine in ten
    2.2
    """
    smoothing = 1 / (len(y) + 2)
    target = (1 - smoothing) * logits[np.arange(len(y)), y] + smoothing * logits.mean(axis=1)

    def loss(log_temperature: float) -> float:
        scale = np.exp(-log_temperature)
        return float((logsumexp(logits * scale, axis=1) - target * scale).mean())

    return float(np.exp(minimize_scalar(loss, bounds=_BOUNDS, method="bounded", options={"xatol": 1e-4}).x))
