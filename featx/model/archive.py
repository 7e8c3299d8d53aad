"""The container of a model file: a stored ZIP of fixed member names, written in one step, read with suspicion.

::

    ┌ model.json ┬ head.safetensors ┬ … ┬ central directory ┬ end record, comment "sha256:" + 64 hex digits ┐
    └──────────────────── the digest covers all of this ────────────────────────────────┘

The digest finds damage: every flipped or missing byte. It cannot find malice, whose author computes it
again, so the reader also holds the structure against exactly what `write` makes: known names, once each,
in one gapless row, not compressed, no larger than allowed. Nothing is ever unpacked to disk.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import stat
import struct
import zipfile
from typing import IO, TYPE_CHECKING

from featx.errors import MissingDataError, ModelFileError, NoSpaceError
from featx.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_MIB = 1 << 20
#: Every member a model file may have, in the order they are written, with the most bytes it may take.
MEMBERS = {
    "model.json": 64 * _MIB,
    "head.safetensors": 2048 * _MIB,
    "head.json": 512 * _MIB,
    "head.pickle": 2048 * _MIB,
    "probe.safetensors": 64 * _MIB,
    "items.safetensors": 1024 * _MIB,
    "familiarity.safetensors": 16 * _MIB,
    "combining.safetensors": 64 * _MIB,
    "network.safetensors": 3072 * _MIB,
    "network.xml": 64 * _MIB,
    "network.bin": 3072 * _MIB,
}
#: Of a model that votes in another, which lies under this and its number: no more than that.
_NESTED = re.compile(r"(?:voters/[0-9]{2}/){1,3}")
_MAX_MEMBERS = 1000
#: Plain ZIP counts bytes with 32 bits; ZIP64 would be one more thing that can lie.
_MAX_BYTES = 2**32 - 1

_DIGEST_MARK = b"sha256:"
_COMMENT_BYTES = len(_DIGEST_MARK) + 64
_END = struct.Struct("<4s4H2LH")
_END_MAGIC = b"PK\x05\x06"
_LOCAL_HEADER_BYTES = 30
#: A regular file that its owner may read and write; the same in every file, so equal models are equal bytes.
_MODE = (stat.S_IFREG | 0o600) << 16
_EPOCH = (1980, 1, 1, 0, 0, 0)


def write(path: Path, members: Mapping[str, bytes]) -> None:
    """Write a model file so that `path` holds either the whole of it or what was there before.

    Parameters
    ----------
    path : Path
        Where to. Its folder is made if need be.
    members : mapping of str to bytes
        Content by member name, of `MEMBERS` or `nested`.

    Raises
    ------
    ModelFileError
        If a member is larger than a reader would accept, or the file cannot be written.
    NoSpaceError
        If the disk is full.
    """
    for name, content in members.items():
        if len(content) > (most := _most(name) or 0):
            raise ModelFileError(f"{name} takes {len(content):,} bytes, a model file holds {most:,} at most.")
    if sum(map(len, members.values())) > _MAX_BYTES - _MIB:
        raise ModelFileError("The model takes more than 4 GiB. Save it without the backbone's weights (no --bundle).")
    try:
        write_whole(path, _zip(members))
    except OSError as error:
        kind = NoSpaceError if error.errno in (errno.ENOSPC, errno.EDQUOT) else ModelFileError
        raise kind(
            f"Cannot write the model to {path}: {error.strerror or error}. Name another place: -o FILE"
        ) from error


def _zip(members: Mapping[str, bytes]) -> memoryview:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=False) as writer:
        writer.comment = _DIGEST_MARK + b"0" * 64
        for name in sorted(members, key=_place):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.external_attr, info.create_system = _MODE, 3
            writer.writestr(info, members[name])
    content = file.getbuffer()
    content[-64:] = hashlib.sha256(content[:-64]).hexdigest().encode()
    return content


def read(path: Path) -> dict[str, bytes]:
    """Read all members of a model file after checking that it is one, and undamaged.

    Raises
    ------
    MissingDataError
        If there is no such file.
    ModelFileError
        If it is not a featx model file, or not the way `write` left it.
    """
    if not path.exists():
        raise MissingDataError(f"No model file at {path}. Make one: featx fit --head logreg -o {path}")
    if not path.is_file():  # opening a pipe would wait for ever
        raise refusal(path, "it is not a file at all")
    try:
        with path.open("rb") as file:
            return _read_zip(path, file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise ModelFileError(f"Cannot read the model file {path}: {error.strerror}.") from error


def _read_zip(path: Path, file: IO[bytes], n_bytes: int) -> dict[str, bytes]:
    if not _END.size + _COMMENT_BYTES <= n_bytes <= _MAX_BYTES:
        raise refusal(path, f"no model file has {n_bytes:,} bytes")
    file.seek(-_END.size - _COMMENT_BYTES, os.SEEK_END)
    tail = file.read()
    magic, *_, n_members, _, directory, _ = _END.unpack(tail[: _END.size])
    if magic != _END_MAGIC or tail[_END.size : -64] != _DIGEST_MARK:
        raise refusal(path, "it does not end as one: it is something else, or was cut short")
    if _digest(file, n_bytes - 64) != tail[-64:]:
        raise refusal(path, "its checksum is wrong: it was damaged on the way. Copy it again, or fit it again")
    if n_members > _MAX_MEMBERS or directory > n_bytes:
        raise refusal(path, f"it claims {n_members:,} members")
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
            _check_layout(path, infos, archive.start_dir)
            if len(infos) != n_members or archive.start_dir != directory:
                raise refusal(path, "its table of contents contradicts itself")
            return {info.filename: archive.read(info) for info in infos}
    # All that zipfile raises at a malformed archive: it promises no less than this.
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, struct.error) as error:
        if isinstance(error, ModelFileError):
            raise
        raise refusal(path, str(error)) from error


def _check_layout(path: Path, infos: list[zipfile.ZipInfo], start_of_directory: int) -> None:
    """Accept only the members, and only the places for them, that `write` would have chosen."""
    names = [info.filename for info in infos]
    known = {name for name in names if _most(name) is not None}
    if names != sorted(known, key=_place):
        strange = next((name for name in names if name not in known), "one name twice, or in disorder")
        raise refusal(path, f"unexpected member {strange[:80]!r}")
    place = 0
    for info in infos:
        plain = (info.compress_type, info.flag_bits, info.external_attr, info.extra, info.comment)
        if plain != (zipfile.ZIP_STORED, 0, _MODE, b"", b"") or info.file_size != info.compress_size:
            raise refusal(path, f"{info.filename} is compressed, encrypted, linked or annotated")
        if info.file_size > (_most(info.filename) or 0) or info.header_offset != place:
            raise refusal(path, f"{info.filename} is too large or not in its place")
        place += _LOCAL_HEADER_BYTES + len(info.filename) + info.file_size
    if place != start_of_directory:
        raise refusal(path, "it holds bytes that belong to no member")


def nested(number: int, members: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the members of a model that votes in another as the `number`-th (from 0), under its names there.

    Examples
    --------
    >>> nested(3, {"model.json": b""})
    {'voters/03/model.json': b''}
    """
    return {f"voters/{number:02}/{name}": content for name, content in members.items()}


