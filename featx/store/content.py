"""What a published table says, but for its rows: labels, ids, classes, splits, errors, provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.errors import DataError
from featx.store.container import as_bytes
from featx.store.payload import digest
from featx.store.text import to_utf8

#: The column that names the tables of views, where there are any.
VIEWS = "views/table"


@dataclass(frozen=True, kw_only=True)
class TableContent:
    """What a table says, but for its rows.

    Attributes
    ----------
    key, recipe, request : str
        Key of the rows; JSON of what made them and of what was asked for.
    ids : sequence of str
    item_ids : ndarray of uint8, shape (n, 32)
    y : ndarray of int64, shape (n,)
        -1 where unlabelled.
    classes : sequence of str
    splits : sequence of str
        Empty for none.
    errors : sequence of (str, str)
        Id and reason of what gave no row.
    error_item_ids : ndarray of uint8, shape (n_errors, 32)
        Zeros where an item could not even be hashed.
    probe : mapping of str to ndarray
    provenance : mapping
        JSON.
    views : sequence of str
        Names of the tables beside this one that hold augmented views 1, 2, … of its items.
    """

    key: str
    recipe: str
    request: str
    ids: Sequence[str]
    item_ids: npt.NDArray[np.uint8]
    y: npt.NDArray[np.int64]
    classes: Sequence[str]
    splits: Sequence[str]
    errors: Sequence[tuple[str, str]] = ()
    error_item_ids: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, 32), np.uint8))
    probe: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    views: Sequence[str] = ()

    def __post_init__(self) -> None:
        lengths = {len(self.ids), len(self.item_ids), len(self.y), len(self.splits)}
        if len(lengths) > 1:
            raise DataError(f"Rows have ids, item ids, labels and splits; got {sorted(lengths)} of them.")
        if len(self.y) and not -1 <= np.min(self.y) <= np.max(self.y) < len(self.classes):
            raise DataError(f"Labels must be -1 or numbers of the {len(self.classes)} classes, got {np.max(self.y)}.")

    def attributes(self) -> dict[str, str]:
        """Return the attributes of the file."""
        return {
            "key": self.key,
            "recipe": self.recipe,
            "request": self.request,
            "provenance": json.dumps(dict(self.provenance), sort_keys=True),
        }

    @cached_property
    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """What decides whether a published table still says the same, as arrays of the file."""
        failed, reasons = to_utf8(name for name, _ in self.errors), to_utf8(reason for _, reason in self.errors)
        errors = np.empty(len(self.errors), [("id", failed.dtype), ("reason", reasons.dtype)])
        errors["id"], errors["reason"] = failed, reasons
        views = {VIEWS: to_utf8(self.views)} if self.views else {}
        return views | {
            "y": np.asarray(self.y, "<i8"),
            "ids": to_utf8(self.ids),
            "classes": to_utf8(self.classes),
            "split": to_utf8(self.splits),
            "item_id": np.asarray(self.item_ids, np.uint8),
            "errors": errors,
            "error_item_id": np.asarray(self.error_item_ids, np.uint8),
        }

    @cached_property
    def digests(self) -> dict[str, bytes]:
        """Digests of `columns`."""
        return {name: digest(as_bytes(array)) for name, array in self.columns.items()}

    def probe_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the probe, in its group."""
        return {f"probe/{name}": np.asarray(values) for name, values in self.probe.items()}
