"""The one door to the file system: every read and write of the store goes through a `Disk`.

`Disk` is the operating system. Tests pass one that fails the n-th call, forgets what was not
synced, or dies at a given step; nothing else in the store opens a file.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from featx.errors import CacheError, NoSpaceError

#: End of the name of a file that is not finished.
TEMPORARY = ".tmp"

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
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # network file systems sync by themselves
                raise


def make_folders(disk: Disk, folder: Path) -> None:
    """Create `folder` and its parents, durably.

    Raises
    ------
    NotADirectoryError
        If something else has that name.
    PermissionError
        If the system takes no folders there (``/proc``).
    """
    try:
        _make_folder(disk, folder)
    except FileNotFoundError:
        make_folders(disk, folder.parent)
        try:
            _make_folder(disk, folder)
        except FileNotFoundError:
            raise PermissionError(errno.EACCES, "The system takes no folders there", str(folder)) from None


def _make_folder(disk: Disk, folder: Path) -> None:
    try:
        disk.make_folder(folder)
    except FileExistsError:
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
    else:
        sync_folder(disk, folder.parent)


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
    kept = "What was committed is kept:"
    again = "run the same command again."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        elsewhere = "or name another place (--cache DIR, TMPDIR for temporary files)"
        return NoSpaceError(f"{what} {kept} make room (featx cache gc) {elsewhere}, and {again}")
    if error.errno == errno.EFBIG:
        return NoSpaceError(f"{what} {kept} allow larger files (ulimit -f unlimited), and {again}")
    if error.errno == errno.ENAMETOOLONG:
        return CacheError(f"{what} File systems take 255 bytes a name: choose a shorter one.")
    if error.errno == errno.ENOTDIR:
        return CacheError(f"{what} Something in this path is a file, or a link to nothing: name another folder.")
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return CacheError(f"{what} Name a place that you may write to: --cache DIR (or FEATX_CACHE), -o FILE.")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return CacheError(f"{what} Raise the limit (ulimit -n 1024), and {again}")
    return CacheError(f"{what} {kept} {again}")


def remove(disk: Disk, path: Path) -> bool:
    """Remove a file; False if there was none."""
    try:
        with explained("remove", path):
            disk.unlink(path)
    except FileNotFoundError:
        return False
    return True
