"""FAULTS rows 9, 11 and 25: many processes write, publish and read one cache."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from faulty_disks import Watched
from toy_rows import KEY, features, items, publish, segment_files

from featx.features import Features
from featx.store import Store

HERE = Path(__file__).parent
N, SEGMENT = 400, 10


def run_all(root, roles):
    """Run one process for each of the roles of `worker.py`, and return what they printed."""
    commands = [[sys.executable, str(HERE / "worker.py"), str(root), *map(str, role)] for role in roles]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for command in commands
    ]
    told = [process.communicate(timeout=240) for process in processes]
    assert [complaints for _, complaints in told] == [""] * len(roles)
    return [json.loads(output) for output, _ in told]


@pytest.mark.parametrize("n_writers", [2, 16])
def test_row_09_many_extractors_on_one_cache(tmp_path, n_writers):
    results = run_all(tmp_path, [("extract", seed, N, SEGMENT) for seed in range(n_writers)])

    computed = sum(result["computed"] for result in results)
    (table,) = Store(tmp_path).tables()
    assert N <= computed <= 1.05 * N
    assert len(table) == N
    assert np.array_equal(table.rows.read(0, N), features(items(N)))
    assert segment_files(Store(tmp_path)) == []


def test_row_09_without_claims_the_result_is_the_same(tmp_path):
    """Claims are hints: eight writers that ignore them write the same rows eight times, and every row is once in the table."""
    results = run_all(tmp_path, [("extract-unclaimed", seed, 120, SEGMENT) for seed in range(8)])

    (table,) = Store(tmp_path).tables()
    assert sum(result["computed"] for result in results) > 120
    assert np.array_equal(table.item_ids, items(120))
    assert np.array_equal(table.rows.read(0, 120), features(items(120)))


def test_row_09_publishers_of_different_tables_lose_no_rows(tmp_path):
    store, ids = Store(tmp_path), items(N)
    for start in range(0, N, SEGMENT):
        store.commit(KEY, ids[start : start + SEGMENT], features(ids[start : start + SEGMENT]))
    run_all(tmp_path, [("publish", seed, N, SEGMENT) for seed in range(4)])

    after = Store(tmp_path)
    assert after.find(KEY, ids).all()
    assert np.array_equal(after.read(KEY, ids), features(ids))


@pytest.mark.parametrize("moving", ["from segments into a table", "from a table into segments"])
def test_row_09_rows_that_another_process_moves_are_never_missing(tmp_path, moving):
    """Between any two looks at the folder, another process publishes, which moves rows from file to file."""
    ids = items(20)

    def prepare(root):
        store = Store(root)
        for start in range(0, 20, 5):
            store.commit(KEY, ids[start : start + 5], features(ids[start : start + 5]))
        if moving == "from a table into segments":
            publish(store, ids)
        return root

    def looks(root, step):
        def publish_meanwhile(number, name):
            if number == step:
                publish(Store(root), ids if moving == "from segments into a table" else ids[:3])

        return Watched(publish_meanwhile, calls=("list_folder", "stat", "open"))

    disk = looks(prepare(tmp_path / "still"), -1)
    assert Store(tmp_path / "still", disk=disk).find(KEY, ids).all()
    for step in range(disk.count):
        root = prepare(tmp_path / str(step))
        store = Store(root, disk=looks(root, step))
        assert store.find(KEY, ids).all()
        assert np.array_equal(store.read(KEY, ids), features(ids))


def test_row_11_readers_see_the_old_table_or_the_new_one(tmp_path):
    store, ids = Store(tmp_path), items(N)
    store.commit(KEY, ids, features(ids))
    publish(store, ids, y=np.ones(N, int))
    writer, *readers = run_all(
        tmp_path, [("republish", 0, N, SEGMENT), *[("watch", seed, N, SEGMENT) for seed in range(3)]]
    )

    assert writer["published"] >= 4  # with the one that was there, the five that each reader waits for
    assert [reader["wrong"] for reader in readers] == [0, 0, 0]


@pytest.mark.parametrize("limit", [1 << 30, 10], ids=["one file", "segments"])
def test_row_25_workers_that_fork_after_open_read_correct_rows(tmp_path, limit):
    """As DataLoader does: the parent opens and reads, forked and spawned workers go on with the same reader."""
    store, ids = Store(tmp_path, limit=limit), items(N)
    for start in range(0, N, 40):
        store.commit(KEY, ids[start : start + 40], features(ids[start : start + 40]))
    path = publish(store, ids)
    (result,) = run_all(tmp_path, [("fork", 0, N, SEGMENT)])

    assert result == {"children": 4, "right": 4}
    t = pickle.loads(pickle.dumps(Features.open(path)))
    assert np.array_equal(t.X, features(ids))
