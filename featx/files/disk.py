"""The one door to the file system: every read and write of the store goes through a `Disk`.

`Disk` is the operating system. Tests pass one that fails the n-th call, forgets what was not
synced, or dies at a given step; nothing else in the store opens a file.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from featx.errors import CacheError, NoSpaceError

#: End of the name of a file that is not finished.
TEMPORARY = ".tmp"

#: What `os.link` says on file systems that know no hard links.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}

_NO_ATIME = getattr(os, "O_NOATIME", 0)


class Disk:
    """The calls of the operating system that the store uses, one method each."""

    def open(self, path: Path, flags: int) -> int:
        """Open without counting as a use: only `mark_used`, and other people's programs, change the time of access."""
        flags |= os.O_CLOEXEC
        try:
            return os.open(path, flags | _NO_ATIME, 0o666)
        except PermissionError:  # not our file
            return os.open(path, flags, 0o666)

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    def read(self, fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        """Read into `buffers` from `offset` on; return how many bytes came."""
        return os.preadv(fd, buffers, offset)

    def map(self, fd: int, n_bytes: int) -> mmap.mmap:
        """Map a file into memory, read-only."""
        return mmap.mmap(fd, n_bytes, access=mmap.ACCESS_READ)

    def write(self, fd: int, data: memoryview, offset: int) -> int:
        """Write `data` at `offset`; return how many bytes were taken."""
        return os.pwrite(fd, data, offset)

    def sync(self, fd: int) -> None:
        """Return when the file, or folder, would survive a power cut."""
        os.fsync(fd)

    def stat(self, target: Path | int) -> os.stat_result:
        """Return size, times and inode of a path or a descriptor."""
        return os.stat(target)  # noqa: PTH116 - of a descriptor too

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name; `FileExistsError` if that is taken."""
        os.link(source, target)

    def replace(self, source: Path, target: Path) -> None:
        """Rename a file, in the place of any of that name."""
        source.replace(target)

    def unlink(self, path: Path) -> None:
        """Take a name away."""
        path.unlink()

    def make_folder(self, path: Path) -> None:
        """Make a folder whose parent exists."""
        path.mkdir()

    def list_folder(self, path: Path) -> list[str]:
        """Return the names in a folder, sorted."""
        return sorted(entry.name for entry in path.iterdir())

    def mark_used(self, path: Path) -> None:
        """Set the time of last access by hand: mounts with ``noatime`` would not."""
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def read_into(disk: Disk, fd: int, buffers: Sequence[memoryview], offset: int) -> None:
    """Fill byte `buffers` with the bytes at `offset`, whatever the system delivers at a time.

    Raises
    ------
    EOFError
        If the file ends before.
    """
    pending = [buffer for buffer in buffers if len(buffer)]
    while pending:
        try:
            n_read = disk.read(fd, pending, offset)
        except InterruptedError:
            continue
        if n_read == 0:
            raise EOFError(f"the file ends at byte {offset:,}")
        offset += n_read
        while pending and n_read >= len(pending[0]):
            n_read -= len(pending.pop(0))
        if n_read:
            pending[0] = pending[0][n_read:]


def read_bytes(disk: Disk, fd: int, offset: int, n_bytes: int) -> bytearray:
    """Return exactly `n_bytes` at `offset`."""
    data = bytearray(n_bytes)
    read_into(disk, fd, [memoryview(data)], offset)
    return data


def write_at(disk: Disk, fd: int, data: memoryview, offset: int) -> None:
    """Write all of the bytes `data` at `offset`, whatever the system takes at a time."""
    while len(data):
        try:
            n_written = disk.write(fd, data, offset)
        except InterruptedError:
            continue
        if n_written == 0:
            raise OSError(errno.EIO, "the file system takes no more bytes and gives no reason")
        data = data[n_written:]
        offset += n_written


@contextlib.contextmanager
def opened(disk: Disk, path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """Hold a file descriptor for the length of a block."""
    fd = disk.open(path, flags)
    try:
        yield fd
    finally:
        disk.close(fd)


def sync_folder(disk: Disk, folder: Path) -> None:
    """Make the names in `folder` survive a power cut."""
    with opened(disk, folder, os.O_RDONLY | os.O_DIRECTORY) as fd:
        try:
            disk.sync(fd)
        except OSError as error:
            if error.errno not in (
                errno.EINVAL,
                errno.ENOTSUP,
                errno.EBADF,
            ):  # some network file systems sync by themselves
                raise


def make_folders(disk: Disk, folder: Path) -> None:
    """Create `folder` and its parents, durably."""
    try:
        disk.make_folder(folder)
    except FileExistsError:
        return
    except FileNotFoundError:
        make_folders(disk, folder.parent)
        make_folders(disk, folder)
        return
    sync_folder(disk, folder.parent)


def commit(
    disk: Disk,
    path: Path,
    fill: Callable[[int], None],
    *,
    check: Callable[[Path], None] | None = None,
    replace: bool = False,
    durable: bool = True,
) -> bool:
    """Bring a file into being under its name, whole or not at all, and durably.

    The content goes to a temporary file beside `path` and is synced; only then does it get its name.
    Whoever is killed on the way leaves a temporary file, which nobody reads.

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
    make_folders(disk, path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}{TEMPORARY}")
    try:
        with opened(disk, temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as fd:
            fill(fd)
            if durable:
                disk.sync(fd)
        if check:
            check(temporary)
        won = _give_name(disk, temporary, path, replace=replace)
    except BaseException:
        with contextlib.suppress(OSError):
            disk.unlink(temporary)
        raise
    if durable:
        sync_folder(disk, path.parent)
    return won


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


@contextlib.contextmanager
def explained(action: str, path: Path) -> Iterator[None]:
    """Turn errors of the operating system into one line of ours that says what to do.

    A missing file stays a `FileNotFoundError`, one that is in the way a `FileExistsError`: whoever
    looks for one knows what that means.
    """
    try:
        yield
    except (CacheError, FileNotFoundError, FileExistsError):
        raise
    except OSError as error:
        raise explanation(error, action, path) from error


def explanation(error: OSError, action: str, path: Path) -> CacheError:
    """Return the one line for an error of the operating system."""
    what = f"Could not {action} {path}: {error.strerror or error}."
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return NoSpaceError(
            f"{what} What was committed is kept: make room (featx cache gc) or name another folder (--cache DIR), "
            "and run the same command again."
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return CacheError(f"{what} Name a cache folder that you may write to: --cache DIR, or FEATX_CACHE.")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return CacheError(f"{what} Raise the limit (ulimit -n 1024), and run the same command again.")
    return CacheError(f"{what} What was committed is kept: run the same command again.")
