"""What an item hashed to when its file last looked like this: a hint that saves reading it again.

Columns of stamps (16 bytes) and item ids (32 bytes) in sealed files. What is remembered later
comes first, so a file that was hashed again corrects what was known. A damaged file is ignored.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featx.errors import CacheError, CorruptFileError
from featx.files.disk import Disk, remove
from featx.store.container import Sealed, write_sealed
from featx.store.lookup import DigestIndex
from featx.store.segments import list_files

FOLDER = ".hashes"
KIND = "hashes"
STAMP_BYTES = 16
ID_BYTES = 32
#: More files than this become one.
_MOST_FILES = 8

Bytes = npt.NDArray[np.uint8]


class HashMemo:
    """The remembered hashes of a cache folder."""

    def __init__(self, disk: Disk, root: Path) -> None:
        self._disk, self._folder = disk, root / FOLDER
        self._seen: list[Path] | None = None
        self._ids: Bytes = np.empty((0, ID_BYTES), np.uint8)
        self._index = DigestIndex(np.empty((0, STAMP_BYTES), np.uint8))

    def known(self, stamps: Bytes) -> tuple[Bytes, npt.NDArray[np.bool_]]:
        """Return item ids (uint8, shape (n, 32), zero where unknown) and which are known (bool, shape (n,))."""
        files = self._files()
        if files != self._seen:
            columns = self._read(files)
            self._index, self._ids, self._seen = DigestIndex(columns[0]), columns[1], files
        positions = self._index.positions(stamps)
        known = positions >= 0
        ids = np.zeros((len(stamps), ID_BYTES), np.uint8)
        ids[known] = self._ids[positions[known]]
        return ids, known

    def remember(self, stamps: Bytes, item_ids: Bytes) -> None:
        """Keep the item id of each stamp, in place of what was known about it."""
        self._write(stamps, item_ids)
        files = self._files()
        if len(files) > _MOST_FILES:
            columns = self._read(files)
            first = DigestIndex(columns[0]).positions(columns[0]) == np.arange(len(columns[0]))
            self._write(columns[0][first], columns[1][first])
            for path in files:
                remove(self._disk, path)

    def _files(self) -> list[Path]:
        return list_files(self._disk, self._folder)[::-1]

    def _write(self, stamps: Bytes, item_ids: Bytes) -> None:
        path = self._folder / f"{time.time_ns():020d}.h5"
        write_sealed(self._disk, path, kind=KIND, attributes={}, arrays={"stamp": stamps, "item_id": item_ids})

    def _read(self, files: list[Path]) -> tuple[Bytes, Bytes]:
        stamps, ids = [np.empty((0, STAMP_BYTES), np.uint8)], [np.empty((0, ID_BYTES), np.uint8)]
        for path in files:
            try:
                columns = self._read_one(path)
            except (CacheError, FileNotFoundError):
                continue
            stamps.append(columns[0])
            ids.append(columns[1])
        return np.concatenate(stamps), np.concatenate(ids)

    def _read_one(self, path: Path) -> tuple[Bytes, Bytes]:
        file = Sealed.open(self._disk, path)
        stamps, ids = file.array("stamp"), file.array("item_id")
        file.close()
        if file.kind != KIND or stamps.shape[1:] != (STAMP_BYTES,) or ids.shape != (len(stamps), ID_BYTES):
            raise CorruptFileError(f"{path} is damaged: it holds something else than hashes.")
        return stamps, ids
