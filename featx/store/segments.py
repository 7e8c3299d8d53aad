"""Where files lie in the cache and what they are called; segments, and rows that lie in several of them.

A segment holds rows that are computed and kept. It lies at ``.segments/<key>/<name>.h5``; its name follows from its
items, so two workers that compute the same rows write the same name, and the listing of the folder is all the index
there is. Tables that are too large for one file leave their rows in segments for good.
"""

from __future__ import annotations

import hashlib
import logging
import re
import resource
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.errors import CacheError, CorruptFileError
from featx.files.disk import Disk, explanation
from featx.store.container import RowStream, Sealed, write_sealed
from featx.store.hdf5 import from_utf8, to_utf8
from featx.store.rows import gather, within

FOLDER = ".segments"
SUFFIX = ".h5"
#: What is set aside keeps its name with this behind it.
ASIDE = ".aside"
KIND = "segment"
#: Digits of a key in the name of a table.
KEY_DIGITS = 8
#: Longest name made here, in bytes; file systems take 255, and temporary files add to it.
_LONGEST = 150
#: Segments that one reader holds open at a time: blocks of shuffled rows come from about as many.
_OPEN_SEGMENTS = 64

logger = logging.getLogger("featx.store")


def clean_name(text: str) -> str:
    """Return `text` as the name of a file: lower case, everything outside ``a-z0-9._-`` becomes ``-``.

    A name that had to be cut ends with a hash of the whole.

    Examples
    --------
    >>> clean_name("My Photos/2"), clean_name("../x"), clean_name("")
    ('my-photos-2', 'x', 'unnamed')
    """
    name = re.sub(r"[^a-z0-9._-]", "-", text.lower()).lstrip(".-") or "unnamed"
    if len(name) > _LONGEST:
        name = f"{name[: _LONGEST - 9]}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
    return name


def segment_name(item_ids: npt.NDArray[np.uint8]) -> str:
    """Return the name of the segment that holds these items (uint8, shape (n, 32)), in whatever order.

    Examples
    --------
    >>> items = np.arange(64, dtype=np.uint8).reshape(2, 32)
    >>> segment_name(items) == segment_name(items[::-1])
    True
    """
    ordered = np.unique(np.ascontiguousarray(item_ids).reshape(-1, 32).view("V32"))
    return hashlib.sha256(ordered.tobytes()).hexdigest()[:40]


def segments_folder(root: Path, key: str) -> Path:
    """Return the folder of the segments of `key`."""
    return root / FOLDER / key


def segment_path(root: Path, key: str, name: str) -> Path:
    """Return the path of one segment."""
    return segments_folder(root, key) / (name + SUFFIX)


def list_segments(disk: Disk, root: Path, key: str) -> list[Path]:
    """Return the paths of the segments of `key`, by name."""
    return list_files(disk, segments_folder(root, key))


