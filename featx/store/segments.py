"""Segments: rows that are computed and kept, but not yet part of a published table.

A segment lies at ``.segments/<key>/<name>.h5``. Its name follows from its items, so two workers
that compute the same rows write the same name, and the listing of the folder is all the index there is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.errors import CorruptFileError
from featx.files.disk import Disk, explanation
from featx.store.container import Rows, Sealed, write_sealed
from featx.store.names import segment_name
from featx.store.text import from_utf8, to_utf8

FOLDER = ".segments"
SUFFIX = ".h5"
#: What is set aside keeps its name with this behind it.
ASIDE = ".aside"
KIND = "segment"

logger = logging.getLogger("featx.store")


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
    rows = Rows(X.dtype, X.shape, lambda start, stop: X[start:stop])

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
    rows : featx.store.payload.Payload
    """

    def __init__(self, disk: Disk, root: Path, key: str, path: Path, known: bytes | None = None) -> None:
        self.path = path
        self._file = Sealed.open(disk, path)
        if self._file.kind != KIND or self._file.attributes.get("key") != key:
            raise CorruptFileError(f"{path} is damaged: it holds something else than segments of {key[:8]}.")
        self.identity = self._file.identity
        self.rows = self._file.payload()
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

    def verify(self, progress: Callable[[int], None] | None = None) -> None:
        """Check everything against its digest."""
        self._file.verify(progress)

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


def set_aside(disk: Disk, path: Path, reason: str) -> None:
    """Rename a file so that nobody reads it again, and say so in the log.

    In a folder that cannot be written it stays, and is passed over again next time.
    """
    logger.warning("Set aside, its rows are computed again: %s", reason)
    try:
        disk.replace(path, path.with_name(path.name + ASIDE))
    except OSError as error:
        logger.warning("%s could not be renamed: %s", path, error.strerror)
