"""Files that are there whole or not at all."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys

import pytest

from featx.errors import CacheError, NoSpaceError
from featx.files import Disk, whole_file, whole_folder, write_whole
from featx.files.atomic import adopt_record, read_record, write_record
from featx.files.disk import explanation, make_folders


def names(folder):
    return [path.name for path in folder.iterdir()]


def half_written(path, text):
    """Begin to write, and fail."""
    with whole_file(path) as temporary:
        temporary.write_text(text)
        raise RuntimeError


def half_filled(path, text):
    with whole_folder(path) as temporary:
        (temporary / "a.txt").write_text(text)
        raise RuntimeError


def test_a_file_is_replaced_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_whole(path, "old")
    with whole_file(path) as temporary:
        temporary.write_text("new")

        assert path.read_text() == "old"

    assert path.read_text() == "new"
    assert names(path.parent) == ["a.txt"]


def test_what_fails_in_between_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_whole(path, b"old")
    with pytest.raises(RuntimeError):
        half_written(path, "ne")

    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.txt"]


def _killed_while_writing(path):
    with whole_file(path) as temporary:
        temporary.write_bytes(b"ne")
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_kill_in_between_leaves_the_old_file_and_a_temporary_one(tmp_path):
    path = tmp_path / "a.txt"
    write_whole(path, b"old")
    child = multiprocessing.get_context("fork").Process(target=_killed_while_writing, args=(path,))
    child.start()
    child.join()

    assert child.exitcode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert sorted(name.endswith(".tmp") for name in names(tmp_path)) == [False, True]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    path, target = tmp_path / "link", tmp_path / "real" / "a.txt"
    path.symlink_to(target)
    for text in ("made", "replaced"):
        write_whole(path, text)

        assert path.is_symlink()
        assert target.read_text() == text


@pytest.mark.parametrize("mode", ["wb", "ab"])
def test_standard_output_is_written_to_directly_even_where_it_is_a_file(tmp_path, mode):
    code = "import sys; from pathlib import Path; from featx.files import write_whole; write_whole(Path('/dev/stdout'), 'x')"
    piped = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    with (tmp_path / "out").open(mode) as file:
        subprocess.run([sys.executable, "-c", code], stdout=file, check=True)
        inode = os.fstat(file.fileno()).st_ino

    assert piped.stdout == b"x"
    assert (tmp_path / "out").stat().st_ino == inode
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("name", ["a" * 255, "ä" * 127, "😀" * 63], ids=["ascii", "two bytes", "four bytes"])
def test_the_longest_names_are_written(tmp_path, name):
    write_whole(tmp_path / name, "x")

    assert names(tmp_path) == [name]


def test_too_long_a_name_says_so(tmp_path):
    with pytest.raises(OSError, match="File name too long") as failed:
        write_whole(tmp_path / ("a" * 256), "x")

    assert names(tmp_path) == []
    assert "choose a shorter one" in str(explanation(failed.value, "write", tmp_path))


def test_a_folder_comes_whole_or_not_at_all(tmp_path):
    path = tmp_path / "networks" / "key"
    for text in ("old", "new"):
        with whole_folder(path) as temporary:
            (temporary / "a.txt").write_text(text)
    with pytest.raises(RuntimeError):
        half_filled(path, "half")

    assert (path / "a.txt").read_text() == "new"
    assert names(path.parent) == ["key"]


def test_folders_that_cannot_be_made_say_why(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "x")
    with pytest.raises(PermissionError, match="takes no folders there"):
        make_folders(Disk(), tmp_path.__class__("/proc/x/y"))
    for name in ("file", "dangling"):
        with pytest.raises(NotADirectoryError, match=name):
            make_folders(Disk(), tmp_path / name)


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (errno.ENOSPC, NoSpaceError, "make room"),
        (errno.EFBIG, NoSpaceError, "ulimit -f unlimited"),
        (errno.ENOTDIR, CacheError, "is a file"),
        (errno.EACCES, CacheError, "that you may write to"),
        (errno.EMFILE, CacheError, "ulimit -n"),
        (errno.EIO, CacheError, "run the same command again"),
    ],
)
def test_errors_of_the_system_say_what_to_do(tmp_path, code, kind, words):
    told = explanation(OSError(code, os.strerror(code)), "write", tmp_path)

    assert type(told) is kind
    assert words in str(told)
    assert os.strerror(code) in str(told)


def test_records_are_adopted_by_the_first_and_damaged_ones_replaced(tmp_path):
    disk, path = Disk(), tmp_path / "a" / "plan.json"

    assert read_record(disk, path) is None
    assert adopt_record(disk, path, {"batch": 8}) == {"batch": 8}
    assert adopt_record(disk, path, {"batch": 16}) == {"batch": 8}
    path.write_bytes(path.read_bytes().replace(b"8", b"9"))
    assert read_record(disk, path) is None
    assert adopt_record(disk, path, {"batch": 16}) == {"batch": 16}
    assert not write_record(disk, path, {"batch": 32}, replace=False)
    assert read_record(disk, path) == {"batch": 16}
