"""FAULTS rows 4 and 6 to 8 as a user meets them: one clear line, nothing lost, the same command goes on."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faulty_disks import mounted
from tiny_network import album, rows_by_content, run

from featx.cli import main
from featx.features import Features
from featx.store import Store

HERE = Path(__file__).parent
NETWORK = ["--backbone", "tiny_network:tiny", "--backbone-version", "1", "--weights", "none", "--engine", "eager"]
HOW = ["--batch-size", "4", "--workers", "1"]


def command(photos, cache):
    return [sys.executable, "-m", "featx", "extract", str(photos), "--cache", str(cache), *NETWORK, *HOW, "--json"]


def environment():
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE)])}


@pytest.fixture
def extract(capsys):
    """Run the command in this process; return its exit status, its JSON and stderr."""

    def extract(photos, cache):
        code = main(command(photos, cache)[3:])
        told = capsys.readouterr()
        return code, json.loads(told.out), told.err

    return extract


def remount(folder, *options):
    subprocess.run(["mount", "-o", f"remount,{','.join(options)}", str(folder)], check=True)


def segmented(cache, key):
    """Plan many small segments, so that a run may be struck between two of them."""
    store = Store(cache)
    store.require_writable()
    store.plan(key, {"engine": "eager", "batch_size": 4, "segment_rows": 8})
    return store


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_row_04_a_signal_ends_the_run_in_5_seconds_and_leaves_no_partial_segment(tmp_path, start, sign):
    photos, cache = album(tmp_path / "photos", 800), tmp_path / "cache"
    oracle = run(photos, tmp_path / "oracle").tables[0]
    store = segmented(cache, oracle.key)
    process = start(command(photos, cache), env=environment())
    segments, deadline = cache / ".segments" / oracle.key, time.monotonic() + 60
    while not (segments.exists() and len(list(segments.glob("*.h5"))) > 2) and time.monotonic() < deadline:
        time.sleep(0.005)
    struck = time.monotonic()
    process.send_signal(sign)
    stdout, stderr = process.communicate(timeout=30)

    assert time.monotonic() - struck < 5
    assert process.returncode == 130, stderr
    assert "kept" in stdout + stderr
    assert "Traceback" not in stderr
    assert not list(cache.rglob("*.tmp"))
    kept = int(store.find(oracle.key, oracle.item_ids).sum())
    assert 16 < kept < 800
    assert kept % 8 == 0
    again = run(photos, cache)
    assert again.computed == 800 - kept
    assert rows_by_content(again.tables[0]) == rows_by_content(oracle)


#: A command whose destructor is where the signal lands. In a process of its own, as a command is.
DESTRUCT = """
import signal, sys, time
import click
from featx import cli

class Struck:
    def __del__(self):
        signal.raise_signal(int(sys.argv[1]))

@click.command
def destruct():
    Struck()
    time.sleep(2)

sys.setswitchinterval(1e-6)  # as on a busy machine
cli._COMMANDS["destruct"] = ("__main__", "")
codes = {cli.main(["destruct"]) for _ in range(50)}
sys.exit(codes.pop() if len(codes) == 1 else f"Exit statuses: {codes}")
"""


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_row_04_a_signal_that_lands_in_a_destructor_ends_the_run_all_the_same(start, sign):
    process = start([sys.executable, "-c", DESTRUCT, str(int(sign))])
    _, stderr = process.communicate(timeout=60)

    assert process.returncode == 130, stderr
    assert "kept" in stderr
    assert "Traceback" not in stderr


def test_row_06_a_full_disk_is_one_clear_line_and_the_same_command_goes_on(tmp_path, extract):
    photos = album(tmp_path / "photos", 300)
    oracle = rows_by_content(run(photos, tmp_path / "oracle").tables[0])
    with mounted(tmp_path / "disk", "size=120k") as disk:
        code, answer, stderr = extract(photos, disk / "cache")
        message = answer["error"]["message"]

        assert (code, answer["error"]["type"]) == (1, "NoSpaceError")
        assert "No space left" in message
        assert "\n" not in message
        assert "Traceback" not in stderr
        assert not list(disk.rglob("*.tmp"))
        remount(disk, "size=4m")
        code, answer, _ = extract(photos, disk / "cache")
        assert (code, answer["computed"]) == (0, 0)
        assert rows_by_content(Features.open(answer["tables"][0]["path"])) == oracle


def test_row_07_64_descriptors_are_enough_for_an_extraction(tmp_path, start):
    photos = album(tmp_path / "photos", 300)
    oracle = run(photos, tmp_path / "oracle").tables[0]
    segmented(tmp_path / "cache", oracle.key)

    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    process = start(command(photos, tmp_path / "cache"), env=environment(), preexec_fn=few)
    stdout, stderr = process.communicate(timeout=60)

    assert process.returncode == 0, stderr
    answer = json.loads(stdout)
    assert answer["computed"] == 300
    assert rows_by_content(Features.open(answer["tables"][0]["path"])) == rows_by_content(oracle)


def test_row_08_a_folder_of_other_things_is_refused_and_nothing_is_written_there(tmp_path, extract):
    photos, thesis = album(tmp_path / "photos"), tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "thesis.tex").write_text("precious")

    for source in (photos, "digits"):
        code, answer, stderr = extract(source, thesis)
        assert code == 1
        assert "thesis is not a cache of featx: it holds 'thesis.tex'" in answer["error"]["message"]
        assert "Traceback" not in stderr
    assert [path.name for path in thesis.iterdir()] == ["thesis.tex"]


def test_row_08_a_read_only_cache_is_refused_before_any_work_and_still_gives_what_it_has(tmp_path, extract):
    photos = album(tmp_path / "photos")
    with mounted(tmp_path / "disk", "size=4m") as disk:
        first = run(photos, disk / "cache")
        run(photos, disk / "cache", dtype="float16")
        remount(disk, "ro")

        again = run(photos, disk / "cache")
        assert again.computed == 0
        assert again.tables[0].path == first.tables[0].path
        assert ["does not know of this one" in note for note in again.notes] == [True]
        assert run(photos, disk / "cache", dtype="float16").notes == []  # that is the one which is known
        for path in photos.rglob("*.png"):
            path.touch()  # what was remembered of the file is void
        assert run(photos, disk / "cache").computed == 0
        code, answer, stderr = extract(album(tmp_path / "photos", 13), disk / "cache")
        assert code == 1
        assert "Read-only file system" in answer["error"]["message"]
        assert "--cache DIR" in answer["error"]["message"]
        assert "Traceback" not in stderr
