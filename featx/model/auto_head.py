"""`AutoHead` and `AutoRegressor`: heads that try other heads, as estimators of scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import featx.heads  # noqa: F401 - before anything else imports scikit-learn, see there

# isort: split
import numpy as np
from sklearn.utils.validation import check_is_fitted

from featx.heads.estimator import Head, Regressor
from featx.heads.inputs import read_rows, read_training
from featx.heads.targets import Array, ClassWeight

if TYPE_CHECKING:
    from featx.heads.inputs import Samples
    from featx.model.model import Model


@dataclass(eq=False, repr=False)
class AutoHead(Head):
    """Heads tried cheapest first on rows held out; those that help vote together.

    Parameters
    ----------
    budget : float or str
        Seconds that the fits may take, about: ``30``, ``"2m"``.
    heads : str, sequence of str, or None
        Names of the heads that are tried (`featx.heads.list_heads`), in a text with commas between; None for all that
        can do it.
    class_weight : "balanced" or None
        Of all heads that take one.
    val : float
        Share of the rows that are held out and choose. Of tables in `featx.fit` their validation rows do.
    random_state : int or None
        Of the draw of these rows, of what heads draw, and of the selection. Equal ones give equal heads, unless the
        time runs out.

    Attributes
    ----------
    model_ : Model
        Of featx; its ``report`` lists what was tried, as ``tried`` and ``skipped``.
    classes_ : ndarray of shape (k,)
    multilabel_ : bool
        Whether rows have several labels.
    usual_ : ndarray of shape (k,)
        What is said of a class or label that no row taught.

    Notes
    -----
    Greedy selection with replacement: see `featx.model.selection.greedy_weights`.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> head = AutoHead(heads="centroid,ridge").fit(X[::2], y[::2])
    >>> head.score(X[1::2], y[1::2]) > 0.9
    True
    """

    budget: float | str = 30.0
    _: KW_ONLY
    heads: str | Sequence[str] | None = None
    class_weight: ClassWeight = None
    val: float = 0.1
    random_state: int | None = None

    takes_labels: ClassVar[bool] = True
    #: What `featx.fit` asks a head.
    tries_heads: ClassVar[bool] = True

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit on X (n, d) or Features, and labels y (n,), or (n, t) of 0 and 1."""
        rows = read_training(self, X, y)
        labels = {"targets": rows.targets, "task": "multilabel"} if self.multilabel_ else {"y": rows.targets}
        self.model_ = _fitted(self, rows, labels)
        return self

    def predict_proba(self, X: Any) -> Array:
        """Return probabilities (n, k) of rows X (n, d)."""
        return _said(self, X)

    def predict(self, X: Any) -> Array:
        """Return the label of each row, shape (n,), or 0 and 1 of several, (n, t)."""
        found = _said(self, X)
        if self.multilabel_:
            return (found >= 0.5).astype(np.int64)
        labels: Array = self.classes_[found.argmax(axis=1)]
        return labels


@dataclass(eq=False, repr=False)
class AutoRegressor(Regressor):
    """Regressors tried cheapest first on rows held out; those that help are averaged.

    Parameters
    ----------
    budget, heads, val, random_state
        As of `AutoHead`.

    Attributes
    ----------
    model_ : Model
        Of featx; its ``report`` lists what was tried.
    n_outputs_ : int
        Numbers a row.
    usual_ : ndarray of shape (t,)
        Means; of numbers that never vary they are all that is said.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(200, 5))
    >>> AutoRegressor(heads="ridge,knn").fit(X, X[:, 0]).score(X, X[:, 0]) > 0.9
    True
    """

    budget: float | str = 30.0
    _: KW_ONLY
    heads: str | Sequence[str] | None = None
    val: float = 0.1
    random_state: int | None = None

    tries_heads: ClassVar[bool] = True

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit on X (n, d) or Features, and numbers y, (n,) or (n, t)."""
        rows = read_training(self, X, y)
        self.model_ = _fitted(self, rows, {"targets": rows.targets, "task": "regress"})
        return self

    def predict(self, X: Any) -> Array:
        """Return the numbers of rows X (n, d), shape (n,) or (n, t)."""
        found = _said(self, X)
        return found[:, 0] if self.n_outputs_ == 1 else found


def _fitted(head: Any, rows: Samples, labels: dict[str, Any]) -> Model:
    from featx.features import Features
    from featx.model import fit

    head.usual_ = rows.targets.mean(axis=0) if rows.targets.ndim == 2 else np.zeros(len(rows.classes))
    table = Features.from_arrays(rows.take(np.arange(len(rows))), **labels)
    return fit(table, head, val=head.val, seed=head.random_state or 0)


def _said(head: Any, X: Any) -> Array:
    check_is_fitted(head, "model_")
    rows = read_rows(head, X)
    found = np.tile(head.usual_, (len(rows), 1))  # of what never varied there was nothing to learn
    taught = [int(name) for name in head.model_.columns]
    found[:, taught] = head.model_.say(np.asarray(rows.take(np.arange(len(rows))), np.float32))
    return found
