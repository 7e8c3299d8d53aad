"""Hints: who is at which work, and what files hashed to. Nothing that is correct rests on them."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featx.errors import CacheError
from featx.files.atomic import read_record, write_record
from featx.files.disk import Disk, remove
from featx.store.catalog import Bytes, DigestIndex
from featx.store.container import Sealed, write_sealed
from featx.store.segments import clean_name, list_files

CLAIMS = ".claims"
HASHES = ".hashes"
#: After so long a claim is taken for that of a dead worker.
LEASE_SECONDS = 600.0
KIND = "hashes"
STAMP_BYTES = 16
ID_BYTES = 32
#: More files of hashes than this become one.
_MOST_FILES = 8


class Claims:
    """Expiring claims on names, in the folder ``.claims`` of a cache.

    A claim is over when it is released, when the process behind it is gone (which only those on the
    same host can tell), or when the lease has run out.

    Parameters
    ----------
    disk : Disk
    root : Path
        The cache folder.
    lease_seconds : float
        After so long anyone may take a claim over.
    """

    def __init__(self, disk: Disk, root: Path, *, lease_seconds: float = LEASE_SECONDS) -> None:
        self._disk, self._folder, self.lease_seconds = disk, root / CLAIMS, lease_seconds
        self._left: set[Path] = set()  # given up, but the disk would not let go of the file

    def path(self, key: str, name: str) -> Path:
        """Return the file that stands for the claim on `name` under `key`."""
        return self._folder / clean_name(key) / clean_name(name)

    def claim(self, key: str, name: str) -> bool:
        """Return True if the work is ours, False if someone else is at it."""
        path = self.path(key, name)
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "start": _start(os.getpid())}
        if write_record(self._disk, path, owner, replace=False, durable=False):
            return True
        if path not in self._left and not self.is_over(path):
            return False
        remove(self._disk, path)
        self._left.discard(path)
        return write_record(self._disk, path, owner, replace=False, durable=False)

    def release(self, key: str, name: str) -> None:
        """Give a claim up; fine if there is none."""
        path = self.path(key, name)
        try:
            self._disk.unlink(path)
        except FileNotFoundError:
            return
        except OSError:
            self._left.add(path)

    def is_over(self, path: Path) -> bool:
        """Say whether nobody is at the work behind the claim at `path` any more."""
        try:
            age = time.time() - self._disk.stat(path).st_mtime
        except FileNotFoundError:
            return True
        owner = read_record(self._disk, path) or {}
        gone = owner.get("host") == socket.gethostname() and _start(owner.get("pid")) != owner.get("start")
        return gone or age > self.lease_seconds


def _start(pid: int | None) -> str | None:
    """Return when a process of this host started, in ticks since boot; None if it is gone, or nobody knows."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


class HashMemo:
    """What an item hashed to when its file last looked like this: a hint that saves reading it again.

    Columns of stamps (16 bytes) and item ids (32 bytes) in sealed files. What is remembered later
    comes first, so a file that was hashed again corrects what was known. A damaged file is ignored.
    """

    def __init__(self, disk: Disk, root: Path) -> None:
        self._disk, self._folder = disk, root / HASHES
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
            with contextlib.suppress(CacheError, FileNotFoundError):
                file = Sealed.open(self._disk, path)
                n = len(file.array("stamp"))
                file.require({"stamp": ("u", (n, STAMP_BYTES)), "item_id": ("u", (n, ID_BYTES))})
                columns = file.array("stamp"), file.array("item_id")
                stamps.append(columns[0])
                ids.append(columns[1])
        return np.concatenate(stamps), np.concatenate(ids)
