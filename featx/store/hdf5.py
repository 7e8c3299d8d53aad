"""HDF5 as featx uses it: it lays files out, holds text, and is asked whether others see what featx reads.

HDF5 lays out, the store writes: libhdf5 is asked for a file whose datasets are allocated but not written. It runs
in memory, so that no fault of a disk can reach it; what comes back is the offset of every array and the few
kilobytes (superblock, object headers, attributes) that make the file an ordinary HDF5 file for everyone else.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from featx.errors import CacheError, CorruptFileError, DataError
from featx.machine import limit_memory, start_python

#: What h5py may take to look at the links and headers of one file: seconds of processor time, bytes of memory.
_MOST_SECONDS = 2.0
_MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class Extent:
    """Where one array lies in a file: C order, little-endian, uninterrupted.

    Attributes
    ----------
    offset : int
        Of the first byte, from the start of the file. 0 for an array without bytes.
    dtype : numpy.dtype
    shape : tuple of int
    """

    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        """Length in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def end(self) -> int:
        """Offset of the first byte behind the array."""
        return self.offset + self.n_bytes


@dataclass(frozen=True)
class Layout:
    """An HDF5 file without the content of its datasets.

    Attributes
    ----------
    size : int
        Of the whole file, in bytes.
    extents : dict of str to Extent
        The arrays by name.
    gaps : list of (int, bytes)
        Offset and content of all that lies outside the user block and the arrays.
    """

    size: int
    extents: dict[str, Extent]
    gaps: list[tuple[int, bytes]]


def lay_out(arrays: Mapping[str, Extent], attributes: Mapping[str, str | int], user_block: int) -> Layout:
    """Place `arrays` (their offsets are ignored) behind a user block of `user_block` bytes.

    Parameters
    ----------
    arrays : mapping of str to Extent
        In the order in which they shall lie. A slash in a name makes a group.
    attributes : mapping of str to str or int
        Attributes of the root group.
    user_block : int
        A power of two of at least 512.
    """
    import h5py

    image = _Image()
    aligned = {"alignment_threshold": 512, "alignment_interval": 64}  # so that X can be mapped as numbers
    with h5py.File(image, "w", userblock_size=user_block, **aligned) as file:
        for name, value in attributes.items():
            file.attrs[name] = value
        extents = {name: _allocate(file, name, extent) for name, extent in arrays.items()}
    gaps = [(start, image.content(start, stop)) for start, stop in gaps_between(extents, user_block, image.size)]
    return Layout(image.size, extents, gaps)


def gaps_between(extents: Mapping[str, Extent], start: int, stop: int) -> list[tuple[int, int]]:
    """Return the ranges of ``start … stop`` that no extent covers.

    Raises
    ------
    ValueError
        If extents overlap or reach outside.

    Examples
    --------
    >>> gaps_between({"y": Extent(600, np.dtype("<i8"), (10,))}, 512, 1000)
    [(512, 600), (680, 1000)]
    """
    gaps = []
    for extent in sorted((extent for extent in extents.values() if extent.n_bytes), key=lambda extent: extent.offset):
        if extent.offset < start:
            raise ValueError("arrays overlap")
        if extent.offset > start:
            gaps.append((start, extent.offset))
        start = extent.end
    if start > stop:
        raise ValueError("arrays reach past the end of the file")
    return [*gaps, (start, stop)] if start < stop else gaps


def _allocate(file: Any, name: str, extent: Extent) -> Extent:
    from h5py import h5d, h5p, h5s, h5t

    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_layout(h5d.CONTIGUOUS)
    properties.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)  # equal content is an equal file
    group, _, leaf = name.rpartition("/")
    home = file.require_group(group) if group else file
    kind = h5t.py_create(hdf5_dtype(extent.dtype), logical=True)
    dataset = h5d.create(home.id, leaf.encode(), kind, h5s.create_simple(extent.shape), properties)
    return Extent(dataset.get_offset() if extent.n_bytes else 0, extent.dtype, extent.shape)


