"""Looking after a cache folder: listing, verifying, repairing, collecting, removing."""

import json
import os
import shutil

import h5py
import numpy as np
import pytest
from toy_rows import KEY, features, items, publish, segment_files

from featx.errors import CacheError, MissingDataError
from featx.store import Store, Table
from featx.store.maintenance import collect, entries, reclaimable, remove_table, verify


def table_of(store, item_ids, **changes):
    store.commit(KEY, item_ids, features(item_ids))
    return publish(store, item_ids, **changes)


def flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def flip_in_row(path, row):
    with h5py.File(path) as file:
        X = file["X"]
        offset = X.id.get_offset() + row * X.dtype.itemsize * int(np.prod(X.shape[1:]))
    flip(path, offset)


def age(path, seconds):
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def test_entries_name_tables_and_unfinished_rows(tmp_path):
    store, ids = Store(tmp_path), items(9)
    path = table_of(store, ids[:6], errors=[("x.jpg", "empty")])
    store.commit(KEY, ids[6:], features(ids[6:]))

    table, unfinished = entries(Store(tmp_path))
    assert (table.kind, table.path, table.dataset, table.shape) == ("table", path, "photos-12345678", (6, 5))
    assert (table.key, table.dtype, table.n_errors) == (KEY, "float32", 1)
    assert table.n_bytes == path.stat().st_size
    assert json.loads(table.recipe) == {"backbone": "toy"}
    assert (unfinished.kind, unfinished.key, unfinished.shape) == ("unfinished", KEY, (3,))


def test_a_segmented_table_counts_its_segments(tmp_path):
    store, ids = Store(tmp_path, limit=10), items(6)
    path = table_of(store, ids)

    (entry,) = entries(store)
    assert entry.n_bytes == path.stat().st_size + segment_files(store)[0].stat().st_size


def test_use_of_a_table_is_noted(tmp_path):
    store = Store(tmp_path)
    path = table_of(store, items(3))
    age(path, 10_000)
    before = path.stat().st_mtime
    store.table(path)

    (entry,) = entries(store)
    assert entry.created == before
    assert entry.used > before + 9_000


def test_verify_passes_sound_files_and_reports_their_bytes(tmp_path):
    store, ids = Store(tmp_path), items(6)
    table_of(store, ids[:4])
    store.commit(KEY, ids[4:], features(ids[4:]))
    seen = []

    verdicts = list(verify(store, on_bytes=seen.append))

    assert [verdict.problem for verdict in verdicts] == [None, None]
    assert 0 < sum(seen) <= sum(verdict.n_bytes for verdict in verdicts)


def test_repair_saves_the_rows_of_sound_blocks(tmp_path):
    store, ids = Store(tmp_path), items(300)
    wide = np.repeat(features(ids), 64, axis=1)  # 51 rows in a block
    store.commit(KEY, ids, wide)
    path = publish(store, ids)
    flip_in_row(path, 60)

    (verdict,) = verify(Store(tmp_path), repair=True)

    assert "rows 51 to 101" in verdict.problem
    assert verdict.n_rescued == 249
    after = Store(tmp_path)
    assert np.flatnonzero(~after.find(KEY, ids)).tolist() == list(range(51, 102))
    assert np.array_equal(after.read(KEY, ids[102:]), wide[102:])
    assert not path.exists()

    after.commit(KEY, ids[51:102], wide[51:102])
    assert np.array_equal(Table(publish(after, ids)).rows.read(0, 300), wide)


def test_verify_without_repair_changes_nothing(tmp_path):
    store = Store(tmp_path)
    path = table_of(store, items(4))
    flip_in_row(path, 1)

    (verdict,) = verify(store)
    assert verdict.problem
    assert verdict.n_rescued == 0
    assert path.exists()


def test_verify_names_a_file_that_shows_h5py_something_else(tmp_path):
    """A file sealed by someone who means harm: every digest right, and a link where ``y`` should be."""
    store = Store(tmp_path)
    path = table_of(store, items(4))
    with h5py.File(path, "r+") as file:
        del file["y"]
        file["y"] = h5py.ExternalLink("/etc/hostname", "/y")
    reseal(path)

    (verdict,) = verify(store)
    assert "shows h5py something else" in verdict.problem


