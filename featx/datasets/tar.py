"""What lies in a tar archive and where, read as a stream: nothing is unpacked, and nothing in it is trusted.

The standard library's reader stops without a word at a damaged header in mid-archive and keeps every
header in memory; this one raises, and keeps nothing.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

from featx.images.policy import MAX_FILE_BYTES

_BLOCK = 512
#: Names and extended headers that claim to be longer are no names.
_MAX_HEADER_BYTES = 2**20
_WITHOUT_DATA = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)

#: What reading a damaged archive may raise.
DAMAGE = (EOFError, OSError, lzma.LZMAError, tarfile.TarError)


class Member(NamedTuple):
    """One entry of an archive.

    Attributes
    ----------
    name : str
        As it stands there.
    offset, n_bytes : int
        Where its data are in the uncompressed archive.
    refused : str
        Why it must not be read; empty for an ordinary file.
    """

    name: str
    offset: int
    n_bytes: int
    refused: str


def open_archive(path: Path) -> IO[bytes]:
    """Open a ``.tar``, or what is in a ``.tar.gz``, ``.tar.bz2`` or ``.tar.xz``, told by its content."""
    with path.open("rb") as file:
        head = file.read(6)
    if head.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.open(path))
    if head.startswith(b"BZh"):
        return bz2.open(path)
    return lzma.open(path) if head.startswith(b"\xfd7zXZ\0") else path.open("rb")


def read_member(file: IO[bytes], offset: int, n_bytes: int) -> bytes:
    """Read the data of a member; going forward through a compressed archive is one pass.

    Raises
    ------
    tarfile.TarError, EOFError, OSError, lzma.LZMAError
        Where the archive is damaged or ends early (`DAMAGE`).
    """
    file.seek(offset)
    data = file.read(n_bytes)
    if len(data) < n_bytes:
        raise EOFError("it ends in the middle of a file")
    return data


def walk(file: IO[bytes]) -> Iterator[Member]:
    """Go through the headers of an open archive.

    Yields
    ------
    Member
        Files, and whatever else must be refused; folders are passed over.

    Raises
    ------
    tarfile.TarError, EOFError, OSError, lzma.LZMAError
        Where the archive is damaged or ends early (`DAMAGE`).
    """
    offset = 0
    extended: dict[str, str] = {}
    while True:
        file.seek(offset)
        header = file.read(_BLOCK)
        if not header.strip(b"\0"):
            return
        info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        n_bytes = 0 if info.type in _WITHOUT_DATA else _size(extended.get("size", info.size))
        data = offset + _BLOCK
        offset = data + -(-n_bytes // _BLOCK) * _BLOCK
        if info.type == tarfile.XHDTYPE:
            extended |= _pax(read_member(file, data, _header_size(n_bytes)))
        elif info.type == tarfile.GNUTYPE_LONGNAME:
            extended["path"] = _text(read_member(file, data, _header_size(n_bytes)).rstrip(b"\0"))
        elif info.type not in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
            name = extended.get("path", info.name)
            sparse = info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse") for key in extended)
            if info.type != tarfile.DIRTYPE:
                yield Member(name, data, n_bytes, _refusal(name, info, n_bytes, sparse=sparse))
            extended = {}


def _size(value: int | str) -> int:
    """Check a size: a hostile one would send the walk backwards, or out of all bounds."""
    try:
        n_bytes = int(value)
    except ValueError as error:
        raise tarfile.ReadError("a size that is no number") from error
    if not 0 <= n_bytes < 2**60:
        raise tarfile.ReadError(f"an impossible size of {n_bytes:,} bytes")
    return n_bytes


def _header_size(n_bytes: int) -> int:
    if n_bytes > _MAX_HEADER_BYTES:
        raise tarfile.ReadError(f"a header of {n_bytes:,} bytes")
    return n_bytes


def _pax(body: bytes) -> dict[str, str]:
    """Read records: length, space, key, equals sign, value, end of line."""
    fields = {}
    while body:
        length, _, _ = body.partition(b" ")
        n_bytes = _size(_text(length))
        if n_bytes < len(length) + 3 or body[n_bytes - 1 : n_bytes] != b"\n":
            raise tarfile.ReadError("a damaged extended header")
        key, _, value = body[len(length) + 1 : n_bytes - 1].partition(b"=")
        fields[_text(key)] = _text(value)
        body = body[n_bytes:]
    return fields


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _refusal(name: str, info: tarfile.TarInfo, n_bytes: int, *, sparse: bool) -> str:
    if info.type in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        return "refused: a link, which is not followed"
    if not info.isreg():
        return "refused: no ordinary file"
    if sparse:
        return "refused: a sparse file; pack the archive without --sparse"
    if name.startswith("/") or ".." in name.split("/"):
        return "refused: its path leads out of the archive"
    if n_bytes > MAX_FILE_BYTES:
        return f"refused: {n_bytes:,} bytes, more than the {MAX_FILE_BYTES:,} that an image file may have"
    return ""
