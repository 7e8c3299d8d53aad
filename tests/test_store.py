"""The cache folder: rows go in by key and content, and come out the same, wherever they lie."""

import errno
import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
from toy_rows import KEY, features, items, publish, segment_files

from featx.errors import CacheError, CorruptFileError, DataError
from featx.store import Disk, Store, Table


def test_committed_rows_are_found_and_read_in_any_order(tmp_path):
    store, ids = Store(tmp_path), items(10)
    store.commit(KEY, ids[:6], features(ids[:6]))

    assert Store(tmp_path).find(KEY, ids).tolist() == [True] * 6 + [False] * 4
    order = np.array([3, 0, 5, 3])
    assert np.array_equal(Store(tmp_path).read(KEY, ids[order]), features(ids[order]))


def test_rows_of_another_key_are_not_found(tmp_path):
    store, ids = Store(tmp_path), items(3)
    store.commit(KEY, ids, features(ids))

    assert not store.find("f" * 64, ids).any()


def test_missing_rows_are_an_error_that_counts_them(tmp_path):
    store, ids = Store(tmp_path), items(4)
    store.commit(KEY, ids[:1], features(ids[:1]))

    with pytest.raises(CacheError, match="3 of 4 rows"):
        store.read(KEY, ids)


def test_a_segment_is_named_after_its_items_in_any_order(tmp_path):
    store, ids = Store(tmp_path), items(4)
    path = store.commit(KEY, ids, features(ids))

    assert store.commit(KEY, ids[::-1], features(ids[::-1])) == path
    assert path.stem == store.segment_name(ids)
    assert segment_files(store) == [path]


def test_errors_travel_with_segments_and_tables(tmp_path):
    store, ids = Store(tmp_path), items(3)
    store.commit(KEY, ids[:2], features(ids[:2]), errors=[(ids[2].tobytes(), "cut off")])
    assert store.known_errors(KEY, ids) == {2: "cut off"}

    path = publish(store, ids[:2], errors=[("c.jpg", "cut off")], error_item_ids=ids[2:])

    assert Store(tmp_path).known_errors(KEY, ids) == {2: "cut off"}
    assert store.table(path).errors == [("c.jpg", "cut off")]
    assert not segment_files(store)


def test_a_published_table_holds_what_was_given_and_its_segments_go(tmp_path):
    store, ids = Store(tmp_path), items(7)
    store.commit(KEY, ids[:4], features(ids[:4]))
    store.commit(KEY, ids[4:], features(ids[4:]))
    path = publish(store, ids, probe={"pixels": np.arange(3)}, provenance={"host": "here"})

    table = store.table(path)
    assert np.array_equal(table.rows.read(0, 7), features(ids))
    assert np.array_equal(table.item_ids, ids)
    assert table.ids.tolist() == [f"{i}.jpg" for i in range(7)]
    assert table.classes == ("cat", "dog")
    assert table.provenance == {"host": "here"}
    assert table.probe["pixels"].tolist() == [0, 1, 2]
    assert not segment_files(store)
    assert path == tmp_path / "photos-12345678" / "toy-last-avg-01234567.h5"


def test_any_h5py_reads_a_table(tmp_path):
    store, ids = Store(tmp_path), items(7)
    store.commit(KEY, ids, features(ids))
    path = publish(store, ids, errors=[("ü.jpg", "empty file")], splits=["train"] * 6 + ["test"])

    with h5py.File(path) as file:
        assert np.array_equal(file["X"][:], features(ids))
        assert file["X"].chunks is None
        assert file["y"].dtype == np.int64
        assert file["ids"].asstr()[0] == "0.jpg"
        assert file["classes"].asstr()[:].tolist() == ["cat", "dog"]
        assert file["split"].asstr()[6] == "test"
        assert file["item_id"].shape == (7, 32)
        assert [(row["id"].decode(), row["reason"].decode()) for row in file["errors"]] == [("ü.jpg", "empty file")]
        assert json.loads(file.attrs["recipe"]) == {"backbone": "toy"}
        assert file.attrs["key"] == KEY
        assert file.attrs["format"] == 1


