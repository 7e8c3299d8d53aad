"""What heads accept: arrays or tables with labels and weights, read whole or block by block."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from featx.devices import resolve_device
from featx.errors import DataError
from featx.heads.targets import Array, ClassWeight, class_weights, known_targets, learn_targets, row_weights
from featx.machine import share_cores
from featx.settings import parse_bytes

if TYPE_CHECKING:
    from torch import Tensor

#: Rows are gone through in blocks of this size where no memory limit says otherwise.
BLOCK_BYTES = 16 << 20

#: Fits to tables of at most so many values are done in numpy: importing torch takes longer than it saves.
NUMPY = 1 << 25


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
    targets : ndarray
        As `featx.heads.targets.learn_targets` gives them: index into `classes` (n,), labels (n, t) or numbers (n, t);
        empty where they are unknown, as in prediction, and so are the rest.
    weights : ndarray of float64, shape (n,)
        Sample weight, times the weight of the class where rows have one.
    classes : ndarray, shape (k,)
        Sorted labels.
    label_weights : ndarray of float64, shape (2, t), or None
        What 0 and 1 of each of several labels count; None for 1 throughout.
    """

    source: Array | Table
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    limit: int | None = None
    device: str = "cpu"
    n_parts: int = 1
    targets: Array = field(default_factory=lambda: np.empty(0, np.int64))
    weights: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    classes: Array = field(default_factory=lambda: np.empty(0))
    label_weights: NDArray[np.float64] | None = None

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
            {"targets": self.targets[indices], "weights": self.weights[indices]} if len(self.targets) else {}
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
    """Check what was given to ``fit``, and set ``n_features_in_`` and what `head` knows of its targets.

    Parameters
    ----------
    head : estimator
        Whose ``fit`` asks.
    X : array-like of shape (n, d), or Table
        Arrays stay as they are. A table is read whole when half of `memory` holds it in its computing
        dtype (the other half is for the fit), else it is read block by block.
    y : array-like of shape (n,) or (n, t), or None
        See `featx.heads.targets.learn_targets`. None takes the labels of the table; its unlabelled rows (-1) are then
        left out.
    sample_weight : array-like of shape (n,), or None
        Not negative, not all zero.
    class_weight : dict, "balanced" or None
        As in scikit-learn; of several labels a row each is balanced by itself.
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
    targets, classes = learn_targets(head, y, len(rows))
    return _labelled(rows, targets, classes, sample_weight, class_weight)


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
    targets = known_targets(head, y, len(rows))
    return _labelled(rows, targets, getattr(head, "classes_", np.empty(0)), sample_weight, class_weight)


def _labelled(rows: Samples, targets: Array, classes: Array, sample_weight: Any, class_weight: ClassWeight) -> Samples:
    """Return rows with their targets and weights."""
    weights, label_weights = row_weights(sample_weight, len(rows)), None
    if class_weight is not None:
        counts = class_weights(class_weight, classes, targets, weights)
        if targets.ndim == 2:
            label_weights = counts
        else:
            weights *= counts[targets]
    return replace(rows, targets=targets, weights=weights, classes=classes, label_weights=label_weights)


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
    elif _is_plain(X) and not hasattr(head, "feature_names_in_") and (reset or X.shape[1] == head.n_features_in_):
        array, head.n_features_in_ = X, X.shape[1]
    else:
        array = validate_data(head, X, reset=reset, dtype=kinds)
    return Samples(array, array.shape, array.dtype)


def _is_plain(X: Any) -> bool:
    """Whether scikit-learn would find nothing to say of `X`: to ask it, it imports what knows all data frames."""
    rows = type(X) is np.ndarray and X.dtype in (np.float32, np.float64) and X.ndim == 2 and X.size > 0
    return rows and bool(np.isfinite(X.sum(dtype=np.float64)))


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
