"""The one way in which featx leaves a result: under its name when it is complete, and never before."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from featx.files.disk import TEMPORARY, Disk, make_folders, opened, sync_folder


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; when the block ends well, its content takes the name `path`.

    A file of that name is replaced in one step. When the block raises, or the process is killed, what was
    there before is still there.

    Parameters
    ----------
    path : Path
        The final name. Its folder is made if need be. Where it is no regular file (``/dev/stdout``, a pipe), it
        is written to directly: there is nothing to replace.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    disk = Disk()
    path = path.resolve()  # a link stays a link: what it leads to is replaced
    make_folders(disk, path.parent)
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}{TEMPORARY}")
    try:
        yield temporary
        with opened(disk, temporary, os.O_RDONLY) as fd:
            disk.sync(fd)
        disk.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(disk, path.parent)


def write_whole(path: Path, content: bytes | str) -> None:
    """Write `content` (a text as UTF-8) to `path` in one step; see `whole_file`."""
    data = content.encode("utf-8", errors="backslashreplace") if isinstance(content, str) else content
    with whole_file(path) as temporary:
        temporary.write_bytes(data)
