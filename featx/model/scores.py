"""From what a head says to what a user reads: scores, calibrated probabilities, and how unlike the training rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.heads.linear import softmax
from featx.heads.neighbors import unit_rows
from featx.model.predictions import FEWEST_ROWS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featx.features import Features
    from featx.model.scaling import FeatureScaler

#: A probability of zero counts as this, and a label without a probability as sure but for this.
LEAST = 1e-12


def relative_scores(head: Any, X: NDArray[Any]) -> NDArray[np.float64]:
    """Return log-odds of each class against the best one of its row.

    Parameters
    ----------
    head : classifier
        Fitted. Its decision function is taken where it has one, else its probabilities, else its labels.
    X : ndarray, shape (n, …)
        Rows as the head takes them.

    Returns
    -------
    ndarray of float64, shape (n, m)
        Columns in the order of ``head.classes_``; the largest of each row is 0.
    """
    if hasattr(head, "decision_function"):
        scores = np.asarray(head.decision_function(X), dtype=np.float64)
        if scores.ndim == 1:  # the log-odds of the second of two classes
            scores = np.column_stack([np.zeros_like(scores), scores])
    elif hasattr(head, "predict_proba"):
        scores = np.log(np.clip(np.asarray(head.predict_proba(X), dtype=np.float64), LEAST, None))
    else:
        scores = np.where(np.asarray(head.predict(X))[:, None] == head.classes_, 0.0, np.log(LEAST))
    return np.asarray(scores - scores.max(axis=1, keepdims=True))


#: Smallest and largest temperature tried: decision functions come in any unit.
_TEMPERATURES = (1e-3, 1e3)
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
        return softmax(_floored(scores, self.floor) / self.temperature)


def _floored(scores: NDArray[np.float64], floor: float) -> NDArray[np.float64]:
    return scores if floor == _NONE else np.logaddexp(scores, np.log(floor))


def _fit_temperature(scores: NDArray[np.float64], codes: NDArray[np.intp]) -> tuple[float, float]:
    """Return the best temperature and the mean negative log-likelihood there."""
    smoothing = 1 / (len(codes) + 2)
    target = (1 - smoothing) * scores[np.arange(len(codes)), codes].mean() + smoothing * scores.mean()
    low, high = (1 / temperature for temperature in reversed(_TEMPERATURES))
    scale = 1.0
    # The loss is convex in the scale, 1/temperature: Newton's steps towards the root of its slope, within a bracket.
    for _ in range(50):
        powers = np.exp(scores * scale)  # the largest score of a row is 0
        sums = powers.sum(axis=1)
        means = np.einsum("nk,nk->n", powers, scores) / sums
        slope = means.mean() - target
        low, high = (scale, high) if slope < 0 else (low, scale)
        curvature = (np.einsum("nk,nk,nk->n", powers, scores, scores) / sums - means**2).mean()
        # Within the bracket; where there is hardly a curvature, the quotient may be more than a number holds.
        inside = abs(slope) < curvature * (high - low)
        step = scale - slope / curvature if inside else low
        step = step if low < step < high else float(np.sqrt(low * high))
        if abs(np.log(step / scale)) < 1e-6:
            break
        scale = step
    return float(1 / scale), float((np.log(sums) - target * scale).mean())


#: Training rows that a model file carries, at most, and the bytes they may take.
MOST_ROWS, MOST_BYTES = 1000, 2 << 20
#: Rows that the distances of new ones are compared with, at most.
MOST_REFERENCES = 2000
#: The distance is that to the so-manyth nearest row.
NEIGHBOUR = 5


@dataclass(frozen=True, eq=False)
class OODScore:
    """A sample of training rows, and how far from them rows of the same kind lie.

    Attributes
    ----------
    units : ndarray of float16, shape (m, d)
        Scaled training rows of length 1.
    distances : ndarray of float32, shape (v,)
        Ascending distances of rows that are not in the sample.

    Notes
    -----
    The k-th nearest neighbour on rows of length 1 is the score of Y. Sun et al., "Out-of-distribution detection with
    deep nearest neighbors", ICML 2022. Here it is told as a share, so that it needs no unit.
    """

    units: NDArray[np.float16]
    distances: NDArray[np.float32]

    @classmethod
    def learn(
        cls, table: Features, scaler: FeatureScaler, train: NDArray[np.intp], val: NDArray[np.intp], seed: int
    ) -> OODScore | None:
        """Sample training rows, and measure validation rows, or without any further training rows, against them.

        Returns None where too few rows are there, or a row is too long to carry enough of them.
        """
        width = int(np.prod(table.shape[1:]))
        shuffled = np.random.default_rng(seed).permutation(train)
        n_carried = min(MOST_ROWS, MOST_BYTES // (2 * width), len(train) if len(val) else len(train) // 2)
        carried, rest = shuffled[:n_carried], val if len(val) else shuffled[n_carried:]
        if n_carried < FEWEST_ROWS or len(rest) < FEWEST_ROWS:
            return None
        units = _units(scaler.transform(table[np.sort(carried)])).astype(np.float16)
        references = np.sort(np.random.default_rng(seed).permutation(rest)[:MOST_REFERENCES])
        distances = _distances(units, scaler.transform(table[references]))
        return cls(units, np.sort(distances))

    def familiarity(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        """Return for scaled rows (n, …) which share of known rows is as far or farther, shape (n,).

        Rows like those learned from are spread evenly over 0–1; those unlike any are at 0.
        """
        nearer = np.searchsorted(self.distances, _distances(self.units, rows), side="left")
        return np.asarray(1 - nearer / len(self.distances))


def _units(rows: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(unit_rows(rows.reshape(len(rows), -1)), np.float32)


def _distances(units: NDArray[np.float16], rows: NDArray[Any]) -> NDArray[np.float32]:
    """Return 1 - cosine to the `NEIGHBOUR`-th nearest of `units`, shape (n,)."""
    similarities = _units(rows) @ units.astype(np.float32).T
    place = len(units) - NEIGHBOUR
    return np.asarray(1 - np.partition(similarities, place, axis=1)[:, place], np.float32)
