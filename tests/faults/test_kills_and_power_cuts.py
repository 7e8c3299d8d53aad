"""FAULTS rows 1 to 4 and 10: a process dies, or the power goes, at any moment."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faulty_disks import Forgetful, KilledError, Linkless, Watched, dying
from story import check, check_ending, live

from featx.store import Store
from featx.store.maintenance import collect

LIMITS = pytest.mark.parametrize("limit", [1 << 30, 100], ids=["one file", "segments"])


def at_each_step(folder, limit, make_disk, leave, *, go_on_each):
    """Tell the story once; before each call of the system, look at what is there if that call never comes.

    `leave(disk, root, target, number)` writes what is left to `target`, where any row that was
    acknowledged so far must be found, and where the story is told again now and then.
    """
    root, acknowledged = folder / "cache", set()
    root.mkdir()

    def before(number, name):
        target = folder / str(number)
        leave(disk, root, target, number)
        check(target, acknowledged)
        if number % go_on_each == 0:
            live(Store(target, limit=limit, lease_seconds=-1))
            check_ending(target)
        shutil.rmtree(target)

    disk = make_disk(root, before)
    live(Store(root, limit=limit, disk=disk), acknowledged)
    assert disk.count > 100
    check_ending(root)


def copied(_disk, root, target, _number):
    shutil.copytree(root, target)


@LIMITS
def test_row_02_killed_at_each_step_of_commit_and_publish(folder, limit):
    at_each_step(folder, limit, lambda _, before: Watched(before), copied, go_on_each=7)


def test_row_02_killed_at_each_step_without_hard_links(folder):
    class WatchedLinkless(Linkless, Watched):
        pass

    at_each_step(folder, 1 << 30, lambda _, before: WatchedLinkless(before), copied, go_on_each=20)


@LIMITS
def test_row_03_power_cut_at_each_step(folder, limit):
    def cut_power(disk, _root, target, number):
        disk.cut_power(target, seed=number)

    at_each_step(folder, limit, Forgetful, cut_power, go_on_each=10)


def test_row_01_kill_minus_9_at_random_times(tmp_path):
    """The short loop; examples/soak_cache.py is the long one."""
    script = Path(__file__).parents[2] / "examples" / "soak_cache.py"
    command = [sys.executable, str(script), "--kills", "16", "--seed", "1", "--json", "--folder", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["kills"] >= 16
    assert report["kills_in_mid_work"] >= 8
    assert report["unreadable"] == report["lost"] == report["wrong"] == 0


def test_row_04_ctrl_c_leaves_no_partial_segment(folder):
    """A signal raises somewhere in a commit: what is not finished is taken away again."""
    for step in range(80):  # folders are made, segments committed, a table published
        root = folder / str(step)

        def interrupt(number, name, step=step):
            if number == step:
                raise KeyboardInterrupt

        acknowledged = set()
        with pytest.raises(KeyboardInterrupt):
            live(Store(root, disk=Watched(interrupt)), acknowledged)
        check(root, acknowledged)
        assert list(root.rglob("*.tmp")) == []


def test_row_10_stale_temporary_files_are_ignored_and_collected_after_a_lease(tmp_path):
    calls = []
    live(Store(tmp_path / "oracle", disk=Watched(lambda number, name: calls.append(name))))
    with pytest.raises(KilledError):
        live(Store(tmp_path / "cache", disk=dying(calls.index("link"))))
    (leftover,) = (tmp_path / "cache").rglob("*.tmp")
    live(Store(tmp_path / "cache"))
    check_ending(tmp_path / "cache")

    assert leftover not in [one.path for one in collect(Store(tmp_path / "cache"))]
    then = time.time() - 10_000
    os.utime(leftover, (then, then))
    assert leftover in [one.path for one in collect(Store(tmp_path / "cache"))]
    assert not leftover.exists()
    check_ending(tmp_path / "cache")
