"""`RidgeHead`: least squares on ±1 targets, every penalty and exact leave-one-out from one factorisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from featx.devices import within_memory
from featx.heads.inputs import Array, ClassWeight, Samples, like, read_training
from featx.heads.linear import LinearClassifier, softmax
from featx.heads.losses import module_of, to_numpy
from featx.heads.moments import centred, check_room, eigh, mean_row, second_moment
from featx.settings import check_choice, check_number


@dataclass(eq=False, repr=False)
class RidgeHead(LinearClassifier):
    """Ridge regression on targets ±1, each class against the rest, as in `sklearn.linear_model.RidgeClassifier`.

    Minimises Σ_i s_i ‖t_i - W x_i - b‖² + alpha ‖W‖² exactly. Of several alphas, the one with the best exact
    leave-one-out score is taken.

    Parameters
    ----------
    alpha : float or sequence of float
        Strength of the penalty, at least 0 (above 0 where d ≥ n).
    scoring : {"accuracy", "mse"}
        What leave-one-out compares: top-1 accuracy (the larger alpha of equals), or the mean squared error
        of `sklearn.linear_model.RidgeClassifierCV`.
    class_weight : dict, "balanced" or None
        As in scikit-learn.
    device : {"auto", "cpu", "cuda", "cuda:N"}
        Where the rows are multiplied in the fit. Prediction needs numpy alone.

    Attributes
    ----------
    coef_ : ndarray of shape (k, d), or (1, d) for two classes
    intercept_ : ndarray of shape (k,) or (1,)
    classes_ : ndarray of shape (k,)
    alpha_ : float
        The penalty taken.
    loo_scores_ : ndarray of shape (n_alphas,), or None
        Leave-one-out score of each alpha in the order given: accuracy, or minus the mean squared error.
        None for one alpha.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> head = RidgeHead(alpha=(1, 100, 10_000)).fit(X, y)
    >>> head.alpha_, head.loo_scores_.round(3)
    (10000.0, array([0.936, 0.937, 0.939]))
    """

    alpha: float | Sequence[float] = 1.0
    _: KW_ONLY
    scoring: str = "accuracy"
    class_weight: ClassWeight = None
    device: str = "auto"

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, *, memory: int | str | None = None) -> Self:
        """Fit on X (n, d) or Features, labels y (n,) and weights (n,); see `featx.heads.inputs.read_training`."""
        alphas = np.atleast_1d(np.asarray(self.alpha, dtype=object))
        for alpha in alphas:
            check_number("alpha", alpha, least=0)
        check_choice("scoring", self.scoring, ("accuracy", "mse"))
        alphas = alphas.astype(np.float64)
        training = read_training(self, X, y, sample_weight, class_weight=self.class_weight, memory=memory)
        within_memory(lambda *where: self._fit(training.on(*where), alphas), training.device_for(self.device))
        return self

    def _fit(self, training: Samples, alphas: NDArray[np.float64]) -> None:
        moments = _Moments.of(training)
        self.loo_scores_ = None
        chosen = 0
        if len(alphas) > 1:
            self.loo_scores_ = moments.leave_one_out(training, alphas, self.scoring)
            best = np.flatnonzero(self.loo_scores_ == self.loo_scores_.max())
            chosen = int(best[np.argmax(alphas[best])])
        self.alpha_ = float(alphas[chosen])
        coef = moments.coefficients(alphas[[chosen]])[0]
        dtype = training.dtype
        self.coef_ = coef.astype(dtype)
        self.intercept_ = (moments.target_mean - coef @ moments.mean).astype(dtype)

    def predict_proba(self, X: Any) -> Array:
        """Return the softmax of twice the scores, shape (n, k): ranked like them, but not calibrated."""
        return softmax(2 * self.decision_function(X))


@dataclass(frozen=True)
class _Moments:
    """Weighted second moments of rows and targets, factorised.

    With x̃ = x - mean and t̃ = t - target_mean: Σ s x̃ x̃ᵀ = V diag(values) Vᵀ and cross = Vᵀ Σ s x̃ t̃ᵀ,
    so that W(alpha)ᵀ = V diag(1 / (values + alpha)) cross for every alpha.
    """

    mean: Array  # (d,)
    target_mean: Array  # (k,)
    vectors: Array  # (d, r)
    values: Array  # (r,)
    cross: Array  # (r, k)
    total: float

    @classmethod
    def of(cls, training: Samples) -> _Moments:
        """Read the rows twice: for the mean, then for the moments about it."""
        n, d = training.shape
        mean = mean_row(training)
        shares = np.bincount(training.codes, training.weights) / training.weights.sum()
        target_mean = (2 * shares - 1)[_columns(training)]

        def centred_targets(indices: Any) -> Array:
            return np.asarray(_targets(training, indices) - target_mean)

        if n < d:
            values, vectors, cross = _from_rows(training.on("cpu"), mean, centred_targets(slice(None)))
        else:
            gram, cross = second_moment(training, mean, centred_targets)
            values, vectors = eigh(gram, frugal=training.limit is not None)
        return cls(
            mean, target_mean, vectors, values, vectors.T @ cross.astype(vectors.dtype), float(training.weights.sum())
        )

    def shrinkage(self, alphas: NDArray[np.float64]) -> Array:
        """Return 1 / (values + alpha), shape (n_alphas, r), and zero where both are zero."""
        sums = self.values + alphas[:, None]
        # Directions in which rows do not differ are left at zero, as the pseudo-inverse does.
        floor = np.finfo(self.vectors.dtype).eps * self.values[-1]
        return np.where(sums > floor, 1 / np.maximum(sums, np.finfo(float).tiny), 0)

    def coefficients(self, alphas: NDArray[np.float64]) -> Array:
        """Return coefficients for every alpha, shape (n_alphas, k, d)."""
        shrunk = (self.shrinkage(alphas)[:, :, None] * self.cross).astype(self.vectors.dtype)
        return np.swapaxes(self.vectors @ shrunk, 1, 2)

    def leave_one_out(self, training: Samples, alphas: NDArray[np.float64], scoring: str) -> NDArray[np.float64]:
        """Return the weighted leave-one-out score of every alpha, shape (n_alphas,).

        A row's prediction by the fit without it is t - (t - ŷ) / (1 - h), where
        h = s (1/Σs + x̃ᵀ V diag(1 / (values + alpha)) Vᵀ x̃) is its leverage.
        """
        shrinkage, vectors = self.shrinkage(alphas), training.placed(self.vectors)
        scores = np.zeros(len(alphas))
        # One product for as many alphas as make no more columns than the rows have.
        n_parts = -(-len(alphas) * self.cross.shape[1] // len(self.mean))
        for indices, block in training.blocks():
            xp = module_of(block)
            Z = (block - like(self.mean, block)) @ vectors
            targets = like(_targets(training, indices), Z)
            weights, codes = training.placed(training.weights[indices]), training.placed(training.codes[indices])
            leverage = weights[:, None] * (1 / self.total + Z**2 @ like(shrinkage.T, Z))
            for part in np.array_split(np.arange(len(alphas)), min(n_parts, len(alphas))):
                residuals = self._residuals(Z, targets, shrinkage[part])
                floor = np.finfo(self.vectors.dtype).eps
                residuals /= xp.asarray((1 - leverage[:, part, None]).clip(min=floor), dtype=Z.dtype)
                if scoring == "mse":
                    residuals *= residuals
                    found = -residuals.mean(2)
                else:
                    residuals *= -1
                    residuals += targets[:, None]
                    found = _labels(residuals) == codes[:, None]
                scores[part] += to_numpy(weights @ xp.asarray(found, dtype=xp.float64))
        return scores / self.total

    def _residuals(self, Z: Array, targets: Array, shrinkage: Array) -> Array:
        """Return t - ŷ for rows Z (m, r) in the basis of the vectors and some alphas, shape (m, n_alphas, k)."""
        coefs = (shrinkage[:, :, None] * self.cross).astype(self.vectors.dtype)  # (n_alphas, r, k)
        found = Z @ like(coefs.transpose(1, 0, 2).reshape(Z.shape[1], -1), Z)
        residuals: Array = (targets - like(self.target_mean, Z))[:, None] - found.reshape(len(Z), *coefs.shape[::2])
        return residuals


def _from_rows(training: Samples, mean: Array, targets: Array) -> tuple[Array, Array, Array]:
    """Return values, vectors and Σ s x̃ t̃ᵀ from the smaller n by n side, where there are fewer rows than features."""
    check_room(training, training.shape[1])
    parts = training.blocks()
    A = np.concatenate([centred(training, indices, block, mean) for indices, block in parts])
    values, left = eigh(A @ A.T, frugal=training.limit is not None)
    kept = values > values[-1] * np.finfo(A.dtype).eps * len(values)
    vectors = A.T @ (left[:, kept] / np.sqrt(values[kept]))
    return values[kept], vectors, A.T @ (targets * np.sqrt(training.weights)[:, None])


def _targets(training: Samples, indices: Any) -> Array:
    """Return ±1 targets (n, k), one column for two classes."""
    hits = training.codes[indices][:, None] == _columns(training)
    targets: Array = np.where(hits, training.dtype.type(1), training.dtype.type(-1))
    return targets


def _columns(training: Samples) -> NDArray[np.int64]:
    """Return the classes that have a column of targets: all, or the second of two."""
    k = len(training.classes)
    return np.arange(k) if k > 2 else np.ones(1, np.int64)


def _labels(scores: Array) -> Array:
    return 1 * (scores[..., 0] > 0) if scores.shape[-1] == 1 else scores.argmax(axis=-1)
