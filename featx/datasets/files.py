"""Images that are files of their own."""
# A million Path objects cost seconds:
# ruff: noqa: PTH118, PTH123

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from featx.datasets.dataset import MAX_FILE_BYTES, ImageData, one_by_one
from featx.errors import ImageError

#: Bytes of a stamp.
STAMP_BYTES = 16


class Files:
    """Image files below a folder.

    Parameters
    ----------
    root : str
        The folder, absolute.
    paths : sequence of str
        Paths relative to it, or absolute, as the file system spells them.
    """

    def __init__(self, root: str, paths: Sequence[str]) -> None:
        self._root = root
        self._paths = paths

    def iterate(self, indices: Iterable[int]) -> Iterator[tuple[int, ImageData | ImageError]]:
        """Read files whole."""
        return one_by_one(self._read, indices)

    def _read(self, i: int) -> bytes:
        return read_file(os.path.join(self._root, self._paths[i]))

    def stamps(self) -> np.ndarray:
        """Digest the absolute path, size, modification time and inode of every file."""
        root = self._root.encode("utf-8", "surrogateescape") + b"\0"
        stamps = bytearray()
        folder = os.open(self._root, os.O_RDONLY)  # short paths are looked up nearly twice as fast
        try:
            for path in self._paths:
                text = root + path.encode("utf-8", "surrogateescape") + _status(path, folder)
                stamps += hashlib.blake2b(text, digest_size=STAMP_BYTES).digest()
        finally:
            os.close(folder)
        return np.frombuffer(stamps, np.uint8).reshape(-1, STAMP_BYTES)


def read_file(path: str) -> bytes:
    """Read a file whole.

    Raises
    ------
    ImageError
        If it is too large for an image.
    OSError
        If it cannot be read.
    """
    with open(path, "rb", buffering=0) as file:
        n_bytes = os.fstat(file.fileno()).st_size
        if n_bytes > MAX_FILE_BYTES:
            raise ImageError(f"{n_bytes:,} bytes, more than the {MAX_FILE_BYTES:,} that an image file may have")
        return file.read()


def stamps_of_parts(paths: Sequence[str], n_parts: Sequence[int]) -> np.ndarray:
    """Stamp the images inside larger files: a digest of the file in front, the place in it behind.

    Parameters
    ----------
    paths : sequence of str
        Absolute paths of the files.
    n_parts : sequence of int
        Number of images in each.

    Returns
    -------
    ndarray of uint8, shape (sum(n_parts), 16)
    """
    stamps = np.empty((sum(n_parts), 2), np.uint64)
    start = 0
    for path, n in zip(paths, n_parts, strict=True):
        text = path.encode("utf-8", "surrogateescape") + _status(path)
        stamps[start : start + n, 0] = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())
        stamps[start : start + n, 1] = np.arange(n)
        start += n
    return stamps.view(np.uint8)


def _status(path: str, folder: int | None = None) -> bytes:
    try:
        status = os.stat(path, dir_fd=folder)
    except OSError:
        return b"missing"  # nothing was read from it, so nothing will be remembered of it
    return struct.pack("<qqQ", status.st_size, status.st_mtime_ns, status.st_ino)
