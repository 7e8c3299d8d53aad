"""Records: small metadata in JSON with a checksum. A damaged or missing record is no record."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from featx.files.atomic import commit
from featx.files.disk import Disk, explained, opened, read_bytes, write_at


def read_record(disk: Disk, path: Path) -> dict[str, Any] | None:
    """Return the record at `path`, None if there is none that can be trusted."""
    try:
        with opened(disk, path) as fd:
            data = bytes(read_bytes(disk, fd, 0, disk.stat(fd).st_size))
        checksum, _, body = data.partition(b"\n")
        record = json.loads(body) if checksum == _checksum(body) else None
    except (OSError, EOFError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def write_record(disk: Disk, path: Path, record: dict[str, Any], *, replace: bool = True, durable: bool = True) -> bool:
    """Commit a record; False if `replace` is off and there is a file of that name.

    Parameters
    ----------
    disk : Disk
    path : Path
        Its folder is made if need be.
    record : dict
        JSON.
    replace, durable : bool
        As `featx.files.atomic.commit` takes them.
    """
    body = json.dumps(record, sort_keys=True).encode()
    content = memoryview(_checksum(body) + b"\n" + body)
    with explained("write", path):
        return commit(disk, path, lambda fd: write_at(disk, fd, content, 0), replace=replace, durable=durable)


def adopt_record(disk: Disk, path: Path, default: dict[str, Any]) -> dict[str, Any]:
    """Return the record at `path`; where there is none, `default` becomes it. All callers get the same."""
    record = read_record(disk, path)
    if record is None and not write_record(disk, path, default, replace=False):
        record = read_record(disk, path)  # someone was first
        if record is None:
            write_record(disk, path, default)
    return default if record is None else record


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()
