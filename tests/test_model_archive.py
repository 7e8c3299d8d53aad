"""The container of a model file: what is written is read, and nothing else is."""

import hashlib
import io
import json
import os
import stat
import struct
import subprocess
import sys
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featx.errors import MissingDataError, ModelFileError
from featx.model import archive

MEMBERS = {"model.json": b'{"a": 1}', "head.safetensors": bytes(range(32))}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "m.featx"
    archive.write(path, MEMBERS)
    return path.read_bytes()


def seal(content):
    """Give an archive that somebody else made the digest that featx looks for."""
    content = content[:-64]
    return content + hashlib.sha256(content).hexdigest().encode()


def forge(entries, *, comment=True):
    """Make a ZIP of (ZipInfo or name, bytes) with a valid digest."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        if comment:
            file.comment = b"sha256:" + b"0" * 64
        for info, content in entries:
            if isinstance(info, str):
                info = zipfile.ZipInfo(info)  # noqa: PLW2901
                info.external_attr = (stat.S_IFREG | 0o600) << 16
            file.writestr(info, content)
    return seal(buffer.getvalue())


def info(name, **changes):
    made = zipfile.ZipInfo(name)
    made.external_attr = (stat.S_IFREG | 0o600) << 16
    for key, value in changes.items():
        setattr(made, key, value)
    return made


def refused(tmp_path, content, reason):
    path = tmp_path / "m.featx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=reason):
        archive.read(path)


def test_what_is_written_is_read(tmp_path, written):
    path = tmp_path / "m.featx"
    path.write_bytes(written)

    assert archive.read(path) == MEMBERS


def test_equal_models_are_equal_bytes(tmp_path, written):
    archive.write(tmp_path / "again.featx", dict(reversed(MEMBERS.items())))

    assert (tmp_path / "again.featx").read_bytes() == written


def test_any_unzip_opens_it(written):
    with zipfile.ZipFile(io.BytesIO(written)) as file:
        assert file.testzip() is None
        assert json.loads(file.read("model.json")) == {"a": 1}


def test_every_flipped_bit_is_found(tmp_path, written):
    path = tmp_path / "m.featx"
    for place in range(len(written)):
        for bit in range(8):
            damaged = bytearray(written)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(ModelFileError):
                archive.read(path)


def test_every_truncation_is_found(tmp_path, written):
    for length in range(len(written)):
        refused(tmp_path, written[:length], "not a model file that featx reads")


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_other_files_are_refused_and_nothing_else_is_raised(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("noise") / "m.featx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="not a model file"):
        archive.read(path)


@settings(deadline=None)
@given(st.data())
def test_a_forged_structure_with_a_valid_digest_is_refused_or_reads_the_same(tmp_path_factory, written, data):
    content = bytearray(written)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("forged") / "m.featx"
    path.write_bytes(seal(bytes(content)))
    try:
        found = archive.read(path)
    except ModelFileError:
        return
    # ZIP holds dates and versions that mean nothing to featx; the members' CRC still holds.
    assert found == MEMBERS


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "sub/model.json", "evil.py", "MODEL.JSON", "model.json/"])
def test_only_known_names_are_members(tmp_path, name):
    refused(tmp_path, forge([("model.json", b"{}"), (name, b"")]), "unexpected member")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_occurs_once(tmp_path):
    refused(tmp_path, forge([("model.json", b"{}"), ("model.json", b"[]")]), "one name twice")


def test_members_stand_in_order(tmp_path):
    refused(tmp_path, forge([("head.json", b"{}"), ("model.json", b"{}")]), "in disorder")


def test_a_link_is_no_member(tmp_path):
    link = info("head.json", external_attr=(stat.S_IFLNK | 0o777) << 16)

    refused(
        tmp_path, forge([("model.json", b"{}"), (link, b"/etc/passwd")]), "head.json is compressed, encrypted, linked"
    )


def test_a_compressed_bomb_is_not_inflated(tmp_path):
    bomb = info("head.json", compress_type=zipfile.ZIP_DEFLATED)

    refused(tmp_path, forge([("model.json", b"{}"), (bomb, b"0" * 10_000_000)]), "head.json is compressed")


def test_bytes_between_members_are_refused(tmp_path):
    content = forge([("model.json", b"{}")])
    start = struct.unpack_from("<L", content, content.rindex(b"PK\5\6") + 16)[0]
    stuffed = bytearray(content[:start] + b"stowaway" + content[start:])
    struct.pack_into("<L", stuffed, stuffed.rindex(b"PK\5\6") + 16, start + 8)

    refused(tmp_path, seal(bytes(stuffed)), "bytes that belong to no member")


def test_a_prefix_before_the_archive_is_refused(tmp_path, written):
    refused(tmp_path, seal(b"#!/bin/sh\n" + written), "contradicts itself|not in its place")


@pytest.mark.parametrize("size", [0, 7, 9, 2**31, 2**32 - 1])
def test_a_lie_about_the_size_is_refused(tmp_path, size):
    content = bytearray(forge([("model.json", b'{"a": 1}')]))
    entry = content.index(b"PK\1\2")
    struct.pack_into("<LL", content, entry + 20, size, size)
    struct.pack_into("<LL", content, 18, size, size)

    refused(tmp_path, seal(bytes(content)), "not a model file")


def test_a_lie_about_the_number_of_members_is_refused(tmp_path):
    content = bytearray(forge([("model.json", b"{}")]))
    end = content.rindex(b"PK\5\6")
    struct.pack_into("<HH", content, end + 8, 60_000, 60_000)

    refused(tmp_path, seal(bytes(content)), "claims 60,000 members")


def test_an_ordinary_zip_is_refused(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("model.json", "{}" * 100)

    refused(tmp_path, buffer.getvalue(), "does not end as one")


def test_missing_files_folders_and_pipes_are_told_apart(tmp_path):
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(MissingDataError, match=r"No model file at .*none.featx. Make one: featx fit"):
        archive.read(tmp_path / "none.featx")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ModelFileError, match="not a file at all"):
            archive.read(path)


def test_a_failed_write_leaves_the_old_model_and_no_debris(tmp_path, written):
    path = tmp_path / "m.featx"
    path.write_bytes(written)

    with pytest.raises(ModelFileError, match=r"model.json takes"):
        archive.write(path, {"model.json": b" " * (archive.MEMBERS["model.json"] + 1)})
    assert path.read_bytes() == written
    assert list(tmp_path.iterdir()) == [path]


def test_the_folder_is_made_if_need_be(tmp_path):
    archive.write(tmp_path / "new" / "m.featx", MEMBERS)

    assert archive.read(tmp_path / "new" / "m.featx") == MEMBERS


def test_a_place_that_takes_no_file_is_one_clear_line(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(ModelFileError, match=r"Cannot write the model to .*: Not a directory. Name another place"):
        archive.write(tmp_path / "file" / "m.featx", MEMBERS)


def test_a_write_that_fails_midway_leaves_the_old_model_and_no_debris(tmp_path, written):
    path = tmp_path / "m.featx"
    path.write_bytes(written)
    script = """
import resource, signal, sys
from pathlib import Path
from featx.errors import ModelFileError
from featx.model import archive

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    archive.write(Path(sys.argv[1]), {"head.safetensors": bytes(1_000_000)})
except ModelFileError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)

    assert "Cannot write the model" in done.stdout
    assert "File too large" in done.stdout
    assert path.read_bytes() == written
    assert list(tmp_path.iterdir()) == [path]
