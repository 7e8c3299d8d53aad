"""The one way in which featx leaves a file: under its name when it is complete, and never before.

The content goes to a temporary file beside its name and is synced; only then does it get the name. Whoever is
killed on the way leaves a temporary file, which nobody reads and ``featx cache gc`` removes.

A record is a small file of metadata, JSON with a checksum. A damaged or missing record is no record.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from featx.files.disk import TEMPORARY, Disk, explained, make_folders, opened, read_bytes, sync_folder, write_at

#: What `os.link` says on file systems that know no hard links.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}
#: Bytes of a name that its temporary name keeps, for people who look.
_KEPT_BYTES = 100


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; when the block ends well, its content takes the name `path`.

    A file of that name is replaced in one step. When the block raises, or the process is killed, what was
    there before is still there.

    Parameters
    ----------
    path : Path
        The final name. Its folder is made if need be. Where it is no regular file (a pipe) or a device
        (``/dev/stdout``, even when that leads to a file), it is written to directly.
    """
    if (path.exists() and not path.is_file()) or path.is_relative_to("/dev"):
        yield path
        return
    disk = Disk()
    path = path.resolve()  # a link stays a link: what it leads to is replaced
    with _temporary(disk, path) as temporary:
        yield temporary
        with opened(disk, temporary, os.O_RDONLY) as fd:
            disk.sync(fd)
        disk.replace(temporary, path)
    sync_folder(disk, path.parent)


def write_whole(path: Path, content: bytes | memoryview | str) -> None:
    """Write `content` (a text as UTF-8) to `path` in one step; see `whole_file`."""
    data = content.encode("utf-8", errors="backslashreplace") if isinstance(content, str) else content
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; when the block ends well, it takes the name `path`.

    A folder of that name is removed first. It is not synced: this is for what can be made again.
    """
    with _temporary(Disk(), path) as temporary:
        temporary.mkdir()
        try:
            yield temporary
            shutil.rmtree(path, ignore_errors=True)
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def commit(
    disk: Disk,
    path: Path,
    fill: Callable[[int], None],
    *,
    check: Callable[[Path], None] | None = None,
    replace: bool = False,
    durable: bool = True,
) -> bool:
    """Bring a file of the cache into being under its name, whole or not at all, and durably.

    Parameters
    ----------
    disk : Disk
    path : Path
        The final name. Its folder is made if need be.
    fill : callable
        Gets the descriptor of the empty temporary file, and writes it.
    check : callable, optional
        Gets the path of the synced temporary file, and raises if it is not as it should be.
    replace : bool
        Take the place of a file of that name; by default the first writer wins.
    durable : bool
        Off for hints, which may be lost with the power.

    Returns
    -------
    bool
        False if a file of that name was there first. It is left alone.
    """
    with _temporary(disk, path) as temporary:
        with opened(disk, temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as fd:
            fill(fd)
            if durable:
                disk.sync(fd)
        if check:
            check(temporary)
        won = _give_name(disk, temporary, path, replace=replace)
    if durable:
        sync_folder(disk, path.parent)
    return won


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


@contextlib.contextmanager
def _temporary(disk: Disk, path: Path) -> Iterator[Path]:
    """Yield a name beside `path`, whose folder is made; what has that name is removed if the block raises."""
    make_folders(disk, path.parent)
    kept = os.fsencode(path.name)[:_KEPT_BYTES].decode(errors="ignore")
    temporary = path.with_name(f".{kept}.{secrets.token_hex(6)}{TEMPORARY}")
    try:
        yield temporary
    except BaseException:
        with contextlib.suppress(OSError):
            disk.unlink(temporary)
        raise


def _give_name(disk: Disk, temporary: Path, path: Path, *, replace: bool) -> bool:
    if replace:
        disk.replace(temporary, path)
        return True
    won = True
    try:
        disk.link(temporary, path)
    except FileExistsError:
        won = False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        disk.replace(temporary, path)  # two writers of one name write the same rows
        return True
    disk.unlink(temporary)
    return won


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()
