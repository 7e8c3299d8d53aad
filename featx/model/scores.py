"""One kind of score from any classifier: log-odds against the class it thinks best."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: A probability of zero counts as this, and a label without a probability as sure but for this.
_LEAST = 1e-12


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
        scores = np.log(np.clip(np.asarray(head.predict_proba(X), dtype=np.float64), _LEAST, None))
    else:
        scores = np.where(np.asarray(head.predict(X))[:, None] == head.classes_, 0.0, np.log(_LEAST))
    return np.asarray(scores - scores.max(axis=1, keepdims=True))
