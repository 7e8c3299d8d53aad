r"""A sealed file: an ordinary HDF5 file whose user block says what every byte behind it must be.

::

    0            magic, size of the user block, format       16 bytes
    16           XXH3 digest of the rest of the user block   16 bytes
    32           JSON: kind, size, attributes, arrays,       up to a power of two,
                 digest of each array, digest of the gaps    padded with zeros
    user block   HDF5: superblock, headers, arrays, X

Whoever uses h5py sees an HDF5 file. featx itself reads the JSON, and the arrays by ``pread`` at the
offsets written there: libhdf5 never parses a file here, so a hostile or damaged one cannot reach it.
Everything is under one root: the digest of the user block covers the digests of all arrays and gaps,
and the digests of the blocks of ``X`` (64 KiB each, see `featx.store.rows`) are one of the arrays.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import re
import struct
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.errors import CacheError, CorruptFileError
from featx.files.atomic import commit
from featx.files.disk import Disk, explained, read_bytes, read_into, write_at
from featx.store.hdf5 import Extent, Inspector, gaps_between, lay_out
from featx.store.rows import DIGEST_BYTES, RowBlocks, block_rows, digest, n_blocks

MAGIC = b"\x93FEATX\r\n"
FORMAT = 1

_PREAMBLE = struct.Struct(f"<8sII{DIGEST_BYTES}s")
_LARGEST_USER_BLOCK = 1 << 24
_STREAMED_BYTES = 8 << 20
_DTYPE = re.compile(r"<f[248]|<i[48]|\|u1|\|S[1-9][0-9]{0,5}")
_MOST_DIMENSIONS = 4
_MOST_BYTES = 1 << 62


@dataclass(frozen=True)
class RowStream:
    """The large array of a file, ``X``, handed over a slice at a time.

    Attributes
    ----------
    dtype : numpy.dtype
    shape : tuple of int
        ``(n, d)`` or ``(n, c, h, w)``.
    read : callable
        ``read(start, stop)`` returns these rows, C-contiguous, of that dtype.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    read: Callable[[int, int], npt.NDArray[Any]]


