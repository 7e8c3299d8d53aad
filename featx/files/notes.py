"""Small notes in JSON with a checksum. A damaged or missing note is no note."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from featx.files.disk import Disk, commit, explained, opened, read_bytes, write_at


def read_note(disk: Disk, path: Path) -> dict[str, Any] | None:
    """Return the note at `path`, None if there is none that can be trusted."""
    try:
        with opened(disk, path) as fd:
            data = bytes(read_bytes(disk, fd, 0, disk.stat(fd).st_size))
        checksum, _, body = data.partition(b"\n")
        note = json.loads(body) if checksum == _checksum(body) else None
    except (OSError, EOFError, ValueError, RecursionError):
        return None
    return note if isinstance(note, dict) else None


def write_note(disk: Disk, path: Path, note: dict[str, Any], *, replace: bool = True, durable: bool = True) -> bool:
    """Commit a note; False if `replace` is off and there is a file of that name."""
    body = json.dumps(note, sort_keys=True).encode()
    content = _checksum(body) + b"\n" + body
    with explained("write", path):
        return commit(
            disk, path, lambda fd: write_at(disk, fd, memoryview(content), 0), replace=replace, durable=durable
        )


def adopt_note(disk: Disk, path: Path, default: dict[str, Any]) -> dict[str, Any]:
    """Return the note at `path`; where there is none, `default` becomes it. All callers get the same."""
    note = read_note(disk, path)
    if note is None and not write_note(disk, path, default, replace=False):
        note = read_note(disk, path)  # someone was first
        if note is None:
            write_note(disk, path, default)
    return default if note is None else note


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


def remove(disk: Disk, path: Path) -> bool:
    """Remove a file; False if there was none."""
    try:
        with explained("remove", path):
            disk.unlink(path)
    except FileNotFoundError:
        return False
    return True


def create_exclusively(disk: Disk, path: Path) -> bool:
    """Create an empty file; False if there is one of that name."""
    try:
        with explained("write", path), opened(disk, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL):
            return True
    except FileExistsError:
        return False
