"""A published table: one file of labels, ids and provenance, with the rows of ``X`` in it or in segments."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.errors import CacheError, CorruptFileError, DataError, MissingDataError
from featx.files.disk import Disk
from featx.store.container import RowStream, Sealed, as_bytes, extent_from_json, write_sealed
from featx.store.hdf5 import from_utf8, to_utf8
from featx.store.rows import RowReader, digest, within
from featx.store.segments import Places, Segment, SegmentedRows, segment_path
from featx.targets import TASKS, Targets

KIND = "table"
#: Columns that a table has where there is something to say: names of the tables of views, and groups of rows.
VIEWS, GROUPS = "views/table", "groups"
#: And items of which rows are images, as what, and when they were taken.
ITEMS, SLOTS, TIMES = "items", "slots", "times"
#: And where it has something else than one class a row: what, and what that is called.
TARGETS, TARGET_NAMES = "targets", "target_names"
_OPTIONAL = (VIEWS, GROUPS, ITEMS, SLOTS, TIMES, TARGETS, TARGET_NAMES)
_KEY = re.compile("[A-Za-z0-9_-]{0,100}")
_SEGMENT_NAME = re.compile("[0-9a-f]{40}")
_TABLE_NAME = re.compile(r"[a-z0-9._-]+\.h5")


@dataclass(frozen=True, kw_only=True)
class TableContent:
    """What a table says, but for its rows.

    Attributes
    ----------
    key, recipe, request : str
        Key of the rows; JSON of what made them and of what was asked for.
    ids : sequence of str
    item_ids : ndarray of uint8, shape (n, 32)
        Rows are joined by these; several rows may have the same.
    y : ndarray of int64, shape (n,)
        -1 where unlabelled.
    classes : sequence of str
    splits : sequence of str
        Empty for none.
    errors : sequence of (str, str)
        Id and reason of what gave no row.
    error_item_ids : ndarray of uint8, shape (n_errors, 32), optional
        Zeros where an item could not even be hashed, so that it is tried again; all zeros by default.
    probe : mapping of str to ndarray
    provenance : mapping
        JSON.
    views : sequence of str
        Names of the tables beside this one that hold augmented views 1, 2, … of its items.
    groups : sequence of str
        The group of each row, empty for a row by itself; none where all are.
    targets : Targets, optional
        Several labels or numbers a row; `y` is then -1 and `classes` empty.
    items, slots : sequence of str
        Of what each row is one image of several, and as what; none where all are by themselves.
    times : ndarray of float64, shape (n,), optional
        When each row was taken, NaN for unknown.
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
    error_item_ids: npt.NDArray[np.uint8] | None = None
    probe: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    views: Sequence[str] = ()
    groups: Sequence[str] = ()
    targets: Targets | None = None
    items: Sequence[str] = ()
    slots: Sequence[str] = ()
    times: npt.NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.ids), len(self.item_ids), len(self.y), len(self.splits), len(self.groups or self.ids)}
        beside = (self.targets, self.times, self.items or None, self.slots or None)
        lengths |= {len(values) for values in beside if values is not None}
        if len(lengths) > 1:
            raise DataError(f"Rows have ids, item ids, labels, splits and groups; got {sorted(lengths)} of them.")
        if len(self.y) and not -1 <= np.min(self.y) <= np.max(self.y) < len(self.classes):
            raise DataError(f"Labels must be -1 or numbers of the {len(self.classes)} classes, got {np.max(self.y)}.")

    def attributes(self) -> dict[str, str]:
        """Return the attributes of the file."""
        return {
            "key": self.key,
            "recipe": self.recipe,
            "request": self.request,
            "provenance": json.dumps(dict(self.provenance), sort_keys=True),
        } | ({} if self.targets is None else {"task": self.targets.task})

    @cached_property
    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """What decides whether a published table still says the same, as arrays of the file."""
        failed, reasons = to_utf8(name for name, _ in self.errors), to_utf8(reason for _, reason in self.errors)
        errors = np.empty(len(self.errors), [("id", failed.dtype), ("reason", reasons.dtype)])
        errors["id"], errors["reason"] = failed, reasons
        failed_items = np.zeros((len(errors), 32)) if self.error_item_ids is None else self.error_item_ids
        beside = {GROUPS: self.groups, ITEMS: self.items, SLOTS: self.slots}
        told: dict[str, Sequence[str]] = {name: values if any(values) else () for name, values in beside.items()}
        told[VIEWS] = self.views
        targets = {} if self.times is None else {TIMES: np.asarray(self.times, "<f8")}
        if self.targets is not None:
            told[TARGET_NAMES] = self.targets.names
            targets[TARGETS] = np.asarray(self.targets.array, "<f4")
        return (
            {name: to_utf8(values) for name, values in told.items() if values}
            | targets
            | {
                "y": np.asarray(self.y, "<i8"),
                "ids": to_utf8(self.ids),
                "classes": to_utf8(self.classes),
                "split": to_utf8(self.splits),
                "item_id": np.asarray(self.item_ids, np.uint8),
                "errors": errors,
                "error_item_id": np.asarray(failed_items, np.uint8),
            }
        )

    @cached_property
    def digests(self) -> dict[str, bytes]:
        """Digests of `columns`."""
        return {name: digest(as_bytes(array)) for name, array in self.columns.items()}

    def probe_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the probe, in its group."""
        return {f"probe/{name}": np.asarray(values) for name, values in self.probe.items()}


def write_table(disk: Disk, path: Path, content: TableContent, rows: RowStream | Places) -> None:
    """Publish a table at `path`, verified before it takes the place of an older one."""
    attributes, arrays = content.attributes(), content.columns | content.probe_arrays()
    if isinstance(rows, Places):
        attributes["segmented"] = json.dumps({"shape": rows.shape, "dtype": rows.dtype.str})
        arrays |= {"segments": to_utf8(rows.segments), "place": rows.place}
    stream = None if isinstance(rows, Places) else rows
    write_sealed(disk, path, kind=KIND, attributes=attributes, arrays=arrays, rows=stream, replace=True, verify=True)


class Table:
    """A table file, open for reading. Columns are read, and verified, when first asked for.

    Parameters
    ----------
    path : Path
    disk : Disk, optional

    Attributes
    ----------
    path : Path
    key, recipe, request : str
    provenance : dict
    shape : tuple of int
        Of ``X``.
    dtype : numpy.dtype
    rows : RowReader
    identity : bytes
        Changes whenever anything in the file does.
    n_bytes : int
        Of the file.

    Raises
    ------
    MissingDataError
        If there is no such file.
    CorruptFileError
        If it is no table of featx, or a damaged one.
    """

    def __init__(self, path: Path, disk: Disk | None = None) -> None:
        self.path = Path(path)
        self._disk = disk or Disk()
        try:
            self._file = Sealed.open(self._disk, self.path)
        except FileNotFoundError as error:
            raise MissingDataError(f"There is no table at {path}. All tables: featx cache list") from error
        try:
            self._parse()
        except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, CorruptFileError):
                raise
            raise CorruptFileError(f"{path} is damaged: {error!r}.") from error

    def _parse(self) -> None:
        if self._file.kind != KIND:
            raise CorruptFileError(f"{self.path} is a {self._file.kind} of featx, not a table.")
        attributes = self._file.attributes
        self.key, self.recipe, self.request = (attributes[name] for name in ("key", "recipe", "request"))
        if not _KEY.fullmatch(self.key):  # it names a folder
            raise CorruptFileError(f"{self.path} is damaged: its key is not as featx writes it.")
        self.provenance: dict[str, Any] = json.loads(attributes["provenance"])
        self.identity = self._file.identity
        self.n_bytes = self._file.size
        self.segments: list[str] = []
        self.rows: RowReader = (
            self._segmented(attributes["segmented"]) if "segmented" in attributes else self._file.row_blocks()
        )
        self.shape, self.dtype = self.rows.shape, self.rows.dtype
        n = len(self.rows)
        self._file.require(
            {
                "y": ("i", (n,)),
                "ids": ("S", (n,)),
                "split": ("S", (n,)),
                "item_id": ("u", (n, 32)),
                "classes": ("S", (None,)),
                "errors": ("V", (None,)),
                "error_item_id": ("u", (self._file.extents["errors"].shape[0], 32)),
            }
        )
        lengths = {VIEWS: None, GROUPS: n, ITEMS: n, SLOTS: n, TARGET_NAMES: None}
        self._file.require({name: ("S", (k,)) for name, k in lengths.items() if name in self._file.extents})
        if TIMES in self._file.extents:
            self._file.require({TIMES: ("f", (n,))})
        self.task = attributes.get("task", "classify")
        if self.task not in TASKS or (self.task != "classify") != (TARGETS in self._file.extents):
            raise CorruptFileError(f"{self.path} is damaged: its task is not as featx writes it.")
        if self.task != "classify":
            self._file.require({TARGETS: ("f", (n, *self._file.extents[TARGET_NAMES].shape))})
        kinds = [(name, kind[0].kind) for name, kind in (self._file.extents["errors"].dtype.fields or {}).items()]
        if kinds != [("id", "S"), ("reason", "S")]:
            raise CorruptFileError(f"{self.path} is damaged: its errors are not as featx writes them.")
        if not isinstance(self.provenance, dict):
            raise CorruptFileError(f"{self.path} is damaged: its provenance is not as featx writes it.")

    def _segmented(self, text: str) -> SegmentedRows:
        whole = extent_from_json(json.loads(text) | {"offset": 0})
        self._file.require(
            {"segments": ("S", self._file.extents["segments"].shape[:1]), "place": ("i", (whole.shape[0], 2))}
        )
        self.segments = from_utf8(self._file.array("segments")).tolist()
        places = Places(self.segments, self._file.array("place"), whole.shape, whole.dtype)
        named = all(_SEGMENT_NAME.fullmatch(name) for name in self.segments)
        if (
            not named
            or places.place.shape != (places.shape[0], 2)
            or not within(places.place[:, 0], len(self.segments))
        ):
            raise CorruptFileError(f"{self.path} is damaged: rows of it lie nowhere.")
        root = self.path.absolute().parent.parent
        return SegmentedRows(
            lambda name, known: Segment(self._disk, root, self.key, segment_path(root, self.key, name), known), places
        )

    def __len__(self) -> int:
        return self.shape[0]

    def __reduce__(self) -> tuple[Callable[..., Table], tuple[Any, ...]]:
        return _reopen, (self.path.absolute(), self._disk, self.identity)

    @cached_property
    def ids(self) -> npt.NDArray[np.str_]:
        """Ids of the rows, shape (n,)."""
        return from_utf8(self._file.array("ids"))

    @cached_property
    def y(self) -> npt.NDArray[np.int64]:
        """Labels as numbers of `classes`, -1 where there is none, shape (n,)."""
        y = self._file.array("y")
        if not within(y + 1, len(self.classes) + 1):
            raise CorruptFileError(f"{self.path} is damaged: it has labels of no class.")
        return y

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(from_utf8(self._file.array("classes")).tolist())

    @cached_property
    def splits(self) -> npt.NDArray[np.str_]:
        """Split of each row, empty for none, shape (n,)."""
        return from_utf8(self._file.array("split"))

    @cached_property
    def groups(self) -> npt.NDArray[np.str_]:
        """Group of each row, empty for a row by itself, shape (n,)."""
        return self._texts(GROUPS)

    @cached_property
    def items(self) -> npt.NDArray[np.str_]:
        """Item of each row, empty for a row by itself, shape (n,)."""
        return self._texts(ITEMS)

    @cached_property
    def slots(self) -> npt.NDArray[np.str_]:
        """What each row shows of its item, empty for nothing in particular, shape (n,)."""
        return self._texts(SLOTS)

    @cached_property
    def times(self) -> npt.NDArray[np.float64] | None:
        """When each row was taken, NaN for unknown, shape (n,); None where nobody said."""
        return self._file.array(TIMES).astype(np.float64) if TIMES in self._file.extents else None

    def _texts(self, name: str) -> npt.NDArray[np.str_]:
        return from_utf8(self._file.array(name)) if name in self._file.extents else np.full(len(self), "")

    @cached_property
    def targets(self) -> Targets | None:
        """Several labels or numbers a row; None where rows have classes."""
        if self.task == "classify":
            return None
        names = tuple(from_utf8(self._file.array(TARGET_NAMES)).tolist())
        values = self._file.array(TARGETS)
        if np.isinf(values).any() or (
            self.task == "multilabel" and ((values != 0) & (values != 1) & ~np.isnan(values)).any()
        ):
            raise CorruptFileError(f"{self.path} is damaged: its targets are not as featx writes them.")
        try:
            return Targets(self.task, names, values)
        except DataError as error:
            raise CorruptFileError(f"{self.path} is damaged: {error}") from error

    @property
    def item_ids(self) -> npt.NDArray[np.uint8]:
        """Content ids of the rows, shape (n, 32)."""
        return self._file.array("item_id")

    @cached_property
    def errors(self) -> list[tuple[str, str]]:
        """Id and reason of each item that gave no row."""
        errors = self._file.array("errors")
        return list(zip(from_utf8(errors["id"]).tolist(), from_utf8(errors["reason"]).tolist(), strict=True))

    @property
    def error_item_ids(self) -> npt.NDArray[np.uint8]:
        """Content ids of `errors`, zeros where there is none, shape (n_errors, 32)."""
        return self._file.array("error_item_id")

    @cached_property
    def probe(self) -> dict[str, npt.NDArray[Any]]:
        """The probe's arrays by name."""
        names = [name for name in self._file.extents if name.startswith("probe/")]
        return {name.removeprefix("probe/"): self._file.array(name) for name in names}

    @cached_property
    def views(self) -> list[str]:
        """Names of the tables beside this one that hold views 1, 2, … of its items."""
        names: list[str] = from_utf8(self._file.array(VIEWS)).tolist() if VIEWS in self._file.extents else []
        if not all(_TABLE_NAME.fullmatch(name) for name in names):
            raise CorruptFileError(f"{self.path} is damaged: its views are not beside it.")
        return names

    def says(self, content: TableContent) -> bool:
        """Whether the table already has these rows, labels, targets, groups, errors and views."""
        return (
            all((name in self._file.extents) == (name in content.columns) for name in _OPTIONAL)
            and self.key == content.key
            and self.task == content.attributes().get("task", "classify")
            and all(
                self._file.digest_of(name) == content.digests[name] and self._file.extents[name].dtype == array.dtype
                for name, array in content.columns.items()
            )
        )

    def verify(self, on_bytes: Callable[[int], None] | None = None) -> None:
        """Check every byte against its digest, those of segments too.

        Raises
        ------
        CorruptFileError
        """
        self._file.verify(on_bytes)
        if isinstance(self.rows, SegmentedRows):
            self.rows.verify(on_bytes)

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


def _reopen(path: Path, disk: Disk, identity: bytes) -> Table:
    table = Table(path, disk)
    if table.identity != identity:
        raise CacheError(f"{path} was written anew since it was opened. Open it again: Features.open({str(path)!r})")
    return table


def use_table(path: Path, disk: Disk | None = None) -> Table:
    """Open the table at `path`, and note that it was used."""
    table = Table(path, disk)
    with contextlib.suppress(OSError):  # in a folder of someone else
        (disk or Disk()).mark_used(path)
    return table
