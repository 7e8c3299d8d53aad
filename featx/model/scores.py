"""Probabilities from any classifier, and rows through it block by block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Log-probabilities start here, so that a vote of zero is unlikely and not impossible.
_LEAST = 1e-12


def logits(head: Any, X: NDArray[Any], n_classes: int) -> NDArray[np.float64]:
    """Return scores whose softmax are the class probabilities of a fitted `head`.

    Parameters
    ----------
    head : classifier
        Fitted on class indices. Its probabilities are taken where it has them, else its decision
        function, else its labels (as sure as they can be).
    X : ndarray, shape (n, …)
        Rows as the head takes them.
    n_classes : int
        Number of classes k; a class that the head never saw scores as if it had probability 1e-12.

    Returns
    -------
    ndarray of float64, shape (n, k)
    """
    known = np.asarray(head.classes_, dtype=np.intp)
    if hasattr(head, "predict_proba"):
        scores = np.log(np.clip(np.asarray(head.predict_proba(X), dtype=np.float64), _LEAST, None))
    elif hasattr(head, "decision_function"):
        scores = np.asarray(head.decision_function(X), dtype=np.float64)
        if scores.ndim == 1:  # the log-odds of the second of two classes
            scores = np.column_stack([np.zeros_like(scores), scores])
    else:
        scores = np.where(np.asarray(head.predict(X))[:, None] == known, 0.0, np.log(_LEAST))
    full = np.full((len(X), n_classes), np.log(_LEAST))
    full[:, known] = scores - scores.max(axis=1, keepdims=True) if len(X) else scores
    return full


def probabilities(scores: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Return the softmax of `scores` (n, k) divided by `temperature`."""
    return np.asarray(softmax(scores / temperature, axis=1))
