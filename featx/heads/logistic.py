"""`LogisticHead`: scikit-learn's logistic regression, solved sooner and to a stated gradient."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator

from featx.heads.inputs import Array, ClassWeight
from featx.heads.linear import LinearClassifier, fit_linear, softmax
from featx.heads.losses import Binomial, Multinomial


class LogisticHead(LinearClassifier, BaseEstimator):
    """Multinomial logistic regression with an L2 penalty.

    Minimises the objective of `sklearn.linear_model.LogisticRegression`,

        C · Σ_i s_i · loss_i + ½ ‖coef‖²,

    with the intercept unpenalised and, for two classes, one vector of coefficients.

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
        As in scikit-learn.
    device : {"auto", "cpu", "cuda"}
        Where the fit computes. Prediction needs numpy alone.

    Attributes
    ----------
    coef_ : ndarray of shape (k, d), or (1, d) for two classes
    intercept_ : ndarray of shape (k,) or (1,)
    classes_ : ndarray of shape (k,)
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

    def __init__(
        self,
        C: float = 1.0,
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
        fit_linear(self, X, y, sample_weight, memory, two_classes=Binomial(), more=Multinomial())
        return self

    def predict_proba(self, X: Any) -> Array:
        """Return probabilities, shape (n, k), columns in the order of ``classes_``."""
        return softmax(self.decision_function(X))

    def predict_log_proba(self, X: Any) -> Array:
        """Return logarithms of `predict_proba`."""
        return np.log(self.predict_proba(X))