def hdf5_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Say to h5py that byte strings are UTF-8."""
    import h5py

    if dtype.names:
        fields = [(name, hdf5_dtype(dtype[name])) for name in dtype.names]
        return np.dtype(fields)
    return np.dtype(h5py.string_dtype("utf-8", dtype.itemsize)) if dtype.kind == "S" else dtype


class Inspector:
    """h5py in a process of its own: a file may crash libhdf5, fill its memory or keep it busy for ever.

    To be used as a context. The process starts with the first file, and again behind one that ended it.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process; the next file starts another one."""
        if self._process is not None:
            self._process.kill()
            with contextlib.suppress(BrokenPipeError), self._process:  # which closes its pipes and waits for it
                self._process = None

    def check(self, path: Path, extents: Mapping[str, Extent], attributes: Mapping[str, str | int]) -> None:
        """Check that h5py sees these arrays and attributes in the file at `path`, and nothing else.

        Only links and headers are looked at: every member must be a hard link to a contiguous dataset
        without filters, external files or virtual sources, at the very bytes that are named.

        Raises
        ------
        CorruptFileError
            If h5py would show anything else than featx does.
        CacheError
            If the process cannot run.
        """
        found = self._ask(path)
        if "error" in found:
            raise CorruptFileError(f"{path} is damaged: h5py cannot read it ({found['error']}).")
        expected = {
            name: [extent.offset if extent.n_bytes else 0, str(hdf5_dtype(extent.dtype).descr), list(extent.shape)]
            for name, extent in extents.items()
        }
        if found != {"arrays": expected, "attributes": dict(attributes)}:
            raise CorruptFileError(f"{path} shows h5py something else than featx. Do not trust it.")

    def _ask(self, path: Path) -> dict[str, Any]:
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(str(path)).encode() + b"\n")
            process.stdin.flush()
        answer = process.stdout.readline()
        if answer:
            found: dict[str, Any] = json.loads(answer)
            return found
        code = process.wait()
        self.close()
        if code == -signal.SIGKILL:
            raise CacheError(f"The process that checked {path} was killed, as the system does when memory runs out.")
        raise CorruptFileError(f"{path} is damaged: h5py crashes on it, or reads it for ever.")

    def _start(self) -> subprocess.Popen[bytes]:
        code, pipe = f"from {__name__} import inspect_files; inspect_files()", subprocess.PIPE
        try:
            process = start_python("-c", code, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        except OSError as error:
            raise CacheError(f"Cannot start a process that checks tables ({error}).") from error
        self._process = process
        if process.stdout is None or not process.stdout.readline():  # it says when it is ready
            self.close()
            raise CacheError("The process that checks tables ends as soon as it starts. Is there enough memory?")
        return process


def inspect_files() -> None:
    """Answer each path, a line of JSON on stdin, with what h5py sees in that file; SIGPROF ends what takes too long."""
    limit_memory(_MOST_BYTES)
    import h5py

    print(h5py.__version__, flush=True)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, _MOST_SECONDS)
        try:
            with h5py.File(json.loads(line), "r") as file:
                values = {
                    name: value if isinstance(value, str) else int(value) if isinstance(value, np.integer) else None
                    for name, value in file.attrs.items()
                }
                found: dict[str, Any] = {"arrays": dict(_seen(file)), "attributes": values}
        except Exception as error:  # noqa: BLE001 - h5py raises a dozen types on damaged files
            found = {"error": str(error)}
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(found), flush=True)


def _seen(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    import h5py

    for name in group:
        link = group.get(name, getlink=True)
        member = group[name] if isinstance(link, h5py.HardLink) else link
        if isinstance(member, h5py.Group) and not prefix:
            yield from _seen(member, f"{name}/")
        else:
            yield prefix + name, _place(member) if isinstance(member, h5py.Dataset) else type(member).__name__


def _place(dataset: Any) -> Any:
    from h5py import h5d

    properties = dataset.id.get_create_plist()
    if properties.get_layout() != h5d.CONTIGUOUS or properties.get_nfilters() or properties.get_external_count():
        return "not contiguous"
    return [dataset.id.get_offset() if dataset.size else 0, str(dataset.dtype.descr), dataset.shape]


class _Image(io.RawIOBase):
    """A file in memory that remembers what libhdf5 writes and knows a size, but holds no gigabytes of holes."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0
        self._position = 0
        self._written: list[tuple[int, bytes]] = []

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def truncate(self, size: int | None = None) -> int:
        self.size = self._position if size is None else size
        return self.size

    def write(self, data: Any) -> int:
        self._written.append((self._position, bytes(data)))
        self._position += len(self._written[-1][1])
        self.size = max(self.size, self._position)
        return len(self._written[-1][1])

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        view[:] = self.content(self._position, self._position + len(view))
        self._position += len(view)
        return len(view)

    def content(self, start: int, stop: int) -> bytes:
        """Return the bytes of a range, zero where nothing was written."""
        data = bytearray(stop - start)
        for offset, written in self._written:
            low, high = max(start, offset), min(stop, offset + len(written))
            if low < high:
                data[low - start : high - start] = written[low - offset : high - offset]
        return bytes(data)


def to_utf8(texts: Iterable[str]) -> npt.NDArray[np.bytes_]:
    r"""Encode texts as byte strings, as wide as the longest (at least 1 byte): they need no heap in HDF5.

    File names that are no UTF-8 keep their bytes.

    Raises
    ------
    DataError
        If a text ends with a NUL character, or cannot be encoded.

    Examples
    --------
    >>> to_utf8(["a", "ä"])
    array([b'a', b'\xc3\xa4'], dtype='|S2')
    """
    try:
        encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
    except UnicodeEncodeError as error:
        raise DataError(f"{error.object!r} cannot be written as UTF-8. Rename it.") from error
    for text in encoded:
        if text.endswith(b"\0"):
            raise DataError(f"{text!r} ends with a NUL character. Rename it.")
    return np.array(encoded, dtype=f"S{max(map(len, encoded), default=1) or 1}")


def from_utf8(texts: npt.NDArray[Any]) -> npt.NDArray[np.str_]:
    """Decode what `to_utf8` made.

    Examples
    --------
    >>> from_utf8(to_utf8(["a", "ä"])).tolist()
    ['a', 'ä']
    """
    decoded = [text.decode("utf-8", "surrogateescape") for text in texts.tolist()]
    return np.array(decoded, dtype=str) if decoded else np.empty(0, "U1")
