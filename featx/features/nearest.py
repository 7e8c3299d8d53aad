"""`Cosines`: the cosine of a vector with every row of a table, exact, from the rows where they lie."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featx.errors import DataError
from featx.settings import option

#: Rows that are held against a vector at a time, in bytes: what a processor's last cache holds of them.
_BLOCK_BYTES = 16 << 20


@dataclass(frozen=True)
class Searching:
    """What is searched for in a table."""

    _: KW_ONLY
    unlike: Any | Sequence[str] = option(
        (), "What they are to be unlike: an id or a file.", metavar="IMAGE", flags=("--unlike",)
    )
    k: int = option(20, "Rows found.", metavar="K", flags=("-k",), least=1, most=1_000_000)


class _Rows(Protocol):
    """A table: `featx.Features`."""

    shape: tuple[int, ...]

    def __len__(self) -> int: ...

    def blocks(self, n_bytes: int = ..., *, in_place: bool = ...) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Yield all rows in order."""


class Cosines:
    """Cosine similarity of vectors to each row of a table.

    Nothing of the rows is kept but their lengths, which the first vector has measured: rows are read from the mapped
    file each time, and a search takes as long as memory needs to hand them over.

    Parameters
    ----------
    table : Features
        Rows (n, …), taken as vectors whatever their shape.
    """

    def __init__(self, table: _Rows) -> None:
        self._table = table
        self._lengths: NDArray[np.float32] | None = None

    def to(self, vector: NDArray[Any]) -> NDArray[np.float32]:
        """Return the cosine of `vector`, any shape of d values, and each row, shape (n,); 0 for a row of zeros.

        Raises
        ------
        DataError
            If it has other than d values, or is no vector of finite numbers and not all zeros.
        """
        unit = _unit(vector, math.prod(self._table.shape[1:]))
        products, lengths = np.empty(len(self._table), np.float32), self._lengths
        measured = np.empty(len(self._table), np.float32) if lengths is None else lengths
        for where, block in self._table.blocks(_BLOCK_BYTES, in_place=True):
            rows = block.reshape(len(block), -1)
            rows = rows if rows.dtype == np.float32 else rows.astype(np.float32)
            products[where] = rows @ unit
            if lengths is None:
                measured[where] = np.sqrt(np.einsum("nd,nd->n", rows, rows))
        self._lengths = measured
        return np.divide(products, measured, out=np.zeros_like(products), where=measured > 0)


def largest(values: NDArray[Any], k: int) -> NDArray[np.intp]:
    """Return the positions of the `k` largest values, the largest first, of equals the first.

    Examples
    --------
    >>> largest(np.array([0.1, 0.9, 0.3, 0.9]), 3).tolist()
    [1, 3, 2]
    """
    if k < len(values):
        among = np.flatnonzero(values >= np.partition(values, len(values) - k)[len(values) - k])
    else:
        among = np.arange(len(values))
    return among[np.argsort(-values[among], kind="stable")][:k]


def direction(like: Sequence[NDArray[Any]], unlike: Sequence[NDArray[Any]] = ()) -> NDArray[np.float32]:
    """Return where vectors like some and unlike others lie: the mean of those less the mean of these, as unit vectors.

    That is the query of J. J. Rocchio, "Relevance feedback in information retrieval", 1971, with equal weights.

    Examples
    --------
    >>> direction([np.array([2.0, 0.0]), np.array([0.0, 1.0])]).tolist()
    [0.5, 0.5]
    """
    towards, away = (
        np.mean([_unit(vector, vector.size) for vector in side], axis=0) if len(side) else np.float32(0)
        for side in (like, unlike)
    )
    return np.asarray(towards - away, dtype=np.float32)


def _unit(vector: NDArray[Any], d: int) -> NDArray[np.float32]:
    values = np.asarray(vector, dtype=np.float32).reshape(-1)
    length = float(np.linalg.norm(values))
    if values.size != d:
        raise DataError(f"The table's rows have {d:,} values, got a vector of {values.size:,}.")
    if not 0 < length < math.inf:
        raise DataError("What is searched for has no direction: all its values are 0, or some are no finite numbers.")
    return values / np.float32(length)
