"""Claims: hints that keep many workers from doing the same work. Nothing that is correct rests on them."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from featx.store.disk import Disk, explained, make_folders
from featx.store.names import clean_name
from featx.store.notes import create_exclusively, remove

FOLDER = ".claims"
#: After so long a claim is taken for that of a dead worker.
LEASE_SECONDS = 600.0


class Claims:
    """Expiring claims on names, in the folder ``.claims`` of a cache.

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

    def path(self, key: str, name: str) -> Path:
        """Return the file that stands for the claim on `name` under `key`."""
        return self._folder / clean_name(key) / clean_name(name)

    def claim(self, key: str, name: str) -> bool:
        """Return True if the work is ours, False if someone else has been at it for less than the lease."""
        path = self.path(key, name)
        with explained("write", path):
            make_folders(self._disk, path.parent)
        if create_exclusively(self._disk, path):
            return True
        if not self.expired(path):
            return False
        remove(self._disk, path)
        return create_exclusively(self._disk, path)

    def release(self, key: str, name: str) -> None:
        """Give a claim up; fine if there is none."""
        with contextlib.suppress(OSError):
            self._disk.unlink(self.path(key, name))

    def expired(self, path: Path) -> bool:
        """Say whether the claim at `path` is older than the lease; True if it is gone."""
        try:
            return time.time() - self._disk.stat(path).st_mtime > self.lease_seconds
        except FileNotFoundError:
            return True