def list_files(disk: Disk, folder: Path, suffix: str = SUFFIX) -> list[Path]:
    """Return the finished files of a folder by name; none if there is no folder."""
    try:
        names = disk.list_folder(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise explanation(error, "list", folder) from error
    return [folder / name for name in names if name.endswith(suffix) and not name.startswith(".")]


def set_aside(disk: Disk, path: Path, reason: str) -> None:
    """Rename a file so that nobody reads it again, and say so in the log.

    In a folder that cannot be written it stays, and is passed over again next time.
    """
    logger.warning("Set aside, its rows are computed again: %s", reason)
    try:
        disk.replace(path, path.with_name(path.name + ASIDE))
    except OSError as error:
        logger.warning("%s could not be renamed: %s", path, error.strerror)


def write_segment(
    disk: Disk,
    root: Path,
    key: str,
    item_ids: npt.NDArray[np.uint8],
    X: npt.NDArray[Any],
    errors: Sequence[tuple[bytes, str]],
) -> Path:
    """Commit rows and the errors of items that gave none. Of two writers the first wins.

    Parameters
    ----------
    disk : Disk
    root : Path
        The cache folder.
    key : str
        Of the recipe.
    item_ids : ndarray of uint8, shape (n, 32)
    X : ndarray, shape (n, …)
    errors : sequence of (bytes, str)
        Item id and reason.
    """
    failed = np.frombuffer(b"".join(item for item, _ in errors), np.uint8).reshape(-1, 32)
    path = segment_path(root, key, segment_name(np.concatenate([item_ids, failed])))
    arrays = {
        "item_id": item_ids,
        "error_item_id": failed,
        "error_reason": to_utf8(reason for _, reason in errors),
    }
    rows = RowStream(X.dtype, X.shape, lambda start, stop: X[start:stop])

    def write(*, replace: bool) -> bool:
        return write_sealed(disk, path, kind=KIND, attributes={"key": key}, arrays=arrays, rows=rows, replace=replace)

    if not write(replace=False):
        try:
            Segment(disk, root, key, path).verify()
        except (CorruptFileError, FileNotFoundError):
            write(replace=True)
    return path


class Segment:
    """One segment, open for reading: header and item ids verified, rows at first touch.

    Parameters
    ----------
    disk : Disk
    root : Path
        The cache folder.
    key : str
        Of the recipe.
    path : Path
    known : bytes, optional
        `identity` of the file at `path` when it was last opened: its items are not read again if it is the same.

    Attributes
    ----------
    path : Path
    identity : bytes
        Changes whenever anything in the file does.
    rows : featx.store.rows.RowBlocks
    """

    def __init__(self, disk: Disk, root: Path, key: str, path: Path, known: bytes | None = None) -> None:
        self.path = path
        self._file = Sealed.open(disk, path)
        if self._file.kind != KIND or self._file.attributes.get("key") != key:
            raise CorruptFileError(f"{path} is damaged: it holds something else than segments of {key[:8]}.")
        self.identity = self._file.identity
        self.rows = self._file.row_blocks()
        if self.identity != known:
            self._check_items(segments_folder(root, key))

    def _check_items(self, folder: Path) -> None:
        self._file.require({"item_id": ("u", (len(self.rows), 32)), "error_item_id": ("u", (None, 32))})
        self._file.require({"error_reason": ("S", self._file.extents["error_item_id"].shape[:1])})
        self._file.array("error_reason")  # which verifies it
        items = np.concatenate([self.item_ids, self._file.array("error_item_id")])
        if folder / (segment_name(items) + SUFFIX) != self.path:
            raise CorruptFileError(f"{self.path} is damaged: its name belongs to other items.")

    @property
    def item_ids(self) -> npt.NDArray[np.uint8]:
        """Of the rows, shape (n, 32)."""
        return self._file.array("item_id")

    @cached_property
    def errors(self) -> list[tuple[bytes, str]]:
        """Item id and reason of the items that gave no row."""
        failed, reasons = self._file.array("error_item_id"), from_utf8(self._file.array("error_reason"))
        return [(item.tobytes(), str(reason)) for item, reason in zip(failed, reasons, strict=True)]

    def forget(self) -> None:
        """Let go of all but the rows; what is asked for is read again."""
        self._file.forget()

    def verify(self, on_bytes: Callable[[int], None] | None = None) -> None:
        """Check everything against its digest."""
        self._file.verify(on_bytes)

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


@dataclass(frozen=True)
class Places:
    """Where the rows of a segmented table lie.

    Attributes
    ----------
    segments : list of str
        Names.
    place : ndarray of int64, shape (n, 2)
        For each row the number of its segment in `segments`, and its row there.
    shape : tuple of int
        Of ``X``.
    dtype : numpy.dtype
    """

    segments: list[str]
    place: npt.NDArray[np.int64]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class SegmentedRows:
    """Rows of ``X`` that lie in segments.

    Parameters
    ----------
    open_segment : callable
        From the name of a segment, and its identity if it was opened before, to the `Segment`.
    places : Places
    """

    def __init__(self, open_segment: Callable[[str, bytes | None], Segment], places: Places) -> None:
        self.shape, self.dtype = places.shape, places.dtype
        self._names, self._place = places.segments, places.place
        self._open_segment = open_segment
        self._open: OrderedDict[int, Segment] = OrderedDict()
        self._known: dict[int, bytes] = {}
        self._lock = threading.Lock()
        most_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most_open = _OPEN_SEGMENTS if most_files < 0 else min(_OPEN_SEGMENTS, max(1, most_files // 4))

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the rows ``start … stop``."""
        return self.take(np.arange(start, stop))

    def look(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the rows ``start … stop``: a copy, since neighbours may lie in several files."""
        return self.read(start, stop)

    def take(
        self, rows: npt.NDArray[np.int64], out: npt.NDArray[Any] | None = None, *, mapped: bool = False
    ) -> npt.NDArray[Any]:
        """Return any rows in any order."""
        numbers, places = self._place[rows].T
        if out is None:
            self._segment(int(numbers[0])) if len(rows) else None  # is of our shape, before memory is taken for it
            out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        return gather(out, numbers, places, partial(self._take_of, mapped=mapped))

    def _take_of(
        self, number: int, rows: npt.NDArray[np.int64], out: npt.NDArray[Any] | None, *, mapped: bool
    ) -> npt.NDArray[Any]:
        source = self._segment(number).rows
        if not within(rows, len(source)):
            raise CorruptFileError(f"A segmented table is damaged: {self._names[number]} has no such rows.")
        return source.take(rows, out, mapped=mapped)

    def verify(self, on_bytes: Callable[[int], None] | None = None) -> None:
        """Check every segment."""
        for number in range(len(self._names)):
            self._segment(number).verify(on_bytes)

    def _segment(self, number: int) -> Segment:
        with self._lock:
            if number not in self._open:
                self._open[number] = self._fetch(number)
                while len(self._open) > self._most_open:
                    self._open.popitem(last=False)  # closed when nobody reads it any more
            self._open.move_to_end(number)
            return self._open[number]

    def _fetch(self, number: int) -> Segment:
        try:
            segment = self._open_segment(self._names[number], self._known.get(number))
        except FileNotFoundError as error:
            raise CacheError(
                f"{error.filename} is missing, which holds rows of this table. Compute them again: featx extract"
            ) from error
        if segment.rows.shape[1:] != self.shape[1:] or segment.rows.dtype != self.dtype:
            raise CorruptFileError(f"{segment.path} is damaged: its rows have another shape than the table's.")
        self._known[number] = segment.identity
        segment.forget()
        return segment
