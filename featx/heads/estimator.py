"""What every head is: a classifier or regressor of scikit-learn that explains which settings it has."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from featx.heads.targets import Array

#: What scikit-learn, XGBoost and Keras call some settings of heads here.
OTHER_NAMES = {
    "alphas": "alpha",
    "eta": "learning_rate",
    "hidden_layer_sizes": "hidden",
    "learning_rate": "lr",
    "learning_rate_init": "lr",
    "max_iter": "epochs",
    "max_epochs": "epochs",
    "n_epochs": "epochs",
    "n_iter_no_change": "patience",
    "n_neighbors": "k",
    "num_boost_round": "n_estimators",
    "num_round": "n_estimators",
    "seed": "random_state",
    "solver": "optimizer",
    "tol": "min_delta",
}


def explain_setting(name: str, known: Collection[str]) -> str:
    """Return what to say of a setting that is none of those `known`: which is meant, and all there are."""
    other, near = OTHER_NAMES.get(name), get_close_matches(name, known, n=1)
    hint = f"Here it is called {other!r}. " if other in known else f"Did you mean {near[0]!r}? " if near else ""
    return f"{hint}Its settings: {', '.join(known)}."


if TYPE_CHECKING:
    # scikit-learn has no types, and a class with an unknown base takes any argument.
    class _Estimator:
        n_features_in_: int

        def get_params(self, deep: bool = True) -> dict[str, Any]: ...
        def set_params(self, **params: Any) -> Self: ...
        def score(self, X: Any, y: Any, sample_weight: Any = None) -> float: ...
        def __sklearn_tags__(self) -> Any: ...

    class _Classifier(_Estimator): ...

    class _Regressor(_Estimator): ...

else:

    class _Estimator(BaseEstimator):
        def __new__(cls, *args: Any, **settings: Any) -> Any:  # noqa: ARG004 - __init__ takes them
            """Refuse settings that are not there.

            Raises
            ------
            TypeError
            """
            # Not of the class: early 3.11s, such as Debian's, then answer with this function's own words.
            _, *known = inspect.signature(cls.__init__).parameters
            for name in settings:
                if name not in known:
                    raise TypeError(f"{cls.__name__}() has no setting {name!r}. {explain_setting(name, known)}")
            return super().__new__(cls)

    class _Classifier(ClassifierMixin, _Estimator):
        pass

    class _Regressor(RegressorMixin, _Estimator):
        pass


class Head(_Classifier):
    """A scikit-learn classifier that says which of its settings an unknown one stands for.

    Attributes
    ----------
    classes_ : ndarray, shape (k,)
        Sorted labels; with several labels a row, the numbers of their columns.
    multilabel_ : bool
        Whether it was fitted on several labels a row: y (n, t) of 0 or 1, as scikit-learn's classifiers take it.
    """

    classes_: Array
    multilabel_: bool = False

    #: Whether y may have several columns.
    takes_labels: ClassVar[bool] = False

    def __sklearn_tags__(self) -> Any:
        """Say whether it takes several labels a row."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = self.takes_labels
        return tags

    def _decided(self, scores: Array) -> Array:
        """Return the labels (n,) of scores (n, k), or (n,) of the second of two; of several labels 0 or 1, (n, t)."""
        if self.multilabel_:
            return (scores > 0).astype(np.int64)
        codes = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
        labels: Array = self.classes_[codes]
        return labels


class Regressor(_Regressor):
    """A scikit-learn regressor of one number a row or several, told of unknown settings as `Head` is.

    Attributes
    ----------
    n_outputs_ : int
        Numbers a row. Predictions have the shape (n,) where it is 1, else (n, n_outputs_).
    """

    n_outputs_: int

    def __sklearn_tags__(self) -> Any:
        """Say that y may have several columns."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
