"""`RidgeHead` and `RidgeRegressor`: least squares, every penalty and exact leave-one-out from one factorisation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from featx.devices import within_memory
from featx.errors import OptionError
from featx.heads.estimator import Regressor
from featx.heads.inputs import Samples, like, read_training
from featx.heads.linear import LinearClassifier, linear_scores, probabilities
from featx.heads.losses import module_of, to_numpy
from featx.heads.moments import centred, check_room, eigh, mean_row, second_moment
from featx.heads.targets import Array, ClassWeight, Units
from featx.settings import check_choice, check_number

#: From indices of rows to what they are regressed on, shape (m, q), in the dtype of the rows.
Targets = Callable[[Any], Array]


@dataclass(eq=False, repr=False)
class RidgeHead(LinearClassifier):
    """Ridge regression on targets ±1, each class against the rest, as in `sklearn.linear_model.RidgeClassifier`.

    Minimises Σ_i s_i ‖t_i - W x_i - b‖² + alpha ‖W‖² exactly. Of several alphas, the one with the best exact
    leave-one-out score is taken. Of several labels a row, y (n, t) of 0 or 1, each is ±1 by itself.

    Parameters
    ----------
    alpha : float or sequence of float
        Strength of the penalty, at least 0 (above 0 where d ≥ n).
    scoring : {"accuracy", "mse"}
        What leave-one-out compares: top-1 accuracy, or of several labels the share that is right (the larger alpha
        of equals); or the mean squared error of `sklearn.linear_model.RidgeClassifierCV`.
    class_weight : dict, "balanced" or None
        As in scikit-learn; None for several labels a row, which share one factorisation.
    device : {"auto", "cpu", "cuda", "cuda:N"}
        Where the rows are multiplied in the fit. Prediction needs numpy alone.

    Attributes
    ----------
    coef_ : ndarray of shape (k, d), or (1, d) for two classes
    intercept_ : ndarray of shape (k,) or (1,)
    classes_ : ndarray of shape (k,)
    multilabel_ : bool
        Whether rows have several labels.
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

    def fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, *, groups: Any = None, memory: int | str | None = None
    ) -> Self:
        """Fit on X (n, d) or Features, labels y (n,) and weights (n,); see `featx.heads.inputs.read_training`.

        With `groups` (n,) whole groups are left out to choose among alphas, in place of single rows.
        """
        alphas = _alphas(self.alpha)
        check_choice("scoring", self.scoring, ("accuracy", "mse"))
        training = read_training(self, X, y, sample_weight, class_weight=self.class_weight, memory=memory)
        if training.label_weights is not None:
            raise OptionError(
                "RidgeHead fits several labels from one factorisation, which takes no weights of their own. Leave out "
                "class_weight, or fit --head logreg."
            )
        within_memory(lambda *where: self._fit(training.on(*where), alphas, groups), training.device_for(self.device))
        return self

    def _fit(self, training: Samples, alphas: NDArray[np.float64], groups: Any) -> None:
        targets = _Signs(training)
        right = None if self.scoring == "mse" else targets.right
        moments, chosen, self.loo_scores_ = _Moments.choose(training, targets, alphas, right, groups)
        self.alpha_ = float(alphas[chosen])
        self.coef_, self.intercept_ = moments.solution(self.alpha_, training.dtype)

    def predict_proba(self, X: Any) -> Array:
        """Return the softmax of twice the scores, shape (n, k): ranked like them, but not calibrated.

        Of several labels, the logistic function of twice each score.
        """
        return probabilities(self, 2 * self.decision_function(X))