def unnested(members: dict[str, bytes]) -> list[dict[str, bytes]]:
    """Take the members of the models that vote out of `members`, and return those of each in order."""
    found: dict[str, dict[str, bytes]] = {}
    for name in [name for name in members if name.startswith("voters/")]:
        _, number, own = name.split("/", 2)
        found.setdefault(number, {})[own] = members.pop(name)
    return [found[number] for number in sorted(found)]


def _most(name: str) -> int | None:
    """Return the most bytes that a member of that name may take; None if there is no such member."""
    inner = _NESTED.match(name)
    return MEMBERS.get(name[inner.end() :] if inner else name)


def _place(name: str) -> tuple[str, int]:
    """Return what members are ordered by: those of the model itself, then those of each that votes in it."""
    inner = _NESTED.match(name)
    prefix = inner.group() if inner else ""
    return prefix, list(MEMBERS).index(name[len(prefix) :])


def _digest(file: IO[bytes], n_bytes: int) -> bytes:
    """Return the SHA-256 of the first `n_bytes`, as hex digits."""
    file.seek(0)
    sha = hashlib.sha256()
    while n_bytes and (block := file.read(min(n_bytes, _MIB))):
        sha.update(block)
        n_bytes -= len(block)
    return sha.hexdigest().encode()


def refusal(path: Path, why: str) -> ModelFileError:
    """Return the error that says why `path` is not read."""
    return ModelFileError(f"{path} is not a model file that featx reads: {why}.")