def reseal(path):
    """Write the user block of `path` anew, with digests that are right for what the file holds now."""
    from featx.store.container import _PREAMBLE, _seal, extent_from_json
    from featx.store.hdf5 import gaps_between
    from featx.store.rows import digest

    data = path.read_bytes()
    user_block = _PREAMBLE.unpack(data[: _PREAMBLE.size])[1]
    header = json.loads(data[_PREAMBLE.size : user_block].rstrip(b"\0"))
    extents = {name: extent_from_json(extent) for name, extent in header["arrays"].items()}
    gaps = gaps_between(extents, user_block, len(data))
    header |= {"size": len(data), "gaps": digest(b"".join(data[start:stop] for start, stop in gaps)).hex()}
    path.write_bytes(_seal(header, user_block) + data[user_block:])


def test_collect_takes_stale_temporary_files_and_expired_claims_only(tmp_path):
    store, ids = Store(tmp_path), items(4)
    table_of(store, ids)
    store.claim(KEY, "fresh")
    store.claim(KEY, "old")
    age(store.claims.path(KEY, "old"), 3_000)
    for name, seconds in (("fresh", 100), ("old", 30_000)):
        path = tmp_path / "photos-12345678" / f".{name}.h5.abc.tmp"
        path.write_bytes(b"half")
        age(path, seconds)

    removed = collect(store)

    assert sorted(one.path.name for one in removed) == [".old.h5.abc.tmp", "old"]
    assert not any(one.path.exists() for one in removed)
    assert store.find(KEY, ids).all()


def test_collect_takes_segments_that_a_table_made_superfluous(tmp_path):
    store, ids = Store(tmp_path), items(4)
    table_of(store, ids)
    late = store.commit(KEY, ids[:2], features(ids[:2]))  # by a worker that did not see the table
    damaged = late.with_name("x.h5.aside")
    damaged.write_bytes(b"bad")

    assert {one.path for one in collect(store)} == {late, damaged}


def test_unfinished_rows_go_only_when_asked(tmp_path):
    store, ids = Store(tmp_path), items(4)
    path = store.commit(KEY, ids, features(ids))

    assert collect(store) == []
    assert [one.path for one in collect(store, orphans=True)] == [path]


def test_collect_down_to_a_size_takes_what_was_used_longest_ago(tmp_path):
    store, ids = Store(tmp_path), items(12)
    old = table_of(store, ids[:4], dataset="old")
    middle = table_of(store, ids[4:8], dataset="middle")
    fresh = table_of(store, ids[8:], dataset="fresh")
    for seconds, path in ((300, old), (200, middle), (100, fresh)):
        age(path, seconds)
    store.table(old)
    size = fresh.stat().st_size

    assert [one.path for one in reclaimable(store, max_size=2 * size)] == [middle]
    collect(store, max_size=size)
    assert [entry.path for entry in entries(store)] == [old]


def test_removing_a_table_removes_the_segments_that_only_it_needs(tmp_path):
    store, ids = Store(tmp_path, limit=10), items(6)
    store.commit(KEY, ids[:3], features(ids[:3]))
    store.commit(KEY, ids[3:], features(ids[3:]))
    one = publish(store, ids[:3], dataset="one")
    both = publish(store, ids, dataset="both")

    remove_table(store, both)

    assert store.find(KEY, ids).tolist() == [True] * 3 + [False] * 3
    assert np.array_equal(Table(one).rows.read(0, 3), features(ids[:3]))


def test_only_tables_of_the_cache_are_removed(tmp_path):
    store = Store(tmp_path / "cache")
    stranger = tmp_path / "thesis.h5"
    stranger.write_text("precious")

    with pytest.raises(CacheError, match="not a table of the cache"):
        remove_table(store, stranger)
    with pytest.raises(MissingDataError, match="featx cache list"):
        remove_table(store, tmp_path / "cache" / "a" / "b.h5")
    assert stranger.exists()


def test_tables_that_call_each_other_views_go_together(tmp_path):
    store, ids = Store(tmp_path), items(3)
    store.commit(KEY, ids, features(ids))
    one = publish(store, ids, dataset="photos", views=[f"toy-last-avg-{KEY[:8]}.h5"])
    other = one.with_name("other.h5")
    shutil.copy(one, other)
    publish(store, ids, dataset="photos", views=["other.h5", "other.h5"])
    n_bytes = one.stat().st_size + other.stat().st_size

    assert remove_table(store, one) == n_bytes
    assert list(one.parent.iterdir()) == []