def as_bytes(array: npt.NDArray[Any]) -> memoryview:
    """Return the bytes of an array in C order, without a copy where there is one already."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def write_sealed(
    disk: Disk,
    path: Path,
    *,
    kind: str,
    attributes: Mapping[str, str],
    arrays: Mapping[str, npt.NDArray[Any]],
    rows: RowStream | None = None,
    replace: bool = False,
    verify: bool = False,
) -> bool:
    """Commit a sealed file.

    Parameters
    ----------
    disk : Disk
    path : Path
    kind : str
        ``table``, ``segment``, …
    attributes : mapping of str to str
        Stored in the user block and as attributes of the HDF5 root group.
    arrays : mapping of str to ndarray
        Small arrays, held in memory.
    rows : RowStream, optional
        ``X``, streamed.
    replace, verify : bool
        Replace a file of that name; read everything back from the file before it gets its name.

    Returns
    -------
    bool
        False if a file of that name was there first.
    """

    def fill(fd: int) -> None:
        _fill(disk, fd, kind, attributes, dict(arrays), rows)

    def check(temporary: Path) -> None:
        Sealed.open(disk, temporary).verify()

    with explained("write", path):
        return commit(disk, path, fill, check=check if verify else None, replace=replace)


def _fill(
    disk: Disk,
    fd: int,
    kind: str,
    attributes: Mapping[str, str],
    arrays: dict[str, npt.NDArray[Any]],
    rows: RowStream | None,
) -> None:
    specs = {name: Extent(0, array.dtype, array.shape) for name, array in arrays.items()}
    if rows:
        arrays["X_blocks"] = np.zeros((n_blocks(rows.shape, rows.dtype), DIGEST_BYTES), np.uint8)
        specs["X_blocks"] = Extent(0, arrays["X_blocks"].dtype, arrays["X_blocks"].shape)
        specs["X"] = Extent(0, rows.dtype, rows.shape)
    _refuse_unreadable(specs)
    user_block = _user_block_size(kind, attributes, specs)
    layout = lay_out(specs, {**attributes, "format": FORMAT}, user_block)
    if rows:
        _stream(disk, fd, rows, layout.extents["X"], arrays["X_blocks"])
    for name, array in arrays.items():
        write_at(disk, fd, as_bytes(array), layout.extents[name].offset)
    for offset, content in layout.gaps:
        write_at(disk, fd, memoryview(content), offset)
    header = {
        "kind": kind,
        "size": layout.size,
        "attributes": dict(attributes),
        "arrays": {name: _to_json(extent) for name, extent in layout.extents.items()},
        "digests": {name: digest(as_bytes(array)).hex() for name, array in arrays.items()},
        "gaps": digest(b"".join(content for _, content in layout.gaps)).hex(),
    }
    write_at(disk, fd, memoryview(_seal(header, user_block)), 0)


def _refuse_unreadable(specs: Mapping[str, Extent]) -> None:
    for name, spec in specs.items():
        try:
            extent_from_json(_to_json(spec))
        except ValueError as error:
            raise TypeError(
                f"The store does not write {name!r} of type {spec.dtype} and shape {spec.shape}."
            ) from error


def _stream(disk: Disk, fd: int, rows: RowStream, extent: Extent, digests: npt.NDArray[np.uint8]) -> None:
    """Write `rows` at their place, and the digest of each of their blocks into `digests`."""
    n, step = rows.shape[0], block_rows(rows.shape, rows.dtype)
    row_bytes = extent.n_bytes // max(1, n)
    at_a_time = step * max(1, _STREAMED_BYTES // max(1, step * row_bytes))
    for start in range(0, n, at_a_time):
        stop = min(start + at_a_time, n)
        data = as_bytes(rows.read(start, stop))
        for low in range(start, stop, step):
            block = data[(low - start) * row_bytes : (low + step - start) * row_bytes]
            digests[low // step] = np.frombuffer(digest(block), np.uint8)
        write_at(disk, fd, data, extent.offset + start * row_bytes)


def _user_block_size(kind: str, attributes: Mapping[str, str], specs: Mapping[str, Extent]) -> int:
    """Return a power of two that surely holds the header, which is not known before the layout."""
    widest = {
        name: _to_json(Extent(1 << 62, spec.dtype, spec.shape)) | {"digest": "0" * 64} for name, spec in specs.items()
    }
    needed = _PREAMBLE.size + len(json.dumps([kind, dict(attributes), widest])) + 512
    return 1 << max(11, (needed - 1).bit_length())


def _seal(header: Mapping[str, Any], user_block: int) -> bytes:
    body = json.dumps(header).encode().ljust(user_block - _PREAMBLE.size, b"\0")
    start = _PREAMBLE.pack(MAGIC, user_block, FORMAT, b"")[:-DIGEST_BYTES]
    return start + digest(start + body) + body


def _to_json(extent: Extent) -> dict[str, Any]:
    dtype = [[name, extent.dtype[name].str] for name in extent.dtype.names] if extent.dtype.names else extent.dtype.str
    return {"offset": extent.offset, "dtype": dtype, "shape": list(extent.shape)}


@dataclass(frozen=True)
class Header:
    """What a user block says, in the words of the newest format.

    Attributes
    ----------
    kind : str
    size : int
        Of the file, in bytes.
    attributes : dict of str to str
    extents : dict of str to Extent
    digests : dict of str to bytes
        Of every array but ``X``.
    gaps : bytes
        Digest of all that lies outside the user block and the arrays.
    """

    kind: str
    size: int
    attributes: dict[str, str]
    extents: dict[str, Extent]
    digests: dict[str, bytes]
    gaps: bytes


def _read_format_1(fields: Any) -> Header:
    return Header(
        kind=_text(fields["kind"]),
        size=fields["size"],
        attributes={_text(name): _text(value) for name, value in fields["attributes"].items()},
        extents={_text(name): extent_from_json(extent) for name, extent in fields["arrays"].items()},
        digests={_text(name): bytes.fromhex(text) for name, text in fields["digests"].items()},
        gaps=bytes.fromhex(fields["gaps"]),
    )


#: How the user block of each format is read: every format that featx ever wrote stays here. Whoever changes what a
#: table or a segment holds raises `FORMAT`, and adds the function that says it in the words of the newest one.
READERS: dict[int, Callable[[Any], Header]] = {1: _read_format_1}


class Sealed:
    """A sealed file, open for reading.

    The header and all that is not an array are verified here, each array when it is first read and
    each block of ``X`` when it is first touched. The file stays this one even when another takes its
    name. Threads and forked processes may share it: nothing moves a file position.

    Parameters
    ----------
    disk : Disk
    fd : int
        Owned from now on.
    path : Path
        For messages.

    Attributes
    ----------
    kind : str
    attributes : dict of str to str
    extents : dict of str to Extent
    size : int
        In bytes.
    format : int
        As it was written.
    identity : bytes
        The digest of the user block, and so of the whole file.

    Raises
    ------
    CorruptFileError
        If the file is not what its user block says, or has none.
    CacheError
        If it is of a later format.
    """

    def __init__(self, disk: Disk, fd: int, path: Path) -> None:
        self.path = path
        self._disk = disk
        self._fd = fd
        self.close = weakref.finalize(self, disk.close, fd)
        self._loaded: dict[str, npt.NDArray[Any]] = {}
        try:
            self._read_header()
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, disk: Disk, path: Path) -> Sealed:
        """Open and check the file at `path`."""
        with explained("read", path):
            return cls(disk, disk.open(path, os.O_RDONLY), path)

    def _read_header(self) -> None:
        size = self._disk.stat(self._fd).st_size
        try:
            preamble = self._bytes(0, min(size, _PREAMBLE.size)).ljust(_PREAMBLE.size, b"\0")
            magic, user_block, version, seal = _PREAMBLE.unpack(preamble)
            if magic != MAGIC:
                raise ValueError("it does not begin as a file of featx")
            if not _PREAMBLE.size < user_block <= min(size, _LARGEST_USER_BLOCK):
                raise ValueError("its user block is cut off")
            body = self._bytes(_PREAMBLE.size, user_block - _PREAMBLE.size)
            if digest(preamble[:-DIGEST_BYTES] + body) != seal:
                raise ValueError("its user block is damaged")
            header = self._reader_of(version)(json.loads(body.rstrip(b"\0")))
            self._check_layout(header, user_block, size)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, CacheError):
                raise
            raise self._damaged(str(error)) from error
        self.identity, self.size, self.format = bytes(seal), size, version
        self.kind, self.attributes, self.extents = header.kind, header.attributes, header.extents
        self._digests = header.digests

    def _reader_of(self, version: int) -> Callable[[Any], Header]:
        if version in READERS:
            return READERS[version]
        raise CacheError(
            f"{self.path} is of format {version}, this featx reads {', '.join(map(str, READERS))}. "
            "Update featx (pip install --upgrade featx), or name another cache folder: --cache DIR"
        )

    def _check_layout(self, header: Header, user_block: int, size: int) -> None:
        if header.size != size:
            raise ValueError(f"it has {size:,} bytes instead of {header.size:,}")
        if set(header.digests) != set(header.extents) - {"X"}:
            raise ValueError("its user block names other digests than arrays")
        gaps = gaps_between(header.extents, user_block, size)
        if sum(stop - start for start, stop in gaps) > _LARGEST_USER_BLOCK:
            raise ValueError("its arrays do not fill it")
        if digest(b"".join(self._bytes(start, stop - start) for start, stop in gaps)) != header.gaps:
            raise ValueError("its HDF5 structures are damaged")

    def _bytes(self, offset: int, n_bytes: int) -> bytearray:
        try:
            with explained("read", self.path):
                return read_bytes(self._disk, self._fd, offset, n_bytes)
        except EOFError as error:
            raise ValueError(str(error)) from error

    def _damaged(self, reason: str) -> CorruptFileError:
        return CorruptFileError(f"{self.path} is damaged: {reason}.")

    def array(self, name: str) -> npt.NDArray[Any]:
        """Return a whole array, verified when it is first read."""
        if name not in self._loaded:
            self._loaded[name] = self._verified(name)
        return self._loaded[name]

    def forget(self) -> None:
        """Let go of the arrays that were read."""
        self._loaded.clear()

    def _verified(self, name: str) -> npt.NDArray[Any]:
        if name not in self._digests:
            raise self._damaged(f"it has no {name!r}")
        extent = self.extents[name]
        try:
            data = self._bytes(extent.offset, extent.n_bytes)
        except ValueError as error:
            raise self._damaged(str(error)) from error
        if digest(data) != self._digests[name]:
            raise self._damaged(f"its {name!r} is not what was written")
        array = np.frombuffer(data, extent.dtype).reshape(extent.shape)
        array.flags.writeable = False
        return array

    def digest_of(self, name: str) -> bytes | None:
        """Return the digest that the array should have, None if there is no such array."""
        return self._digests.get(name)

    def require(self, columns: Mapping[str, tuple[str, tuple[int | None, ...]]]) -> None:
        """Check that there are arrays of these kinds (as `numpy.dtype.kind`) and shapes (None for any length)."""
        for name, (kind, shape) in columns.items():
            found = self.extents.get(name)
            fits = found is not None and found.dtype.kind == kind and len(found.shape) == len(shape)
            if found is None or not fits or any(b not in (a, None) for a, b in zip(found.shape, shape, strict=True)):
                raise self._damaged(f"its {name!r} is not that of a {self.kind}")

    def row_blocks(self) -> RowBlocks:
        """Return a reader of the rows of ``X``."""
        if "X" not in self.extents:
            raise self._damaged("it has no 'X'")
        extent, blocks = self.extents["X"], self.array("X_blocks")
        if len(extent.shape) < 2 or extent.dtype.kind != "f":
            raise self._damaged("its 'X' is not rows of numbers")
        if blocks.shape != (n_blocks(extent.shape, extent.dtype), DIGEST_BYTES) or blocks.dtype != np.uint8:
            raise self._damaged("it has other blocks than rows")
        return RowBlocks(self, extent, blocks)

    def read_parts(self, parts: Iterable[tuple[Sequence[memoryview], int]]) -> None:
        """Fill buffers from the offset that goes with them."""
        try:
            with explained("read", self.path):
                for buffers, offset in parts:
                    read_into(self._disk, self._fd, buffers, offset)
        except EOFError as error:
            raise self._damaged(str(error)) from error

    @cached_property
    def mapped(self) -> mmap.mmap | None:
        """The file in memory, None where the system cannot do that."""
        try:
            return self._disk.map(self._fd, self.size)
        except OSError:
            return None

    def check_structure(self, inspector: Inspector) -> None:
        """Check that h5py sees what featx reads; see `featx.store.hdf5.Inspector.check`."""
        inspector.check(self.path, self.extents, {**self.attributes, "format": self.format})

    def verify(self, on_bytes: Callable[[int], None] | None = None) -> None:
        """Check every array and every block against its digest; `on_bytes` gets the bytes of each.

        Raises
        ------
        CorruptFileError
        """
        for name in self._digests:
            n_bytes = self._verified(name).nbytes
            if on_bytes:
                on_bytes(n_bytes)
        if "X" in self.extents:
            self.row_blocks().verify(on_bytes)
        if on_bytes:  # what was checked when the file was opened
            on_bytes(self.size - sum(extent.n_bytes for extent in self.extents.values()))


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise TypeError("its user block is not as featx writes it")
    value.encode()  # HDF5 holds no halves of characters either
    return value


def extent_from_json(fields: Mapping[str, Any]) -> Extent:
    """Believe nothing: shapes, offsets and types may come from someone who means harm.

    Raises
    ------
    ValueError, TypeError, LookupError
        If featx does not write arrays of that description.
    """
    kinds = fields["dtype"] if isinstance(fields["dtype"], list) else [["", fields["dtype"]]]
    offset, shape = fields["offset"], fields["shape"]
    if not all(_DTYPE.fullmatch(_text(kind)) for _, kind in kinds):
        raise ValueError(f"its user block names a type that featx does not write ({fields['dtype']})")
    if len(shape) > _MOST_DIMENSIONS or not all(type(n) is int and 0 <= n < _MOST_BYTES for n in (offset, *shape)):
        raise ValueError("its user block names an impossible shape")
    dtype = np.dtype([(_text(name), kind) for name, kind in kinds] if kinds[0][0] else kinds[0][1])
    if math.prod(max(1, n) for n in shape) * dtype.itemsize >= _MOST_BYTES:  # numpy has no such array, not even empty
        raise ValueError("its user block names an impossible shape")
    return Extent(offset, dtype, tuple(shape))