def test_rows_of_any_table_of_the_key_are_reused(tmp_path):
    store, ids = Store(tmp_path), items(6)
    store.commit(KEY, ids, features(ids))
    publish(store, ids, dataset="one")

    other = publish(Store(tmp_path), ids[[4, 1, 4]], dataset="two")

    assert np.array_equal(Table(other).rows.read(0, 3), features(ids[[4, 1, 4]]))


def test_a_grown_table_takes_old_rows_from_itself_and_new_ones_from_segments(tmp_path):
    store, ids = Store(tmp_path), items(6)
    store.commit(KEY, ids[:4], features(ids[:4]))
    publish(store, ids[:4])
    store.commit(KEY, ids[4:], features(ids[4:]))
    path = publish(store, ids[::-1])

    assert np.array_equal(Table(path).rows.read(0, 6), features(ids[::-1]))
    assert not segment_files(store)


def test_a_shrunk_table_keeps_the_rows_that_left_it(tmp_path):
    store, ids = Store(tmp_path), items(6)
    store.commit(KEY, ids, features(ids))
    publish(store, ids)
    publish(store, ids[:2])

    again = Store(tmp_path)
    assert again.find(KEY, ids).all()
    assert np.array_equal(again.read(KEY, ids), features(ids))


def test_publishing_the_same_again_writes_nothing(tmp_path):
    store, ids = Store(tmp_path), items(3)
    store.commit(KEY, ids, features(ids))
    path = publish(store, ids)
    before = path.stat()
    publish(Store(tmp_path), ids)

    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_new_labels_make_a_new_table_of_the_same_rows(tmp_path):
    store, ids = Store(tmp_path), items(3)
    store.commit(KEY, ids, features(ids))
    publish(store, ids)
    path = publish(store, ids, y=np.array([1, 1, 1]))

    assert Table(path).y.tolist() == [1, 1, 1]
    assert np.array_equal(Table(path).rows.read(0, 3), features(ids))


def test_a_table_over_the_limit_stays_in_segments_and_reads_alike(tmp_path):
    store, ids = Store(tmp_path, limit=100), items(9)
    store.commit(KEY, ids[:5], features(ids[:5]))
    store.commit(KEY, ids[5:], features(ids[5:]))
    path = publish(store, ids[::-1])

    table = Table(path)
    assert table.shape == (9, 5)
    assert np.array_equal(table.rows.read(0, 9), features(ids[::-1]))
    assert len(segment_files(store)) == 2
    table.verify()


def test_a_table_that_grows_past_the_limit_moves_its_rows_into_segments(tmp_path):
    store, ids = Store(tmp_path), items(9)
    store.commit(KEY, ids[:5], features(ids[:5]))
    publish(store, ids[:5])
    small = Store(tmp_path, limit=100)
    small.commit(KEY, ids[5:], features(ids[5:]))
    path = publish(small, ids)

    assert Table(path).segments
    assert np.array_equal(Table(path).rows.take(np.array([8, 0])), features(ids[[8, 0]]))


def test_a_segmented_table_becomes_one_file_under_a_higher_limit(tmp_path):
    store, ids = Store(tmp_path, limit=100), items(9)
    store.commit(KEY, ids, features(ids))
    publish(store, ids)
    path = publish(Store(tmp_path), ids, y=np.zeros(9, int))

    assert not Table(path).segments
    assert np.array_equal(Table(path).rows.read(0, 9), features(ids))
    assert not segment_files(store)


def test_a_damaged_segment_is_set_aside_and_its_rows_are_missing(tmp_path, caplog):
    store, ids = Store(tmp_path), items(8)
    good = store.commit(KEY, ids[:4], features(ids[:4]))
    bad = store.commit(KEY, ids[4:], features(ids[4:]))
    data = bytearray(bad.read_bytes())
    data[-3] ^= 4
    bad.write_bytes(data)

    fresh = Store(tmp_path)
    assert fresh.find(KEY, ids).tolist() == [True] * 4 + [False] * 4
    assert bad.name in caplog.text
    assert segment_files(store) == [good]

    fresh.commit(KEY, ids[4:], features(ids[4:]))
    assert np.array_equal(fresh.read(KEY, ids), features(ids))


