"""FAULTS rows 6, 7 and 8: the disk is full, dawdles, fails, or may not be written."""

import errno
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from faulty_disks import CHANGES, READS, Dawdling, Watched, failing, mounted
from story import ITEMS, ROWS, check, check_ending, live
from toy_rows import KEY, features, items, publish

import featx
from featx.errors import CacheError, CorruptFileError, NoSpaceError, OptionError
from featx.features import Features
from featx.files.atomic import write_record
from featx.store import Disk, Store


def n_calls(root, calls):
    disk = Watched(calls=calls)
    live(Store(root, disk=disk))
    return disk.count


def test_row_06_no_space_at_each_write(folder):
    total = n_calls(folder / "oracle", ("write",))
    for step in range(total):
        root, acknowledged = folder / str(step), set()
        with pytest.raises(NoSpaceError, match=r"No space left.*featx cache gc.*same command again") as caught:
            live(Store(root, disk=failing(step, errno.ENOSPC, ("write",))), acknowledged)
        assert "\n" not in str(caught.value)
        assert list(root.rglob("*.tmp")) == []
        check(root, acknowledged)
        if step % 9 == 0:
            live(Store(root))
            check_ending(root)


def test_row_06_a_full_tmpfs_loses_nothing_and_goes_on_when_there_is_room(tmp_path):
    with mounted(tmp_path / "small", "size=2m") as root:
        ids = items(4000)
        rows = features(ids, d=128)  # 2 MB
        store = Store(root)

        def commit_from(first):
            for start in range(first, 4000, 200):
                store.commit(KEY, ids[start : start + 200], rows[start : start + 200])

        with pytest.raises(NoSpaceError, match="No space left"):
            commit_from(0)
        kept = int(Store(root).find(KEY, ids).sum())
        assert 1000 < kept < 4000
        assert kept % 200 == 0
        with pytest.raises(NoSpaceError, match="No space left"):
            publish(store, ids[:kept])
        assert np.array_equal(Store(root).read(KEY, ids[:kept]), rows[:kept])

        subprocess.run(["mount", "-o", "remount,size=20m", str(root)], check=True)
        commit_from(kept)
        assert np.array_equal(Features.open(publish(store, ids)).X, rows)


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE, errno.EACCES], ids=errno.errorcode.get)
@pytest.mark.parametrize("calls", [CHANGES, READS], ids=["changes", "reads"])
def test_row_07_any_failing_call_is_one_clear_line_or_does_no_harm(folder, code, calls):
    total, refusals = n_calls(folder / "oracle", calls), []
    for step in range(code % 12, total, 12):  # the codes fail different calls
        root, acknowledged = folder / str(step), set()
        try:
            live(Store(root, disk=failing(step, code, calls)), acknowledged)
        except CacheError as error:
            refusals.append(error)
        check(root, acknowledged)
        if step % 24 == code % 24:
            live(Store(root, lease_seconds=-1))  # what could not be released is taken over
            check_ending(root)
        shutil.rmtree(root, ignore_errors=True)

    assert len(refusals) > total / 36
    assert not any(isinstance(error, CorruptFileError) for error in refusals)
    assert all(os.strerror(code) in str(error) and "\n" not in str(error) for error in refusals)


def test_row_07_short_and_interrupted_reads_and_writes_are_finished(folder):
    for seed in range(2):
        disk = Dawdling(seed)
        live(Store(folder / str(seed), disk=disk))
        store = Store(folder / str(seed), disk=disk)
        assert np.array_equal(store.read(KEY, ITEMS), ROWS)
        check_ending(folder / str(seed))


def test_row_07_few_file_descriptors_are_enough(folder):
    """A table of 300 segments, written and read with ``ulimit -n 64``."""
    worker = Path(__file__).with_name("worker.py")
    command = [sys.executable, str(worker), str(folder), "few-descriptors", "0", "900", "3"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)

    assert result.stdout == '{"right": true}\n', result.stderr


