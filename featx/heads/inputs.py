"""What heads accept: arrays or tables with labels and weights, read whole or block by block."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeGuard

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import assert_all_finite, check_array, check_consistent_length
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d, validate_data

from featx.devices import resolve_device
from featx.errors import DataError, OptionError
from featx.machine import share_cores
from featx.settings import parse_bytes

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[Any]
ClassWeight = dict[Any, float] | str | None

#: Rows are gone through in blocks of this size where no memory limit says otherwise.
BLOCK_BYTES = 16 << 20

#: Fits to tables of at most so many values are done in numpy: importing torch takes longer than it saves.
NUMPY = 1 << 25

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
    class _Classifier:
        classes_: Array
        n_features_in_: int

        def get_params(self, deep: bool = True) -> dict[str, Any]: ...
        def set_params(self, **params: Any) -> Self: ...
        def score(self, X: Any, y: Any, sample_weight: Any = None) -> float: ...
        def __sklearn_tags__(self) -> Any: ...

else:

    class _Classifier(ClassifierMixin, BaseEstimator):
        pass


class Head(_Classifier):
    """A scikit-learn classifier that says which of its settings an unknown one stands for."""

    if not TYPE_CHECKING:  # type checkers read the parameters of `__init__`

        def __new__(cls, *args: Any, **settings: Any) -> Any:  # noqa: ARG004 - __init__ takes them
            """Refuse settings that are not there.

            Raises
            ------
            TypeError
            """
            known = inspect.signature(cls).parameters
            for name in settings:
                if name not in known:
                    raise TypeError(f"{cls.__name__}() has no setting {name!r}. {explain_setting(name, list(known))}")
            return super().__new__(cls)


class Table(Protocol):
    """What heads ask of a table: `featx.Features` has it, and so may anything else."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    X: Array
    y: NDArray[np.int64]

    def __getitem__(self, rows: Any) -> Array: ...

    def select(self, rows: Any) -> Table:
        """Return a part of the table that still reads on request."""

    def blocks(self, n_bytes: int = ..., *, shuffle: bool = ..., seed: int = ...) -> Iterator[tuple[Any, Array]]:
        """Yield (positions, rows) in blocks of at most `n_bytes`."""


def is_table(X: object) -> TypeGuard[Table]:
    """Whether `X` reads its rows on request; everything else is taken as an array."""
    return callable(getattr(X, "blocks", None))