def test_a_damaged_segment_is_replaced_by_the_next_writer_of_its_rows(tmp_path):
    store, ids = Store(tmp_path), items(4)
    path = store.commit(KEY, ids, features(ids))
    path.write_bytes(path.read_bytes()[:-1])
    store.commit(KEY, ids, features(ids))

    assert np.array_equal(store.read(KEY, ids), features(ids))


def test_a_damaged_table_names_its_rows_and_the_command_that_repairs_it(tmp_path):
    store, ids = Store(tmp_path), items(4)
    store.commit(KEY, ids, features(ids))
    path = publish(store, ids)
    with h5py.File(path) as file:
        offset = file["X"].id.get_offset()
    data = bytearray(path.read_bytes())
    data[offset + 3] ^= 4
    path.write_bytes(data)

    with pytest.raises(CorruptFileError, match=r"rows 0 to 3.*featx cache verify --repair"):
        Table(path).rows.read(0, 1)


def test_a_segmented_table_that_lost_a_segment_is_mended_by_its_rows(tmp_path):
    store, ids = Store(tmp_path, limit=100), items(9)
    store.commit(KEY, ids[:5], features(ids[:5]))
    lost = store.commit(KEY, ids[5:], features(ids[5:]))
    publish(store, ids)
    lost.unlink()

    fresh = Store(tmp_path, limit=100)
    assert fresh.find(KEY, ids).sum() == 5
    fresh.commit(KEY, ids[5:7], features(ids[5:7]))
    fresh.commit(KEY, ids[7:], features(ids[7:]))
    assert np.array_equal(Table(publish(fresh, ids)).rows.read(0, 9), features(ids))


@pytest.mark.parametrize(
    "change",
    [{"y": np.array([0, 2])}, {"y": np.array([0, -2])}, {"y": np.array([0])}, {"ids": ["a"]}, {"splits": [""] * 3}],
)
def test_columns_that_do_not_fit_are_refused(tmp_path, change):
    store, ids = Store(tmp_path), items(2)
    store.commit(KEY, ids, features(ids))

    with pytest.raises(DataError):
        publish(store, ids, **change)


def test_a_segment_under_another_key_is_not_believed(tmp_path):
    store, ids = Store(tmp_path), items(4)
    path = store.commit(KEY, ids, features(ids))
    other = path.parent.with_name("f" * 64) / path.name
    other.parent.mkdir()
    other.write_bytes(path.read_bytes())

    assert not store.find("f" * 64, ids).any()


def test_notes_come_back_and_damage_reads_as_none(tmp_path):
    store = Store(tmp_path)
    store.put_record("last used/tables", {"a": [1, 2]})
    assert Store(tmp_path).record("last used/tables") == {"a": [1, 2]}

    path = next((tmp_path / ".notes").iterdir())
    for position in range(len(path.read_bytes())):
        data = bytearray(path.read_bytes())
        data[position] ^= 1 << position % 8
        path.write_bytes(data)
        assert store.record("last used/tables") is None
        data[position] ^= 1 << position % 8
        path.write_bytes(data)


def test_the_first_plan_is_adopted(tmp_path):
    store = Store(tmp_path)
    assert store.plan(KEY, {"batch": 32}) == {"batch": 32}
    assert Store(tmp_path).plan(KEY, {"batch": 64}) == {"batch": 32}

    store.drop_plan(KEY)
    assert store.plan(KEY, {"batch": 64}) == {"batch": 64}


def test_claims_expire_and_can_be_released(tmp_path):
    store = Store(tmp_path)
    assert store.claim(KEY, "a")
    assert not Store(tmp_path).claim(KEY, "a")
    assert Store(tmp_path, lease_seconds=-1).claim(KEY, "a")

    store.release(KEY, "a")
    assert Store(tmp_path).claim(KEY, "a")


