"""What linear heads share: fitting through the solver, and scores from ``coef_`` and ``intercept_``."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from featx.devices import resolve_device
from featx.heads.inputs import Array, Training, read_rows, read_training
from featx.heads.losses import Multinomial
from featx.heads.settings import check_number
from featx.heads.solver import Minimiser, Problem

if TYPE_CHECKING:
    from torch import Tensor

    from featx.heads.losses import Loss
    from featx.heads.solver import Solution


class LinearClassifier(ClassifierMixin):
    """Scores X @ coef_.T + intercept_, and the label of the largest (of the sign, for two classes)."""

    coef_: Array
    intercept_: Array
    classes_: Array

    def decision_function(self, X: Any) -> Array:
        """Return scores of shape (n, k), or (n,) for two classes.

        Parameters
        ----------
        X : array-like of shape (n, d), or Features
        """
        check_is_fitted(self)
        rows = read_rows(self, X)
        scores = np.concatenate([block @ self.coef_.T + self.intercept_ for _, block in rows.blocks()])
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict(self, X: Any) -> Array:
        """Return the label of each row, shape (n,)."""
        scores = self.decision_function(X)
        codes = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
        labels: Array = self.classes_[codes]
        return labels


def fit_linear(
    head: Any, X: Any, y: Any, sample_weight: Any, memory: int | str | None, *, two_classes: Loss, more: Loss
) -> None:
    """Fit `head`, which has the settings C, tol, max_iter, class_weight and device, by the loss its classes need.

    Sets ``coef_``, ``intercept_``, ``objective_``, ``gradient_norm_`` and ``n_iter_``.
    """
    import torch

    check_number("C", head.C, above=0)
    check_number("tol", head.tol, above=0)
    check_number("max_iter", head.max_iter, least=1, whole=True)
    training = read_training(head, X, y, sample_weight, class_weight=head.class_weight, memory=memory)
    loss = more if len(training.classes) > 2 else two_classes
    total = float(training.weights.sum())
    problem = make_problem(training, training.weights[:, None] / total, loss, head.device)
    penalties = torch.tensor([1 / (head.C * total)], dtype=torch.float64, device=problem.device)
    solution = Minimiser(problem).minimise(penalties, tol=head.tol, max_iter=head.max_iter)
    keep_solution(head, problem, solution, total=total, C=head.C)


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


def make_problem(training: Training, weights: Array, loss: Loss, device: str) -> Problem:
    """Return the problem over `training` with row weights (n, p), each column of sum 1."""
    import torch

    device = resolve_device(device, "device")
    codes = torch.from_numpy(training.codes).to(device)
    return Problem(
        training.rows, codes, torch.from_numpy(weights).to(device), loss, loss.n_outputs(len(training.classes)), device
    )


def uncentred(problem: Problem, theta: Tensor) -> tuple[Array, Array]:
    """Return coef (p, k, d) and intercept (p, k) in the units of the rows, without the mean taken off."""
    coef = theta[..., :-1]
    intercept = theta[..., -1] - coef @ problem.mean
    dtype = problem.rows.dtype
    return coef.cpu().numpy().astype(dtype), intercept.cpu().numpy().astype(dtype)