@dataclass(frozen=True)
class Samples:
    """What a head is given: rows of an array or a table, read in blocks of bounded size, and what is known of each.

    Attributes
    ----------
    source : ndarray or Table
        Rows of shape (n, …).
    shape : tuple of int
        Of the whole.
    dtype : dtype
        float32 or float64: what blocks are given as.
    limit : int or None
        Bytes that whoever reads them may use in all; None for no limit.
    device : str
        Where blocks are given: on the CPU as numpy's, else as torch's.
    n_parts : int
        As in `featx.devices.within_memory`: of several, blocks are so much smaller.
    codes : ndarray of int64, shape (n,)
        Index into `classes`; empty where labels are unknown, as in prediction, and so are the rest.
    weights : ndarray of float64, shape (n,)
        Sample weight times class weight.
    classes : ndarray, shape (k,)
        Sorted labels.
    """

    source: Array | Table
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    limit: int | None = None
    device: str = "cpu"
    n_parts: int = 1
    codes: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    weights: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    classes: Array = field(default_factory=lambda: np.empty(0))

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def in_memory(self) -> bool:
        """Whether all rows are one array."""
        return isinstance(self.source, np.ndarray)

    @property
    def row_bytes(self) -> int:
        """Size of one row in `dtype`."""
        return max(1, math.prod(self.shape[1:])) * self.dtype.itemsize

    @property
    def sample_size(self) -> int:
        """Rows that may be held at once, with what is computed from them."""
        return len(self) if self.limit is None else min(len(self), max(2, self.limit // (16 * self.row_bytes)))

    @property
    def block_bytes(self) -> int:
        """Size of a block, where nobody asks for another."""
        return BLOCK_BYTES if self.limit is None else min(BLOCK_BYTES, self.limit // 16)

    def blocks(
        self, n_bytes: int | None = None, *, shuffle: bool = False, seed: int = 0
    ) -> Iterator[tuple[Any, Array]]:
        """Yield (indices, rows) in blocks of at most `n_bytes`: in order, or from a table shuffled."""
        n_bytes = (self.block_bytes if n_bytes is None else n_bytes) // self.n_parts
        if isinstance(self.source, np.ndarray):
            step = max(1, n_bytes // self.row_bytes)
            for start in range(0, len(self), step):
                share_cores()
                where = slice(start, min(start + step, len(self)))
                yield where, self.placed(self.source[where])
            return
        for indices, block in self.source.blocks(n_bytes, shuffle=shuffle, seed=seed):
            share_cores()
            yield indices, self.placed(block.astype(self.dtype, copy=False))

    def device_for(self, device: str) -> str:
        """Return what a head's setting `device` means for rows as many as these; see `featx.devices.resolve_device`."""
        return resolve_device(device, "device", n_values=math.prod(self.shape))

    def on(self, device: str, n_parts: int = 1) -> Samples:
        """Return the same with its blocks on a device."""
        return replace(self, device=device, n_parts=n_parts)

    def placed(self, array: Array) -> Any:
        """Return numpy's `array` where blocks are given, in its own dtype."""
        return array if self.device == "cpu" else as_tensor(array, self.device)

    def select(self, indices: NDArray[np.intp]) -> Samples:
        """Return the part at ascending `indices`; a table's rows stay where they are."""
        source = self.source[indices] if isinstance(self.source, np.ndarray) else self.source.select(indices)
        shape = (len(indices), *self.shape[1:])
        labelled: dict[str, Any] = (
            {"codes": self.codes[indices], "weights": self.weights[indices]} if len(self.codes) else {}
        )
        return replace(self, source=source, shape=shape, **labelled)

    def take(self, indices: NDArray[np.intp]) -> Array:
        """Return the rows at ascending `indices` as one array."""
        if isinstance(self.source, np.ndarray):
            return np.asarray(self.source[indices], self.dtype)
        # Blocks are read, where rows asked for by number may be mapped, and mapped pages count as memory.
        return np.concatenate([block for _, block in self.select(indices).blocks()])


def read_training(
    head: Any,
    X: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    class_weight: ClassWeight = None,
    memory: int | str | None = None,
    maps: bool = False,
) -> Samples:
    """Check what was given to ``fit``, and set ``n_features_in_`` and ``classes_`` of `head`.

    Parameters
    ----------
    head : estimator
        Whose ``fit`` asks.
    X : array-like of shape (n, d), or Table
        Arrays stay as they are. A table is read whole when half of `memory` holds it in its computing
        dtype (the other half is for the fit), else it is read block by block.
    y : array-like of shape (n,), or None
        None takes the labels of the table; its unlabelled rows (-1) are then left out.
    sample_weight : array-like of shape (n,), or None
        Not negative, not all zero.
    class_weight : dict, "balanced" or None
        As in scikit-learn.
    memory : int, str or None
        Limit in bytes (or "2GiB") for everything the fit adds to the process; None for no limit.
    maps : bool
        Whether rows may be maps of shape (c, h, w).

    Raises
    ------
    DataError
        If there are fewer than two classes, no positive weights, or maps where vectors are needed.
    """
    if is_table(X):
        limit = None if memory is None else parse_bytes(memory)
        if y is None:
            if (X.y < 0).any():
                X = X.select(np.flatnonzero(X.y >= 0))
            y = X.y
        rows = _table_rows(head, X, limit, maps=maps)
    else:
        rows = _array_rows(head, X, reset=True, maps=maps)
    labels = _check_labels(head, y, len(rows))
    classes, codes = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise DataError(f"A classifier needs at least two classes, got 1 class: {classes.tolist()[:1]}.")
    head.classes_ = classes
    weights = _row_weights(sample_weight, len(rows))
    weights *= _class_weights(class_weight, classes, codes, weights)[codes]
    return replace(rows, codes=codes.astype(np.int64), weights=weights, classes=classes)


def read_labelled(
    head: Any,
    X: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    class_weight: ClassWeight = None,
    memory: int | str | None = None,
    maps: bool = False,
    reset: bool = False,
) -> Samples:
    """Check further rows with labels, for a `head` whose ``classes_`` are known; as `read_training` otherwise.

    They are gone through many times: a table is read once, where a quarter of `memory` holds it.

    Raises
    ------
    DataError
        If a label is not one of ``classes_``.
    """
    if is_table(X):
        if reset:
            head.n_features_in_ = math.prod(X.shape[1:])
        y = X.y if y is None else y
        rows = read_rows(head, X, maps=maps)
        if memory is None or 4 * len(rows) * rows.row_bytes <= parse_bytes(memory):
            rows = replace(rows, source=np.asarray(X.X, rows.dtype))
    else:
        rows = _array_rows(head, X, reset=reset, maps=maps)
    labels = _check_labels(head, y, len(rows))
    unknown = np.setdiff1d(labels, head.classes_)
    if len(unknown):
        raise DataError(f"Labels {unknown[:3].tolist()} are not among the classes {head.classes_[:10].tolist()}.")
    codes = np.searchsorted(head.classes_, labels)
    weights = _row_weights(sample_weight, len(rows))
    weights *= _class_weights(class_weight, head.classes_, codes, weights)[codes]
    return replace(rows, codes=codes.astype(np.int64), weights=weights, classes=head.classes_)


def read_rows(head: Any, X: Any, *, maps: bool = False) -> Samples:
    """Check what was given to ``predict`` of a fitted `head`; a table is read in blocks."""
    if is_table(X):
        expected = head.n_features_in_
        if math.prod(X.shape[1:]) != expected or (len(X.shape) > 2 and not maps):
            raise DataError(f"{type(head).__name__} was fitted on rows of {expected} values, got a table of {X.shape}.")
        return Samples(X, X.shape, _computing_dtype(X.dtype))
    return _array_rows(head, X, reset=False, maps=maps)


def _array_rows(head: Any, X: Any, *, reset: bool, maps: bool) -> Samples:
    kinds = [np.float32, np.float64]
    if maps and getattr(X, "ndim", 2) > 2:  # of which scikit-learn would count the first side only
        array = check_array(X, dtype=kinds, allow_nd=True)
        width = math.prod(array.shape[1:])
        if not reset and width != head.n_features_in_:
            raise DataError(f"{type(head).__name__} was fitted on {head.n_features_in_} values a row, got {width}.")
        head.n_features_in_ = width
    else:
        array = validate_data(head, X, reset=reset, dtype=kinds)
    return Samples(array, array.shape, array.dtype)


def _check_labels(head: Any, y: Any, n: int) -> Array:
    if y is None:
        raise DataError(f"{type(head).__name__} requires y to be passed, but the target y is None.")
    labels: Array = column_or_1d(y, warn=True)
    if labels.dtype.kind == "f":
        assert_all_finite(labels, input_name="y")
        check_classification_targets(labels)  # of others it only warns, where most classes have a single row
    check_consistent_length(range(n), labels)
    return labels


def _table_rows(head: Any, X: Table, limit: int | None, *, maps: bool) -> Samples:
    if len(X.shape) > 2 and not maps:
        raise DataError(
            f"{type(head).__name__} needs one vector an image, got maps of {X.shape[1:]}. "
            "Extract with --pool avg or --pool flatten, or fit --head conv."
        )
    if len(X.shape) == 2 and maps:
        raise DataError(
            f"{type(head).__name__} needs maps (channels, height, width), got one vector of {X.shape[1]:,} an image. "
            "Extract with --pool none, or fit --head mlp."
        )
    head.n_features_in_ = math.prod(X.shape[1:])
    dtype = _computing_dtype(X.dtype)
    whole = math.prod(X.shape) * dtype.itemsize
    if limit is None or 2 * whole <= limit:
        array = np.asarray(X.X, dtype)
        return Samples(array, array.shape, dtype)
    return Samples(X, X.shape, dtype, limit)


def _computing_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def _class_weights(
    class_weight: ClassWeight, classes: Array, codes: Array, weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the weight of each class; balanced ones give every class of the rows the same sum of weights."""
    if class_weight is None:
        return np.ones(len(classes))
    if isinstance(class_weight, dict):
        return np.array([class_weight.get(label, 1.0) for label in classes.tolist()], dtype=np.float64)
    if class_weight != "balanced":
        raise OptionError(f"class_weight must be balanced, none or a dict of label: weight; got {class_weight!r}.")
    sums = np.bincount(codes, weights, minlength=len(classes))
    return np.where(sums > 0, sums.sum() / np.maximum((sums > 0).sum() * sums, np.finfo(float).tiny), 0)


def _row_weights(sample_weight: Any, n: int) -> NDArray[np.float64]:
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


def like(array: Array, other: Any) -> Any:
    """Return numpy's `array` as `other` is: of numpy or of torch, in its dtype, on its device."""
    if isinstance(other, np.ndarray):
        return array.astype(other.dtype, copy=False)
    return as_tensor(array, other.device).to(other.dtype)


def as_tensor(X: Array, device: str) -> Tensor:
    """Return `X` as a tensor that shares its memory where it can."""
    import torch

    with warnings.catch_warnings():
        # Nothing here writes to the rows, so a read-only array may be shared.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(X)).to(device)
