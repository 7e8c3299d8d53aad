"""FAULTS rows 15 and 16 as far as the store goes: rows belong to contents, not to names, places or orders."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_rows import KEY, features, items, publish

from featx.store import Store, Table

POOL = items(30)


def test_row_15_what_is_hashed_again_corrects_what_was_remembered(tmp_path):
    """An image edited in place, size and times kept, has the old stamp; ``--rehash`` reads it and says so."""
    stamps, ids = items(3, seed=5)[:, :16], items(4)
    Store(tmp_path).remember_hashes(stamps, ids[:3])
    Store(tmp_path).remember_hashes(stamps[1:2], ids[3:])

    found, known = Store(tmp_path).known_hashes(stamps)
    assert known.all()
    assert np.array_equal(found, ids[[0, 3, 2]])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 29), min_size=1, max_size=40), min_size=1, max_size=4))
def test_row_16_any_history_of_a_folder_computes_each_content_once(tmp_path_factory, versions):
    """Images renamed, moved, reordered, duplicated, relabelled, deleted and added, in any order."""
    store, computed = Store(tmp_path_factory.mktemp("cache")), []
    for version, rows in enumerate(versions):
        missing = np.unique(np.array(rows)[~store.find(KEY, POOL[rows])])
        if len(missing):
            store.commit(KEY, POOL[missing], features(POOL[missing]))
        computed.extend(missing.tolist())
        labels = np.array([(row + version) % 2 for row in rows])
        table = Table(publish(store, POOL[rows], ids=[f"{version}/{i}" for i in range(len(rows))], y=labels))

        assert np.array_equal(table.rows.read(0, len(rows)), features(POOL[rows]))
        assert np.array_equal(table.y, labels)

    assert sorted(computed) == sorted({row for rows in versions for row in rows})