@dataclass(eq=False, repr=False)
class RidgeRegressor(Regressor):
    """Ridge regression of one number a row or several, as `sklearn.linear_model.Ridge`.

    Minimises Σ_i s_i ‖y_i - W x_i - b‖² + alpha ‖W‖² exactly. Of several alphas, the one with the best exact
    leave-one-out R², the mean over outputs, is taken for all of them.

    Parameters
    ----------
    alpha : float or sequence of float
        Strength of the penalty, at least 0 (above 0 where d ≥ n).
    device : {"auto", "cpu", "cuda", "cuda:N"}
        Where the rows are multiplied in the fit. Prediction needs numpy alone.

    Attributes
    ----------
    coef_ : ndarray of shape (t, d)
    intercept_ : ndarray of shape (t,)
    n_outputs_ : int
        t, numbers a row.
    alpha_ : float
        The penalty taken.
    loo_scores_ : ndarray of shape (n_alphas,), or None
        Leave-one-out R² of each alpha in the order given; None for one alpha.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> head = RidgeRegressor(alpha=(0.01, 1, 100)).fit(X, y)
    >>> head.alpha_, head.loo_scores_.round(2)
    (0.01, array([0.49, 0.44, 0.02]))
    """

    alpha: float | Sequence[float] = 1.0
    _: KW_ONLY
    device: str = "auto"

    def fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, *, groups: Any = None, memory: int | str | None = None
    ) -> Self:
        """Fit on X (n, d) or Features, numbers y (n,) or (n, t), weights (n,); see `read_training`.

        With `groups` (n,) whole groups are left out to choose among alphas, in place of single rows.
        """
        alphas = _alphas(self.alpha)
        training = read_training(self, X, y, sample_weight, memory=memory)
        within_memory(lambda *where: self._fit(training.on(*where), alphas, groups), training.device_for(self.device))
        return self

    def _fit(self, training: Samples, alphas: NDArray[np.float64], groups: Any) -> None:
        units = Units.of(training.targets, training.weights)

        def targets(indices: Any) -> Array:
            return units.without(training.targets[indices]).astype(training.dtype)

        moments, chosen, errors = _Moments.choose(training, targets, alphas, groups=groups)
        self.loo_scores_ = None if errors is None else 1 + errors  # targets have variance 1
        self.alpha_ = float(alphas[chosen])
        coef, intercept = moments.solution(self.alpha_, np.dtype(np.float64))
        self.coef_ = (coef * units.scale[:, None]).astype(training.dtype)
        # Large numbers, such as years, lose nothing in an intercept of float64.
        self.intercept_ = units.given(intercept)

    def predict(self, X: Any) -> Array:
        """Return numbers, shape (n,), or (n, t) for several."""
        check_is_fitted(self)
        found = linear_scores(self, X)
        return found[:, 0] if self.n_outputs_ == 1 else found


def _alphas(given: float | Sequence[float]) -> NDArray[np.float64]:
    """Return penalties as an array, each checked."""
    alphas = np.atleast_1d(np.asarray(given, dtype=object))
    for alpha in alphas:
        check_number("alpha", alpha, least=0)
    return alphas.astype(np.float64)


