"""Features that were never in a file: the columns of a table as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt


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


@dataclass(frozen=True, kw_only=True)
class ArrayTable:
    """What `featx.store.Table` offers, for arrays in memory."""

    rows: ArrayRows
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

    @property
    def shape(self) -> tuple[int, ...]:
        """Of ``X``."""
        return self.rows.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of ``X``."""
        return self.rows.dtype
