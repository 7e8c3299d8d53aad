"""Claims: hints that keep many workers from doing the same work. Nothing that is correct rests on them."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from featx.files.disk import Disk, remove
from featx.files.records import read_record, write_record
from featx.store.names import clean_name

FOLDER = ".claims"
#: After so long a claim is taken for that of a dead worker.
LEASE_SECONDS = 600.0


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
        self._disk, self._folder, self.lease_seconds = disk, root / FOLDER, lease_seconds
        self._left: set[Path] = set()  # given up, but the disk would not let go of the file

    def path(self, key: str, name: str) -> Path:
        """Return the file that stands for the claim on `name` under `key`."""
        return self._folder / clean_name(key) / clean_name(name)

    def claim(self, key: str, name: str) -> bool:
        """Return True if the work is ours, False if someone else is at it."""
        path, owner = (
            self.path(key, name),
            {"host": socket.gethostname(), "pid": os.getpid(), "start": _start(os.getpid())},
        )
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