def test_a_claim_that_the_disk_would_not_release_does_not_stop_its_owner(tmp_path):
    class Stubborn(Disk):
        stuck = True

        def unlink(self, path):
            if self.stuck:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            super().unlink(path)

    disk = Stubborn()
    store = Store(tmp_path, disk=disk)
    disk.stuck = False
    assert store.claim(KEY, "a")
    disk.stuck = True
    store.release(KEY, "a")
    disk.stuck = False

    assert not Store(tmp_path).claim(KEY, "a")
    assert store.claim(KEY, "a")


def test_the_claim_of_a_dead_process_is_over(tmp_path):
    code = f"from featx.store import Store; assert Store({str(tmp_path)!r}).claim({KEY!r}, 'a')"
    subprocess.run([sys.executable, "-c", code], check=True)

    assert Store(tmp_path).claim(KEY, "a")
    assert not Store(tmp_path).claim(KEY, "a")


def test_hashes_are_remembered_and_the_latest_counts(tmp_path):
    stamps, ids = items(5, seed=2)[:, :16], items(5)
    store = Store(tmp_path)
    store.remember_hashes(stamps[:4], ids[:4])
    store.remember_hashes(stamps[:1], ids[4:])
    for _ in range(9):
        store.remember_hashes(stamps[1:2], ids[1:2])

    found, known = Store(tmp_path).known_hashes(stamps)
    assert known.tolist() == [True, True, True, True, False]
    assert np.array_equal(found[:4], ids[[4, 1, 2, 3]])
    assert len(list((tmp_path / ".hashes").iterdir())) < 9


def test_damaged_hashes_are_ignored(tmp_path):
    store = Store(tmp_path)
    store.remember_hashes(items(5, seed=2)[:, :16], items(5))
    path = next((tmp_path / ".hashes").iterdir())
    path.write_bytes(path.read_bytes()[:-5])

    assert not Store(tmp_path).known_hashes(items(5, seed=2)[:, :16])[1].any()


def test_a_folder_of_other_things_is_refused(tmp_path):
    (tmp_path / "holiday.jpg").write_text("")

    with pytest.raises(CacheError, match=r"not a cache of featx: it holds 'holiday.jpg'.*--cache"):
        Store(tmp_path).require_writable()


def test_a_new_folder_is_made_and_stays_writable(tmp_path):
    Store(tmp_path / "a" / "cache").require_writable()
    Store(tmp_path / "a" / "cache").require_writable()

    assert (tmp_path / "a" / "cache" / ".featx").is_file()


def test_rows_that_are_set_aside_are_missing(tmp_path):
    store, ids = Store(tmp_path), items(6)
    store.commit(KEY, ids[:4], features(ids[:4]))
    publish(store, ids[:4])
    store.commit(KEY, ids[4:], features(ids[4:]))
    store.set_aside(KEY)

    assert not store.find(KEY, ids).any()
    assert not Store(tmp_path).find(KEY, ids).any()


def test_no_plan_is_an_empty_plan(tmp_path):
    assert Store(tmp_path).plan(KEY) == {}


def test_a_dropped_note_is_gone(tmp_path):
    store = Store(tmp_path)
    store.put_record("probe", {"a": 1})
    store.drop_record("probe")
    store.drop_record("probe")

    assert store.record("probe") is None


def test_digests_that_begin_alike_are_found_as_fast_as_others():
    """Stamps of the rows of one file share their first half: a search by prefix would compare each with all."""
    from featx.store.catalog import DigestIndex

    stamps = np.zeros((20_000, 2), np.uint64)
    stamps[:, 1] = np.arange(20_000)
    index = DigestIndex(stamps.view(np.uint8))

    assert len(np.unique(index._sorted)) == 20_000
    np.testing.assert_array_equal(index.positions(stamps.view(np.uint8)), np.arange(20_000))