def test_row_07_no_descriptor_left_is_said_plainly(tmp_path):
    script = """
        import os, resource, numpy as np, h5py
        from featx.errors import CacheError
        from featx.store import Store
        store = Store("cache")
        store.commit("ab", np.ones((1, 32), np.uint8), np.zeros((1, 2), np.float32))  # imports what it needs
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        held = []
        try:
            while True:
                held.append(os.open(".", os.O_RDONLY))
        except OSError:
            pass
        try:
            store.commit("ab", np.zeros((1, 32), np.uint8), np.zeros((1, 2), np.float32))
        except CacheError as error:
            print(error)
        os.close(held.pop()); os.close(held.pop())
        store.commit("ab", np.zeros((1, 32), np.uint8), np.zeros((1, 2), np.float32))
        print(store.find("ab", np.zeros((1, 32), np.uint8)))
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    lines = result.stdout.splitlines()

    assert "Too many open files" in lines[0], result.stderr
    assert "ulimit -n" in lines[0]
    assert lines[1] == "[ True]"


def test_row_08_a_read_only_file_system_is_refused_before_any_work(tmp_path):
    with mounted(tmp_path / "disk", "size=4m") as root:
        store, ids = Store(root / "cache"), items(4)
        store.require_writable()
        store.commit(KEY, ids, features(ids))
        path = publish(store, ids)
        subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)

        with pytest.raises(CacheError, match=r"Read-only file system.*--cache DIR"):
            Store(root / "cache").require_writable()
        with pytest.raises(CacheError, match=r"Read-only file system.*--cache DIR"):
            Store(root / "other").require_writable()
        assert np.array_equal(Features.open(path).X, features(ids))
        assert Store(root / "cache").find(KEY, ids).all()
        assert publish(Store(root / "cache"), ids) == path  # nothing is new, so nothing needs writing


def test_row_08_a_read_only_answer_from_the_system_is_refused_before_any_work(tmp_path):
    with pytest.raises(CacheError, match=r"Read-only file system.*--cache DIR"):
        Store(tmp_path, disk=failing(0, errno.EROFS, times=99)).require_writable()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become someone else")
def test_row_08_a_folder_of_someone_else_is_refused_before_any_work(folder):
    store, ids = Store(folder / "cache"), items(4)
    store.require_writable()
    store.commit(KEY, ids, features(ids))
    publish(store, ids)
    script = """
        import os, sys
        from pathlib import Path
        from featx.errors import CacheError
        from featx.features import Features
        from featx.store import Store
        import h5py
        os.setuid(65534)
        try:
            Store("cache").require_writable()
        except CacheError as error:
            print(error)
        print(Features.open(next(Path("cache").glob("*/*.h5"))).X.shape)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    lines = result.stdout.splitlines()

    assert "Permission denied" in lines[0], result.stderr
    assert "--cache DIR" in lines[0]
    assert lines[1] == "(4, 5)"


def test_row_08_a_folder_of_other_things_is_refused_before_any_work(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")

    with pytest.raises(CacheError, match=r"not a cache of featx.*--cache DIR"):
        Store(tmp_path).require_writable()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_row_08_a_cache_of_a_later_format_is_refused_before_any_work(tmp_path):
    write_record(Disk(), tmp_path / ".featx", {"folder": "featx cache", "format": 2})

    with pytest.raises(CacheError, match=r"is a cache of format 2, this featx writes 1"):
        Store(tmp_path).require_writable()


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("/proc/x", "takes no folders there"),
        ("a" * 300, "File name too long. File systems take 255 bytes a name: choose a shorter one"),
        ("file/cache", "Not a directory. Something in this path is a file"),
        ("dangling", "Not a directory. Something in this path is a file, or a link to nothing"),
    ],
)
def test_a_place_where_no_cache_can_be_says_why(tmp_path, place, why):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "x")
    with pytest.raises(CacheError, match=why) as refused:
        Store(tmp_path / place).require_writable()
    assert "run the same command again" not in str(refused.value)


def test_a_full_folder_for_temporary_files_is_named_where_a_network_cannot_be_converted(tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    how = {"backbone": "alexnet", "weights": "none", "image_size": 64, "workers": 0, "cache": tmp_path / "cache"}
    with mounted(tmp_path / "small", "size=100k") as small:
        monkeypatch.setattr("tempfile.tempdir", str(small))
        full = f"openvino cannot convert .*{small} is full: make room, or name another folder by TMPDIR"
        with pytest.raises(OptionError, match=full):
            featx.extract(images, engine="openvino", **how)
    monkeypatch.setattr("tempfile.tempdir", None)
    assert len(featx.extract(images, engine="openvino", **how)) == 3
