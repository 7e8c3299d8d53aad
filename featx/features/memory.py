"""Features that are in no file of their own: the columns of a table as plain arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.store.segmented import gather
from featx.store.tables import RowReader, Table


class ArrayRows:
    """An array behind the interface of `featx.store.tables.RowReader`."""

    def __init__(self, X: npt.NDArray[Any]) -> None:
        self.X, self.shape, self.dtype = X, X.shape, X.dtype

    def __len__(self) -> int:
        return len(self.X)

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return a copy of the rows ``start … stop``."""
        return self.X[start:stop].copy()

    def take(
        self, rows: npt.NDArray[np.int64], out: npt.NDArray[Any] | None = None, *, mapped: bool = False
    ) -> npt.NDArray[Any]:
        """Return a copy of any rows."""
        del mapped  # it is in memory as it is
        return np.take(self.X, rows, axis=0, out=out)

    def verify(self, progress: Callable[[int], None] | None = None) -> None:
        """Do nothing: memory has no checksums."""


class PickedRows:
    """Rows picked from several tables, which may be pickled as these may: as their paths.

    Parameters
    ----------
    picks : list of (Table or ArrayTable, ndarray of int64)
        A table and which of its rows, in the order in which they are to stand. All have one shape and dtype.
    """

    def __init__(self, picks: list[tuple[Table | ArrayTable, npt.NDArray[np.int64]]]) -> None:
        self._tables = [table for table, _ in picks]
        self._place = np.concatenate([rows for _, rows in picks])
        self._number = np.repeat(np.arange(len(picks)), [len(rows) for _, rows in picks])
        self.shape, self.dtype = (len(self._place), *self._tables[0].shape[1:]), self._tables[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the rows ``start … stop``."""
        return self.take(np.arange(start, stop))

    def take(
        self, rows: npt.NDArray[np.int64], out: npt.NDArray[Any] | None = None, *, mapped: bool = False
    ) -> npt.NDArray[Any]:
        """Return any rows in any order."""
        if out is None:
            out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        return gather(out, self._number[rows], self._place[rows], partial(self._take_of, mapped=mapped))

    def _take_of(
        self, number: int, rows: npt.NDArray[np.int64], out: npt.NDArray[Any] | None, *, mapped: bool
    ) -> npt.NDArray[Any]:
        return self._tables[number].rows.take(rows, out, mapped=mapped)

    def verify(self, progress: Callable[[int], None] | None = None) -> None:
        """Check everything that rows are picked from."""
        for table in self._tables:
            table.rows.verify(progress)


@dataclass(frozen=True, kw_only=True)
class ArrayTable:
    """What `featx.store.Table` offers, for arrays in memory."""

    rows: RowReader
    y: npt.NDArray[np.int64]
    ids: npt.NDArray[np.str_]
    classes: tuple[str, ...]
    splits: npt.NDArray[np.str_]
    item_ids: npt.NDArray[np.uint8]
    path: None = None
    key: str = ""
    recipe: str = ""
    request: str = ""
    errors: list[tuple[str, str]] = field(default_factory=list)
    error_item_ids: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, 32), np.uint8))
    provenance: dict[str, Any] = field(default_factory=dict)
    probe: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    views: list[str] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of ``X``."""
        return self.rows.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of ``X``."""
        return self.rows.dtype
