"""`LDAHead`: linear discriminant analysis with a shrunk covariance, in closed form from class means and moments."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from scipy import linalg

from featx.devices import within_memory
from featx.errors import OptionError
from featx.heads.inputs import Samples, like, read_training
from featx.heads.linear import LinearClassifier
from featx.heads.losses import to_numpy
from featx.heads.moments import check_room, class_sums, second_moment
from featx.heads.targets import Array, ClassWeight
from featx.settings import check_number

#: ``auto`` shrinks at least so much: rows in fewer directions than columns have no inverse covariance.
LEAST = 1e-5


@dataclass(eq=False, repr=False)
class LDAHead(LinearClassifier):
    """Linear discriminant analysis: normal classes of one covariance, which is shrunk. Nothing has to be chosen.

    With class means m_k, shares π_k and the pooled covariance S within classes, a row's score is
    m_kᵀ Σ⁻¹ x - ½ m_kᵀ Σ⁻¹ m_k + log π_k for Σ = (1 - r) S + r tr(S)/d · I. That of
    `sklearn.discriminant_analysis.LinearDiscriminantAnalysis` with ``solver="lsqr"`` and the same r.

    Parameters
    ----------
    shrinkage : float or "auto"
        r, above 0 and at most 1. ``auto`` takes the one of least expected error, in closed form: O. Ledoit, M. Wolf,
        "A well-conditioned estimator for large-dimensional covariance matrices", 2004, on rows less their class means.
    class_weight : dict, "balanced" or None
        As in scikit-learn; a row of weight w counts as w rows.
    device : {"auto", "cpu", "cuda", "cuda:N"}
        Where the rows are multiplied in the fit. Prediction needs numpy alone.

    Attributes
    ----------
    coef_ : ndarray of shape (k, d), or (1, d) for two classes
    intercept_ : ndarray of shape (k,) or (1,)
    classes_ : ndarray of shape (k,)
    shrinkage_ : float
        The r taken.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> head = LDAHead().fit(X, y)
    >>> round(head.shrinkage_, 2), round(head.score(X, y), 2)
    (0.02, 0.96)
    """

    shrinkage: float | str = "auto"
    _: KW_ONLY
    class_weight: ClassWeight = None
    device: str = "auto"

    takes_labels = False

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, *, memory: int | str | None = None) -> Self:
        """Fit on X (n, d) or Features, labels y (n,) and weights (n,); see `featx.heads.inputs.read_training`."""
        if isinstance(self.shrinkage, str):
            if self.shrinkage != "auto":
                raise OptionError(f"shrinkage must be auto, or a number above 0 and at most 1; got {self.shrinkage!r}.")
        else:
            check_number("shrinkage", self.shrinkage, above=0, most=1)
        training = read_training(self, X, y, sample_weight, class_weight=self.class_weight, memory=memory)
        within_memory(lambda *where: self._fit(training.on(*where)), training.device_for(self.device))
        return self

    def _fit(self, training: Samples) -> None:
        totals = np.bincount(training.targets, training.weights, minlength=len(training.classes))
        centre = class_sums(training).sum(axis=0) / totals.sum()
        # About the mean of all, so that large numbers that all rows share lose nothing.
        means = (
            class_sums(training, lambda block: block - like(centre, block))
            / np.maximum(totals, np.finfo(float).tiny)[:, None]
        )
        moments = _Within.of(training, centre + means)
        rho = moments.shrinkage() if self.shrinkage == "auto" else float(self.shrinkage)
        coef = moments.solve(rho, means.T).T
        with np.errstate(divide="ignore"):  # a class of weight 0 is never predicted
            intercept = np.log(totals / totals.sum()) - ((0.5 * means + centre) * coef).sum(axis=1)
        intercept = np.maximum(intercept, np.finfo(training.dtype).min / 4)
        if len(coef) == 2:
            coef, intercept = coef[1:] - coef[:1], intercept[1:] - intercept[:1]
        self.shrinkage_ = rho
        self.coef_, self.intercept_ = coef.astype(training.dtype), intercept.astype(training.dtype)


@dataclass(frozen=True)
class _Within:
    """Rows less their class means: their moments S (d, d), or fewer of them than columns as A (n, d) with S = AᵀA."""

    matrix: Array
    trace: float
    #: Σ s ‖x̃‖⁴ / n, for n = Σ s.
    fourth: float
    total: float

    @classmethod
    def of(cls, training: Samples, means: Array) -> _Within:
        """Read the rows twice."""
        total, (n, d) = float(training.weights.sum()), training.shape
        lengths, rows = np.zeros(n), []
        check_room(training, d)
        for indices, block in training.blocks():
            A = block - like(means, block)[training.placed(training.targets[indices])]
            lengths[indices] = to_numpy((A * A).sum(1))
            if n < d:
                rows.append(to_numpy(A) * np.sqrt(training.weights[indices] / total, dtype=training.dtype)[:, None])
        matrix = np.concatenate(rows) if n < d else second_moment(training, means)[0] / training.dtype.type(total)
        shares = training.weights / total
        return cls(matrix, float(shares @ lengths), float(shares @ lengths**2), total)

    def shrinkage(self) -> float:
        """Return the r of Ledoit and Wolf: the variance of S over its distance from the multiple of the identity."""
        d = self.matrix.shape[1]
        wide = self.matrix.shape[0] < d
        square = float(((self.matrix @ self.matrix.T if wide else self.matrix) ** 2).sum(dtype=np.float64))
        distance = square - self.trace**2 / d
        spread = max(0.0, self.fourth - square) / self.total
        # Rows that do not differ within classes say nothing of the covariance.
        known = distance > np.finfo(np.float32).eps * square > 0
        return min(1.0, max(LEAST, spread / distance)) if known else 1.0

    def solve(self, rho: float, targets: Array) -> Array:
        """Return Σ⁻¹ T for Σ = (1 - r) S + r tr(S)/d · I and T (d, k)."""
        n, d = self.matrix.shape
        scale = self.trace / d if self.trace > 0 else 1.0
        ridge = rho * scale
        if n >= d:
            own = (1 - rho) * self.matrix
            own.flat[:: d + 1] += ridge
            # Transposed it is the same, but in LAPACK's order, so that no copy is made.
            factor = linalg.cho_factor(own.T, lower=True, overwrite_a=True, check_finite=False)
            return np.asarray(linalg.cho_solve(factor, targets, check_finite=False))
        # Woodbury: (s I + c AᵀA)⁻¹ = (I - c Aᵀ (s I + c A Aᵀ)⁻¹ A) / s, with n by n matrices alone.
        A = self.matrix.astype(np.float64)
        inner = (1 - rho) * (A @ A.T)
        inner.flat[:: n + 1] += ridge
        solved = linalg.solve(inner, A @ targets, assume_a="pos", overwrite_a=True, check_finite=False)
        return np.asarray((targets - (1 - rho) * (A.T @ solved)) / ridge)
