"""Disks that fail, dawdle, die, or forget: each stands where the operating system would."""

import contextlib
import errno
import os
import random
import shutil
import subprocess

import pytest

from featx.store import Disk

#: Calls that change something, and calls that do not.
CHANGES = ("open", "write", "sync", "link", "replace", "unlink", "make_folder")
READS = ("read", "stat", "list_folder")


class Watched(Disk):
    """A disk that counts its calls, and runs `before` ahead of each.

    Parameters
    ----------
    before : callable
        Gets the number of the call, from 0, and its name.
    calls : tuple of str
        Which calls count.
    """

    def __init__(self, before=lambda number, name: None, calls=CHANGES):
        self.before, self.calls, self.count = before, calls, 0

    def _call(self, name, *arguments):
        if name in self.calls:
            number, self.count = self.count, self.count + 1
            self.before(number, name)
        return getattr(Disk, name)(self, *arguments)

    def open(self, *arguments):
        return self._call("open", *arguments)

    def read(self, *arguments):
        return self._call("read", *arguments)

    def write(self, *arguments):
        return self._call("write", *arguments)

    def sync(self, *arguments):
        return self._call("sync", *arguments)

    def stat(self, *arguments):
        return self._call("stat", *arguments)

    def link(self, *arguments):
        return self._call("link", *arguments)

    def replace(self, *arguments):
        return self._call("replace", *arguments)

    def unlink(self, *arguments):
        return self._call("unlink", *arguments)

    def make_folder(self, *arguments):
        return self._call("make_folder", *arguments)

    def list_folder(self, *arguments):
        return self._call("list_folder", *arguments)


class KilledError(BaseException):
    """The process is gone: nothing of it runs any more, not even what cleans up."""


def dying(step, calls=CHANGES):
    """Return a disk on which nothing happens from call `step` on, as if the process were killed there."""

    def before(number, name):
        if number >= step:
            raise KilledError

    return Watched(before, calls)


def failing(step, code, calls=CHANGES, times=1):
    """Return a disk on which calls `step` to `step + times` fail with the error `code`."""

    def before(number, name):
        if step <= number < step + times:
            raise OSError(code, os.strerror(code))

    return Watched(before, calls)


class Dawdling(Disk):
    """A disk that reads and writes a few bytes at a time, and is interrupted between them."""

    def __init__(self, seed=0):
        self.random = random.Random(seed)

    def _interrupt(self):
        if self.random.random() < 0.3:
            raise InterruptedError(errno.EINTR, "Interrupted system call")

    def read(self, fd, buffers, offset):
        self._interrupt()
        first = buffers[0]
        return super().read(fd, [first[: self.random.randint(1, len(first))]], offset)

    def write(self, fd, data, offset):
        self._interrupt()
        return super().write(fd, data[: self.random.randint(1, len(data))], offset)

    def map(self, fd, n_bytes):
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))


class Lying(Disk):
    """A disk that says it wrote, but flips a bit of write number `step`."""

    def __init__(self, step):
        self.step, self.count = step, 0

    def write(self, fd, data, offset):
        number, self.count = self.count, self.count + 1
        if number == self.step:
            data = bytearray(data)
            data[len(data) // 2] ^= 1
        return super().write(fd, memoryview(data), offset)


class Linkless(Disk):
    """A file system without hard links."""

    def link(self, source, target):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


class Forgetful(Watched):
    """A disk that loses power: what was not synced is then kept, lost, or torn, whatever hurts most.

    Calls go to the real folder, as they do while there is power. `cut_power` writes what a file
    system without any guarantee of order might hold afterwards: of each file the synced bytes and any
    of the later writes, of each folder the synced names and any of the later changes.
    """

    def __init__(self, root, before):
        super().__init__(before)
        self.root = root
        self.opened = {}  # descriptor → folder or number of a file
        self.numbers = {}  # inode → number of the file that has it now; inodes are used again
        self.durable_bytes, self.pending_writes = [], []  # by number: synced content; [(offset, bytes)] since then
        self.durable_names, self.pending_names = (
            {},
            {},
        )  # by folder: {name: number or "folder"}; [(name, the same or None)]

    def open(self, path, flags):
        is_new = bool(flags & os.O_CREAT) and not path.exists()
        fd = super().open(path, flags)
        inode = os.fstat(fd).st_ino
        if is_new:
            self.numbers[inode] = len(self.durable_bytes)
            self.durable_bytes.append(b"")
            self.pending_writes.append([])
            self._changed(path, self.numbers[inode])
        self.opened[fd] = path if path.is_dir() else self.numbers.get(inode)
        return fd

    def write(self, fd, data, offset):
        n_written = super().write(fd, data, offset)
        self.pending_writes[self.opened[fd]].append((offset, bytes(data[:n_written])))
        return n_written

    def sync(self, fd):
        super().sync(fd)
        target = self.opened[fd]
        if isinstance(target, int):
            self.durable_bytes[target] = _written(self.durable_bytes[target], self.pending_writes[target])
            self.pending_writes[target] = []
        else:
            names = self.durable_names.setdefault(target, {})
            for name, number in self.pending_names.pop(target, []):
                _change(names, name, number)

    def link(self, source, target):
        super().link(source, target)
        self._changed(target, self.numbers[target.stat().st_ino])

    def replace(self, source, target):
        number = self.numbers[source.stat().st_ino]
        super().replace(source, target)
        self._changed(source, None)
        self._changed(target, number)

    def unlink(self, path):
        super().unlink(path)
        self._changed(path, None)

    def make_folder(self, path):
        super().make_folder(path)
        self._changed(path, "folder")

    def _changed(self, path, number):
        self.pending_names.setdefault(path.parent, []).append((path.name, number))

    def cut_power(self, target, seed):
        """Write to the folder `target` what may be left of the cache."""
        self._leave(self.root, target, random.Random(seed))

    def _leave(self, folder, target, chance):
        target.mkdir(parents=True)
        names = dict(self.durable_names.get(folder, {}))
        for name, number in self.pending_names.get(folder, []):
            if chance.random() < 0.5:
                _change(names, name, number)
        for name, number in names.items():
            if number == "folder":
                self._leave(folder / name, target / name, chance)
            else:
                kept = [write for write in self.pending_writes[number] if chance.random() < 0.5]
                (target / name).write_bytes(_written(self.durable_bytes[number], kept))


def _change(names, name, inode):
    if inode is None:
        names.pop(name, None)
    else:
        names[name] = inode


def _written(content, writes):
    data = bytearray(content)
    for offset, written in writes:
        data.extend(bytes(max(0, offset + len(written) - len(data))))
        data[offset : offset + len(written)] = written
    return bytes(data)


@contextlib.contextmanager
def mounted(folder, *options):
    """Mount a small file system in memory, where that is allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    if os.getuid() or not shutil.which("mount") or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
