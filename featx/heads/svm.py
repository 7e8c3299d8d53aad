"""`SVMHead`: a linear support vector machine, each class against the rest."""

from __future__ import annotations

from typing import Any, Self

from sklearn.base import BaseEstimator

from featx.heads.inputs import Array, ClassWeight
from featx.heads.linear import LinearClassifier, fit_linear, softmax
from featx.heads.losses import SquaredHinge


class SVMHead(LinearClassifier, BaseEstimator):
    """Linear support vector machine with the squared hinge, each class against the rest.

    Minimises C · Σ_i s_i Σ_k max(0, 1 - t_ik z_ik)² + ½ ‖coef‖², t = ±1: the primal objective of
    `sklearn.svm.LinearSVC`, except that the intercept is not penalised.

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

    def __init__(
        self,
        C: float = 0.01,
        *,
        tol: float = 1e-5,
        max_iter: int = 1000,
        class_weight: ClassWeight = None,
        device: str = "auto",
    ) -> None:
        self.C = C
        self.tol = tol
        self.max_iter = max_iter
        self.class_weight = class_weight
        self.device = device

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, *, memory: int | str | None = None) -> Self:
        """Fit on X (n, d) or Features, labels y (n,) and weights (n,); see `featx.heads.inputs.read_training`."""
        fit_linear(self, X, y, sample_weight, memory, two_classes=SquaredHinge(), more=SquaredHinge())
        return self

    def predict_proba(self, X: Any) -> Array:
        """Return the softmax of the scores, shape (n, k): ranked like them, but not calibrated."""
        return softmax(self.decision_function(X))