class _Signs:
    """±1 for each class against the rest, one column for two classes; or for each of several labels."""

    def __init__(self, training: Samples) -> None:
        self._targets, self._dtype = training.targets, training.dtype
        k = len(training.classes)
        self._columns = np.arange(k) if k > 2 else np.ones(1, np.int64)

    def __call__(self, indices: Any) -> Array:
        targets = self._targets[indices]
        hits = targets == 1 if targets.ndim == 2 else targets[:, None] == self._columns
        signs: Array = np.where(hits, self._dtype.type(1), self._dtype.type(-1))
        return signs

    def right(self, predicted: Array, targets: Array) -> Array:
        """Return whether predictions (m, n_alphas, q) are right, or the share of labels that is, (m, n_alphas)."""
        if targets.ndim == 2:
            hits = (predicted > 0) == (targets == 1)[:, None]
            shares: Array = module_of(predicted).asarray(hits, dtype=predicted.dtype).mean(2)
            return shares
        labels = 1 * (predicted[..., 0] > 0) if predicted.shape[-1] == 1 else predicted.argmax(axis=-1)
        right: Array = labels == targets[:, None]
        return right


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
    def choose(
        cls,
        training: Samples,
        targets: Targets,
        alphas: NDArray[np.float64],
        right: Callable[..., Array] | None = None,
        groups: Any = None,
    ) -> tuple[_Moments, int, NDArray[np.float64] | None]:
        """Return the moments, the index of the best alpha, and the scores of all where there are several."""
        moments = cls.of(training, targets)
        if len(alphas) == 1:
            return moments, 0, None
        score = moments.leave_one_out if groups is None else partial(moments.leave_group_out, np.asarray(groups))
        scores = score(training, targets, alphas, right)
        best = np.flatnonzero(scores == scores.max())
        return moments, int(best[np.argmax(alphas[best])]), scores

    @classmethod
    def of(cls, training: Samples, targets: Targets) -> _Moments:
        """Read the rows twice: for the mean, then for the moments about it."""
        n, d = training.shape
        mean, total = mean_row(training), float(training.weights.sum())
        target_mean = np.sum([training.weights[part] @ targets(part) for part in _parts(n)], axis=0) / total

        def centred_targets(indices: Any) -> Array:
            return np.asarray(targets(indices) - target_mean)

        if n < d:
            values, vectors, cross = _from_rows(training.on("cpu"), mean, centred_targets(slice(None)))
        else:
            gram, cross = second_moment(training, mean, centred_targets)
            values, vectors = eigh(gram, frugal=training.limit is not None)
        return cls(mean, target_mean, vectors, values, vectors.T @ cross.astype(vectors.dtype), total)

    def solution(self, alpha: float, dtype: np.dtype[Any]) -> tuple[Array, Array]:
        """Return coefficients (k, d) and intercepts (k,) for rows as they are."""
        coef = self.coefficients(np.array([alpha]))[0]
        return coef.astype(dtype), (self.target_mean - coef @ self.mean).astype(dtype)

    def shrinkage(self, alphas: NDArray[np.float64]) -> Array:
        """Return 1 / (values + alpha), shape (n_alphas, r), and zero where both are zero."""
        sums = self.values + alphas[:, None]
        # Directions in which rows do not differ are left at zero, as the pseudo-inverse does.
        floor = np.finfo(self.vectors.dtype).eps * self.values.max(initial=0)  # none where all rows are alike
        return np.where(sums > floor, 1 / np.maximum(sums, np.finfo(float).tiny), 0)

    def coefficients(self, alphas: NDArray[np.float64]) -> Array:
        """Return coefficients for every alpha, shape (n_alphas, k, d)."""
        shrunk = (self.shrinkage(alphas)[:, :, None] * self.cross).astype(self.vectors.dtype)
        return np.swapaxes(self.vectors @ shrunk, 1, 2)

    def leave_one_out(
        self,
        training: Samples,
        targets_of: Targets,
        alphas: NDArray[np.float64],
        right: Callable[..., Array] | None = None,
    ) -> NDArray[np.float64]:
        """Return the weighted leave-one-out score of every alpha, shape (n_alphas,): minus the mean squared error.

        Or the mean of what `right` makes of predictions (m, n_alphas, k) and ``training.targets``.

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
            targets = like(targets_of(indices), Z)
            weights, true = training.placed(training.weights[indices]), training.placed(training.targets[indices])
            leverage = weights[:, None] * (1 / self.total + Z**2 @ like(shrinkage.T, Z))
            for part in np.array_split(np.arange(len(alphas)), min(n_parts, len(alphas))):
                residuals = self._residuals(Z, targets, shrinkage[part])
                floor = np.finfo(self.vectors.dtype).eps
                residuals /= xp.asarray((1 - leverage[:, part, None]).clip(min=floor), dtype=Z.dtype)
                if right is None:
                    residuals *= residuals
                    found = -residuals.mean(2)
                else:
                    residuals *= -1
                    residuals += targets[:, None]
                    found = right(residuals, true)
                scores[part] += to_numpy(weights @ xp.asarray(found, dtype=xp.float64))
        return scores / self.total

    def leave_group_out(
        self,
        groups: NDArray[Any],
        training: Samples,
        targets_of: Targets,
        alphas: NDArray[np.float64],
        right: Callable[..., Array] | None = None,
    ) -> NDArray[np.float64]:
        """Return what `leave_one_out` does, where the rows of each group (n,) are left out together.

        The residuals of a group G by the fit without it are (I - K S)⁻¹ e, where e are its residuals, S its weights and
        K = 1/Σs + x̃ᵀ V diag(1 / (values + alpha)) Vᵀ x̃ between its rows: leave-one-out, for blocks (Woodbury).
        """
        training = training.on("cpu")
        shrinkage, scores = self.shrinkage(alphas), np.zeros(len(alphas))
        Z = np.empty((len(training), len(self.values)), self.vectors.dtype)
        for indices, block in training.blocks():
            Z[indices] = (block - self.mean) @ self.vectors
        _, group = np.unique(groups, return_inverse=True)
        ends = np.cumsum(np.bincount(group))[:-1]
        for rows in np.split(np.argsort(group, kind="stable"), ends):
            targets, weights = targets_of(rows), training.weights[rows]
            residuals = self._residuals(Z[rows], targets, shrinkage).astype(np.float64)
            for k, shrunk in enumerate(shrinkage):
                among = 1 / self.total + (Z[rows] * shrunk) @ Z[rows].T
                left = np.eye(len(rows)) * (1 + np.finfo(np.float32).eps) - among * weights
                apart = np.linalg.solve(left, residuals[:, k])
                if right is None:
                    found = -(apart**2).mean(1)
                else:
                    found = right((targets - apart)[:, None].astype(Z.dtype), training.targets[rows])[:, 0]
                scores[k] += float(weights @ found)
        return scores / self.total

    def _residuals(self, Z: Array, targets: Array, shrinkage: Array) -> Array:
        """Return t - ŷ for rows Z (m, r) in the basis of the vectors and some alphas, shape (m, n_alphas, k)."""
        coefs = (shrinkage[:, :, None] * self.cross).astype(self.vectors.dtype)  # (n_alphas, r, k)
        n_alphas, r, k = coefs.shape
        found = Z @ like(coefs.transpose(1, 0, 2).reshape(r, n_alphas * k), Z)
        residuals: Array = (targets - like(self.target_mean, Z))[:, None] - found.reshape(len(Z), n_alphas, k)
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


def _parts(n: int, step: int = 1 << 16) -> Iterator[slice]:
    """Yield slices of n rows."""
    for start in range(0, n, step):
        yield slice(start, start + step)
