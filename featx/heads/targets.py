"""What heads learn to tell: one class a row, several labels of 0 or 1, or numbers; and how much each row counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_regressor
from sklearn.utils import assert_all_finite, check_array, check_consistent_length
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from featx.errors import DataError, OptionError

Array = NDArray[Any]
ClassWeight = dict[Any, float] | str | None


def learn_targets(head: Any, y: Any, n: int) -> tuple[Array, Array]:
    """Check the targets of `n` rows that `head` is fitted on, and set what it knows of them.

    Of a classifier these are ``classes_`` and ``multilabel_``, of a regressor ``n_outputs_``.

    Returns
    -------
    targets : ndarray
        Index of each row's class (n,), int64; or labels (n, t) of 0 or 1, int8; or numbers (n, t), float64.
    classes : ndarray, shape (k,)
        Sorted labels; the numbers of the columns where there are several; none for numbers.

    Raises
    ------
    DataError
        If there are fewer than two classes, or `y` has columns that the head, or nobody, can learn.
    """
    _require_targets(head, y)
    if is_regressor(head):
        numbers = _numbers(y, n)
        head.n_outputs_ = numbers.shape[1]
        return numbers, np.empty(0)
    shape = y.shape if hasattr(y, "shape") else np.asarray(y).shape
    head.multilabel_ = len(shape) == 2 and shape[1] > 1
    if head.multilabel_:
        targets = _indicators(head, y, n)
        classes = np.arange(targets.shape[1])
    else:
        classes, targets = np.unique(_labels(y, n), return_inverse=True)
        if len(classes) < 2:
            raise DataError(f"A classifier needs at least two classes, got 1 class: {classes.tolist()[:1]}.")
        targets = targets.astype(np.int64)
    head.classes_ = classes
    return targets, classes


def known_targets(head: Any, y: Any, n: int) -> Array:
    """Return targets of `n` more rows for a `head` that knows its classes, as `learn_targets` does.

    Raises
    ------
    DataError
        If a label is not one of ``classes_``, or there are more columns or fewer.
    """
    _require_targets(head, y)
    if is_regressor(head) or head.multilabel_:
        targets = _numbers(y, n) if is_regressor(head) else _indicators(head, y, n)
        expected = head.n_outputs_ if is_regressor(head) else len(head.classes_)
        if targets.shape[1] != expected:
            raise DataError(f"y needs {expected} columns, as in the fit; got {targets.shape[1]}.")
        return targets
    labels = _labels(y, n)
    unknown = np.setdiff1d(labels, head.classes_)
    if len(unknown):
        raise DataError(f"Labels {unknown[:3].tolist()} are not among the classes {head.classes_[:10].tolist()}.")
    return np.searchsorted(head.classes_, labels).astype(np.int64)


def row_weights(sample_weight: Any, n: int) -> NDArray[np.float64]:
    """Return the weight of each of `n` rows, shape (n,): a copy, not negative and not all zero."""
    if sample_weight is None:
        return np.ones(n)
    weights: NDArray[np.float64] = check_array(
        sample_weight, ensure_2d=False, dtype=np.float64, copy=True, input_name="sample_weight"
    )
    if weights.ndim == 0:
        return np.full(n, float(weights))
    if weights.shape != (n,):
        raise DataError(f"sample_weight needs one weight a row, shape ({n},), got {weights.shape}.")
    if (weights < 0).any() or not weights.any():
        raise DataError("sample_weight must not be negative, and not all of it zero.")
    return weights


def class_weights(
    class_weight: ClassWeight, classes: Array, targets: Array, weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the weight of each class, shape (k,), or of 0 and 1 of each label, shape (2, t).

    Balanced ones give every class of the rows, or both values of each label, the same sum of weights.
    """
    several = targets.ndim == 2
    if class_weight is None:
        return np.ones((2, len(classes)) if several else len(classes))
    if isinstance(class_weight, dict) and not several:
        return np.array([class_weight.get(label, 1.0) for label in classes.tolist()], dtype=np.float64)
    if class_weight != "balanced":
        choices = (
            "balanced or none for several labels a row" if several else "balanced, none or a dict of label: weight"
        )
        raise OptionError(f"class_weight must be {choices}; got {class_weight!r}.")
    if several:
        ones = np.array([weights @ label for label in targets.T])
        sums = np.stack([weights.sum() - ones, ones])
    else:
        sums = np.bincount(targets, weights, minlength=len(classes))
    present = sums > 0
    return np.where(present, weights.sum() / np.where(present, present.sum(0) * sums, 1), 0)


@dataclass(frozen=True)
class Units:
    """What numbers are measured in: fits see them less their mean, over their standard deviation.

    Attributes
    ----------
    mean, scale : ndarray of float64, shape (t,)
        The scale of numbers that do not differ is 1.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def of(cls, numbers: NDArray[np.float64], weights: NDArray[np.float64]) -> Units:
        """Return the units of numbers (n, t) of rows with weights (n,)."""
        shares = weights / weights.sum()
        mean = shares @ numbers
        variance = shares @ (numbers - mean) ** 2
        return cls(mean, np.where(variance > 0, np.sqrt(variance), 1))

    def without(self, numbers: Array) -> Array:
        """Return numbers (n, t) without their units."""
        return np.asarray((numbers - self.mean) / self.scale)

    def given(self, numbers: Array) -> Array:
        """Return in these units what `without` has taken them from."""
        return np.asarray(self.mean + numbers * self.scale)


def _require_targets(head: Any, y: Any) -> None:
    if y is None:
        raise DataError(f"{type(head).__name__} requires y to be passed, but the target y is None.")


def _labels(y: Any, n: int) -> Array:
    """Return one label a row, shape (n,)."""
    # Of a plain column scikit-learn has nothing to say, but to see that, it imports what knows all data frames.
    plain = type(y) is np.ndarray and y.ndim == 1 and y.dtype.kind in "iu" and y.size > 0
    labels: Array = y if plain else column_or_1d(y, warn=True)
    if labels.dtype.kind == "f":
        assert_all_finite(labels, input_name="y")
        check_classification_targets(labels)  # of others it only warns, where most classes have a single row
    if len(labels) != n:
        check_consistent_length(range(n), labels)
    return labels


def _indicators(head: Any, y: Any, n: int) -> Array:
    """Return labels of 0 or 1, shape (n, t), int8: there may be many of them."""
    name = type(head).__name__
    if not head.takes_labels:
        raise DataError(
            f"{name} takes one class a row, got y of shape {np.shape(y)}. For several labels: featx heads lists the "
            "heads that take them, for example logreg."
        )
    labels = check_array(y, dtype=None, input_name="y")
    if len(labels) != n:
        check_consistent_length(range(n), labels)
    other = np.setdiff1d(labels, (0, 1))
    if len(other):
        raise DataError(
            f"y of several columns holds a label a column, 0 or 1; got {other[:3].tolist()}. "
            "For classes of several columns, fit one head a column."
        )
    return np.asarray(labels, np.int8)


def _numbers(y: Any, n: int) -> NDArray[np.float64]:
    """Return numbers, shape (n, t)."""
    numbers: NDArray[np.float64] = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
    check_consistent_length(range(n), numbers)
    return numbers.reshape(n, -1)
