"""Linear heads: `LogisticHead`, `SVMHead`, and what they share with the others that have ``coef_``."""

from __future__ import annotations

import warnings
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
import scipy
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from featx.devices import within_memory
from featx.heads.estimator import Head
from featx.heads.inputs import Samples, read_rows, read_training
from featx.heads.losses import Binomial, Loss, Multinomial, SquaredHinge, to_numpy
from featx.heads.solver import Minimiser, Problem, Solution
from featx.heads.targets import Array, ClassWeight
from featx.settings import check_number


class LinearClassifier(Head):
    """Scores X @ coef_.T + intercept_, and the label of the largest; the signs, for two classes or several labels."""

    coef_: Array
    intercept_: Array

    takes_labels = True

    def decision_function(self, X: Any) -> Array:
        """Return scores of shape (n, k), or (n,) for two classes.

        Parameters
        ----------
        X : array-like of shape (n, d), or Features
        """
        check_is_fitted(self)
        scores = linear_scores(self, X)
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict(self, X: Any) -> Array:
        """Return the label of each row, shape (n,), or whether each of several labels holds, (n, t)."""
        return self._decided(self.decision_function(X))

    def predict_proba(self, X: Any) -> Array:
        """Return the softmax of the scores, shape (n, k); with several labels each one's own probability.

        Columns are in the order of ``classes_``.
        """
        return probabilities(self, self.decision_function(X))


@dataclass(eq=False, repr=False)
class PenalisedClassifier(LinearClassifier):
    """Minimises C · Σ_i s_i · loss_i + ½ ‖coef‖²; its final classes name the loss and document the settings."""

    C: float = 1.0
    _: KW_ONLY
    tol: float = 1e-5
    max_iter: int = 1000
    class_weight: ClassWeight = None
    device: str = "auto"

    def _loss(self, samples: Samples) -> Loss:
        """Return what is minimised for such targets."""
        raise NotImplementedError

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, *, memory: int | str | None = None) -> Self:
        """Fit on X (n, d) or Features, labels y (n,) and weights (n,); see `featx.heads.inputs.read_training`."""
        check_number("C", self.C, above=0)
        check_number("tol", self.tol, above=0)
        check_number("max_iter", self.max_iter, least=1, whole=True)
        self._solve(read_training(self, X, y, sample_weight, class_weight=self.class_weight, memory=memory))
        return self

    def _solve(self, samples: Samples) -> None:
        total = float(samples.weights.sum())
        loss = self._loss(samples)

        def solve(device: str, n_parts: int) -> tuple[Problem, Solution]:
            problem = Problem(samples, samples.weights[None] / total, loss, device, n_parts)
            penalties = problem.penalties(np.array([1 / (self.C * total)]))
            return problem, Minimiser(problem).minimise(penalties, tol=self.tol, max_iter=self.max_iter)

        problem, solution = within_memory(solve, samples.device_for(self.device))
        keep_solution(self, problem, solution, total=total, C=self.C)


@dataclass(eq=False, repr=False)
class LogisticHead(PenalisedClassifier):
    """Logistic regression with an L2 penalty: multinomial, or with several labels a row each label's own.

    Minimises the objective of `sklearn.linear_model.LogisticRegression`,

        C · Σ_i s_i · loss_i + ½ ‖coef‖²,

    with the intercept unpenalised and, for two classes, one vector of coefficients. Of several labels, y (n, t) of
    0 or 1, it is the sum of the objectives of `sklearn.multiclass.OneVsRestClassifier`, whose products are shared.

    Parameters
    ----------
    C : float
        Inverse strength of the penalty, above 0; ``inf`` for none.
    tol : float
        The fit ends when no entry of the gradient of the *mean* objective (the above over C · Σ s_i) is
        larger, scikit-learn's own criterion.
    max_iter : int
        Most iterations; a `ConvergenceWarning` says when they did not suffice.
    class_weight : dict, "balanced" or None
        As in scikit-learn; of several labels each is balanced by itself.
    device : {"auto", "cpu", "cuda"}
        Where the fit computes. Prediction needs numpy alone.

    Attributes
    ----------
    coef_ : ndarray of shape (k, d), or (1, d) for two classes
    intercept_ : ndarray of shape (k,) or (1,)
    classes_ : ndarray of shape (k,)
        Sorted labels; of several labels a row, the numbers of their columns.
    multilabel_ : bool
        Whether rows have several labels.
    objective_ : float
        Value of the objective above.
    gradient_norm_ : float
        Largest absolute entry of the mean objective's gradient.
    n_iter_ : int

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> head = LogisticHead(C=0.01).fit(X, y)
    >>> head.coef_.shape, bool(head.gradient_norm_ <= head.tol), round(head.score(X, y), 2)
    ((10, 64), True, 0.99)
    """

    def _loss(self, samples: Samples) -> Loss:
        return logistic_loss(samples)

    def predict_log_proba(self, X: Any) -> Array:
        """Return logarithms of `predict_proba`."""
        return np.log(self.predict_proba(X))


