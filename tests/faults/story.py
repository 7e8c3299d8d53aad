"""A cache lives through commits and publications; after any fault it must hold only truth, and go on.

Rows, labels and names all follow from the item ids, so that a lost, invented or misjoined row shows.
"""

import numpy as np
from toy_rows import KEY, features, items

from featx.store import Store, TableContent

N = 16
ITEMS = items(N)
ROWS = features(ITEMS)
BAD = bytes(range(32))

#: What happens: rows that are committed, or tables that are published (dataset, rows, labels add this).
STORY = [
    ("commit", range(5), []),
    ("commit", range(5, 9), [(BAD, "cut off")]),
    ("publish", "pets", range(9), 0),
    ("commit", range(9, 14), []),
    ("publish", "pets", range(13, -1, -1), 0),
    ("publish", "pets", range(13, -1, -1), 1),
    ("publish", "zoo", [3, 1, 3, 12], 0),
    ("publish", "pets", [2, 4], 0),
    ("commit", range(12, 16), []),
]


def live(store, acknowledged=None):
    """Tell the story to `store`; `acknowledged` gets each row when its commit has returned."""
    acknowledged = set() if acknowledged is None else acknowledged
    for kind, *details in STORY:
        if kind == "commit":
            rows, errors = list(details[0]), details[1]
            store.commit(KEY, ITEMS[rows], ROWS[rows], errors=errors)
            acknowledged.update(rows)
        else:
            dataset, rows, shift = details
            publish_rows(store, dataset, list(rows), shift)


def publish_rows(store, dataset, rows, shift=0):
    errors = [("bad.jpg", "cut off")] if len(rows) > 8 else []
    content = TableContent(
        key=KEY,
        recipe="{}",
        request="{}",
        ids=[name_of(ITEMS[row]) for row in rows],
        item_ids=ITEMS[rows],
        y=[(label_of(ITEMS[row]) + shift) % 2 for row in rows],
        classes=("cat", "dog"),
        splits=["train"] * len(rows),
        errors=errors,
        error_item_ids=np.frombuffer(BAD * len(errors), np.uint8).reshape(-1, 32),
        provenance={"shift": shift},
    )
    return store.publish(dataset, "toy", content)


def name_of(item):
    return item.tobytes().hex()


def label_of(item):
    return int(item[0]) % 2


def check(root, acknowledged=(), *, lost=False):
    """Whatever happened: every acknowledged row is there, and nothing untrue is."""
    store = Store(root)
    found = store.find(KEY, ITEMS)
    if not lost:
        assert found[sorted(acknowledged)].all()
    assert not found.any() or np.array_equal(store.read(KEY, ITEMS[found]), ROWS[found])
    assert not store.find(KEY, items(5, seed=77)).any()
    for table in store.tables():
        check_table(table)


def check_table(table):
    """All that a table says is true."""
    table.verify()
    known = {name_of(item): number for number, item in enumerate(ITEMS)}
    rows = [known[name] for name in table.ids]
    shift = table.provenance["shift"]
    assert np.array_equal(table.rows.read(0, len(rows)), ROWS[rows])
    assert np.array_equal(table.item_ids, ITEMS[rows])
    assert table.y.tolist() == [(label_of(ITEMS[row]) + shift) % 2 for row in rows]


def check_ending(root):
    """The story was told to its end: exactly what it would be without any fault."""
    check(root, range(N))
    tables = {table.path.parent.name: table for table in Store(root).tables()}
    assert sorted(tables) == ["pets", "zoo"]
    assert tables["pets"].ids.tolist() == [name_of(ITEMS[row]) for row in [2, 4]]
    assert tables["zoo"].ids.tolist() == [name_of(ITEMS[row]) for row in [3, 1, 3, 12]]
