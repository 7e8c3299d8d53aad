"""Calibration: two numbers that make probabilities mean what they say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Natural logarithms of the smallest and largest temperature tried: decision functions come in any unit.
_TEMPERATURES = (np.log(1e-3), np.log(1e3))
#: Floors tried. A vote of zero among twenty neighbours is no proof that a class is impossible.
_FLOORS = (1e-12, 1e-6, 1e-4, 1e-3, 1e-2, 1e-1)
#: No floor: scores have no zeros, and one would make all classes far below the best equal.
_NONE = 5e-324


@dataclass(frozen=True)
class Calibration:
    """From scores to probabilities: softmax(log(exp(scores) + floor) / temperature).

    Neither number ever changes the order of the classes.

    Attributes
    ----------
    temperature : float
        Above 1 where the head is too sure of itself.
    floor : float
        Added to the odds of each class against the most probable one, before the temperature; the smallest number
        there is, which stands for none, where the head gives scores.
    """

    temperature: float = 1.0
    floor: float = 1e-12

    @classmethod
    def fit(cls, scores: NDArray[np.float64], codes: NDArray[np.intp], *, votes: bool = False) -> Calibration:
        """Return the calibration that gives rows their highest likelihood.

        Parameters
        ----------
        scores : ndarray, shape (n, k)
            Log-odds against the best class of each row, of rows that the head was not fitted on.
        codes : ndarray of int, shape (n,)
            Column of the true class of each.
        votes : bool
            Whether the scores come from probabilities, whose zeros a temperature alone cannot make sense of.

        Notes
        -----
        C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks", 2017. The
        targets are smoothed by 1/(n + 2), as in J. Platt, "Probabilistic outputs for support vector
        machines", 1999: twenty rows that are all right are no proof of certainty.

        Examples
        --------
        >>> sure, nine_in_ten = np.array([[0.0, -9.0]] * 1000), np.array([0] * 900 + [1] * 100)
        >>> Calibration.fit(sure, nine_in_ten).probabilities(sure[:1]).round(2)
        array([[0.9, 0.1]])
        """
        floors = _FLOORS if votes else (_NONE,)
        fits = [_fit_temperature(_floored(scores, floor), codes) for floor in floors]
        best = int(np.argmin([loss for _, loss in fits]))
        return cls(fits[best][0], floors[best])

    def probabilities(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return probabilities, shape (n, k), from scores as in `fit`."""
        return np.asarray(softmax(_floored(scores, self.floor) / self.temperature, axis=1))


def _floored(scores: NDArray[np.float64], floor: float) -> NDArray[np.float64]:
    return scores if floor == _NONE else np.logaddexp(scores, np.log(floor))


def _fit_temperature(scores: NDArray[np.float64], codes: NDArray[np.intp]) -> tuple[float, float]:
    """Return the best temperature and the mean negative log-likelihood there."""
    smoothing = 1 / (len(codes) + 2)
    target = (1 - smoothing) * scores[np.arange(len(codes)), codes] + smoothing * scores.mean(axis=1)

    def loss(log_temperature: float) -> float:
        scale = np.exp(-log_temperature)
        return float((logsumexp(scores * scale, axis=1) - target * scale).mean())

    found = minimize_scalar(loss, bounds=_TEMPERATURES, method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x)), float(found.fun)