@dataclass(eq=False, repr=False)
class SVMHead(PenalisedClassifier):
    """Linear support vector machine with the squared hinge, each class against the rest.

    Minimises C · Σ_i s_i Σ_k max(0, 1 - t_ik z_ik)² + ½ ‖coef‖², t = ±1: the primal objective of
    `sklearn.svm.LinearSVC`, except that the intercept is not penalised. Probabilities are
    ranked like the scores, but not calibrated.

    Parameters
    ----------
    C : float
        Inverse strength of the penalty, above 0.
    tol : float
        Largest entry of the gradient of the mean objective (the above over C · Σ s_i) at the end.
    max_iter : int
    class_weight : dict, "balanced" or None
        As in scikit-learn.
    device : {"auto", "cpu", "cuda"}
        Where the fit computes. Prediction needs numpy alone.

    Attributes
    ----------
    coef_, intercept_, classes_, objective_, gradient_norm_, n_iter_
        As in `LogisticHead`.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> round(SVMHead(C=0.01).fit(X, y).score(X, y), 2)
    0.99
    """

    C: float = 0.01

    def _loss(self, samples: Samples) -> Loss:
        return SquaredHinge(samples.label_weights)


def logistic_loss(samples: Samples) -> Loss:
    """Return the loss of logistic regression on such targets."""
    several = samples.targets.ndim == 2
    return Multinomial() if len(samples.classes) > 2 and not several else Binomial(samples.label_weights)


def keep_solution(head: Any, problem: Problem, solution: Solution, *, total: float, C: float) -> None:
    """Set what a fit of one problem found, and say so if it ended before its gradient was small."""
    coef, intercept = uncentred(problem, solution.theta)
    if isinstance(problem.loss, Multinomial):
        intercept -= intercept.mean(axis=1, keepdims=True)  # what all classes share changes no probability
    head.coef_, head.intercept_ = coef[0], intercept[0]
    head.objective_ = float(solution.values[0]) * total * (C if np.isfinite(C) else 1)
    head.gradient_norm_ = float(solution.gradient_norms[0])
    head.n_iter_ = max(1, int(solution.n_iter[0]))
    if head.gradient_norm_ > head.tol:
        warnings.warn(
            f"The gradient is {head.gradient_norm_:.1e} after {head.n_iter_} iterations, above tol={head.tol:g}. "
            "Raise max_iter, scale the features, or lower C.",
            ConvergenceWarning,
            stacklevel=4,
        )


def uncentred(problem: Problem, theta: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return coef (p, k, d) and intercept (p, k) in the units of the rows, without the mean taken off."""
    coef, dtype = theta[..., :-1], problem.samples.dtype
    with problem.exact():
        intercept = theta[..., -1] - coef @ problem.mean
    return to_numpy(coef).astype(dtype), to_numpy(intercept).astype(dtype)


def linear_scores(head: Any, X: Any) -> Array:
    """Return X @ coef_.T + intercept_ of a fitted head, shape (n, o)."""
    rows = read_rows(head, X)
    return np.concatenate([block @ head.coef_.T + head.intercept_ for _, block in rows.blocks()])


def probabilities(head: Head, scores: Array) -> Array:
    """Return what log-odds of a head's classes mean, or of each of its several labels."""
    return np.asarray(scipy.special.expit(scores)) if head.multilabel_ else softmax(scores)


def softmax(scores: Array) -> Array:
    """Return probabilities (n, k) from scores (n, k), or from the score of the second of two classes (n,).

    Examples
    --------
    >>> softmax(np.array([0.0, np.log(3)]))
    array([[0.5 , 0.5 ],
           [0.25, 0.75]])
    """
    if scores.ndim == 1:
        scores = np.stack([np.zeros_like(scores), scores], axis=1)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities: Array = powers / powers.sum(axis=1, keepdims=True)
    return probabilities
