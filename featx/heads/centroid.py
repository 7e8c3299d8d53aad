"""`CentroidHead`: the label of the nearest class mean."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from featx.heads.inputs import Array, read_rows, read_training
from featx.heads.linear import softmax
from featx.heads.settings import check_choice, check_number


class CentroidHead(ClassifierMixin, BaseEstimator):
    """Nearest class mean; one pass over the rows.

    Parameters
    ----------
    metric : {"cosine", "euclidean"}
        With cosine, rows are scaled to length 1 before they are averaged, and so are the means.
    temperature : float
        Divides the similarities in `predict_proba`.

    Attributes
    ----------
    centroids_ : ndarray of shape (k, d)
    classes_ : ndarray of shape (k,)

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> round(CentroidHead().fit(X, y).score(X, y), 2)
    0.91
    """

    def __init__(self, *, metric: str = "cosine", temperature: float = 0.07) -> None:
        self.metric = metric
        self.temperature = temperature

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, *, memory: int | str | None = None) -> Self:
        """Fit on X (n, d) or Features, labels y (n,) and weights (n,); see `featx.heads.inputs.read_training`."""
        check_choice("metric", self.metric, ("cosine", "euclidean"))
        check_number("temperature", self.temperature, above=0)
        training = read_training(self, X, y, sample_weight, memory=memory)
        k = len(self.classes_)
        sums = np.zeros((k, training.rows.shape[1]))
        for indices, block in training.rows.blocks():
            membership = np.zeros((k, len(block)), block.dtype)
            membership[training.codes[indices], np.arange(len(block))] = training.weights[indices]
            sums += membership @ (unit_rows(block) if self.metric == "cosine" else block)
        totals = np.bincount(training.codes, training.weights, minlength=k)[:, None]
        means = sums / np.maximum(totals, np.finfo(float).tiny)
        self.centroids_ = (unit_rows(means) if self.metric == "cosine" else means).astype(training.rows.dtype)
        return self

    def decision_function(self, X: Any) -> Array:
        """Return similarities (n, k), or their difference (n,) for two classes.

        With cosine, the cosines; else minus the squared distances, up to a number that all classes of a row share.
        """
        check_is_fitted(self)
        scores = np.concatenate([self._similarities(block) for _, block in read_rows(self, X).blocks()])
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def predict(self, X: Any) -> Array:
        """Return the label of each row, shape (n,)."""
        scores = self.decision_function(X)
        codes = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
        labels: Array = self.classes_[codes]
        return labels

    def predict_proba(self, X: Any) -> Array:
        """Return the softmax of similarities over `temperature`, shape (n, k): ranked like them, not calibrated."""
        return softmax(self.decision_function(X) / self.temperature)

    def _similarities(self, block: Array) -> Array:
        products = (unit_rows(block) if self.metric == "cosine" else 2 * block) @ self.centroids_.T
        # ‖x‖² is the same for every class, and is left out of the squared distance.
        similarities: Array = products - (0 if self.metric == "cosine" else (self.centroids_**2).sum(axis=1))
        return similarities


def unit_rows(X: Array) -> Array:
    """Return rows scaled to Euclidean length 1; rows of zeros stay zero.

    Examples
    --------
    >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    lengths = np.sqrt(np.einsum("nd,nd->n", X, X))[:, None]
    units: Array = X / np.where(lengths > 0, lengths, 1)
    return units
