"""One of several processes on one cache: ``python worker.py ROOT ROLE SEED N SEGMENT``, which prints JSON."""

import json
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from toy_rows import KEY, features, items, publish

from featx.features import Features
from featx.store import Store


def extract(store, ids, segment, seed, *, claimed=True):
    """Commit what is missing, segment by segment, then publish: an extractor without images."""
    segments = np.split(np.arange(len(ids)), range(segment, len(ids), segment))
    computed = 0
    while any(not store.find(KEY, ids[rows]).all() for rows in segments):
        for rows in segments:
            name = store.segment_name(ids[rows])
            if store.find(KEY, ids[rows]).all() or (claimed and not store.claim(KEY, name)):
                continue
            if not store.find(KEY, ids[rows]).all():
                time.sleep(0.002)
                store.commit(KEY, ids[rows], features(ids[rows]))
                computed += len(rows)
            store.release(KEY, name)
        time.sleep(0.01)
    publish(store, ids)
    return {"computed": computed}


def publish_parts(store, ids, segment, seed):
    """Publish other and other rows under one name, as runs over a changing folder would."""
    random = np.random.default_rng(seed)
    for _ in range(10):
        publish(store, ids[random.permutation(len(ids))[: random.integers(1, len(ids))]])
    return {}


def republish(store, ids, segment, seed):
    """Publish the table in one order and the other, until the readers have seen enough."""
    published = 0
    while len(list(store.root.glob(".seen-*"))) < 3:
        publish(store, ids[:: 1 if published % 2 else -1], y=np.full(len(ids), published % 2))
        published += 1
    return {"published": published}


def watch(store, ids, segment, seed):
    """Open and read the table again and again; its order, its labels and its rows must belong together."""
    path = next(store.catalog.all_tables())
    X, reads, wrong, versions, last = features(ids), 0, 0, 0, None
    random = np.random.default_rng(seed)
    try:
        while versions < 5:
            t = Features.open(path)
            version = int(np.array_equal(t.item_ids, ids))
            rows = random.integers(0, len(ids), 20)
            expected = X if version else X[::-1]
            wrong += not (np.array_equal(t[rows], expected[rows]) and np.array_equal(t.X, expected))
            wrong += not (t.y == version).all()
            versions, last, reads = versions + (version != last), version, reads + 1
    finally:
        (store.root / f".seen-{seed}").touch()  # or the writer would go on for ever
    return {"reads": reads, "wrong": wrong}


def fork(store, ids, segment, seed):
    t, X = Features.open(next(store.catalog.all_tables())), features(ids)
    assert t[5].shape == (5,)
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            random = np.random.default_rng(number)
            picks = [random.integers(0, len(ids), 30) for _ in range(100)]
            os._exit(0 if all(np.array_equal(t[rows], X[rows]) for rows in picks) else 1)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return {"children": len(codes), "right": codes.count(0)}


def few_descriptors(store, ids, segment, seed):
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    store = Store(store.root, limit=10)
    for start in range(0, len(ids), segment):
        store.commit(KEY, ids[start : start + segment], features(ids[start : start + segment]))
    large = Features.open(publish(store, ids))
    right = len(large._table.segments) == 300 and np.array_equal(large.X, features(ids))
    rows = np.random.default_rng(seed).permutation(len(ids))
    right &= np.array_equal(large[rows], features(ids)[rows])
    one_file = Features.open(publish(Store(store.root), ids, y=np.ones(len(ids), int)))
    return {"right": bool(right and np.array_equal(one_file.X, features(ids)))}


ROLES = {
    "few-descriptors": few_descriptors,
    "extract": extract,
    "extract-unclaimed": lambda *arguments: extract(*arguments, claimed=False),
    "publish": publish_parts,
    "republish": republish,
    "watch": watch,
    "fork": fork,
}

if __name__ == "__main__":
    root, role, seed, n, segment = sys.argv[1:]
    print(json.dumps(ROLES[role](Store(root), items(int(n)), int(segment), int(seed))))
