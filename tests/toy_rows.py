"""Rows that follow from their items, so that a lost, invented or misjoined one shows."""

import json

import numpy as np

from featx.store import TableContent

KEY = "0123456789abcdef" * 4


def items(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 32), dtype=np.uint8)


def features(item_ids, d=5, dtype=np.float32):
    """Rows that follow from the items, so that a misjoined row shows."""
    weights = np.random.default_rng(1).normal(size=(32, d))
    return (item_ids.astype(float) @ weights).astype(dtype)


def publish(store, item_ids, *, dataset="photos-12345678", y=None, **changes):
    n = len(item_ids)
    arguments = {
        "key": KEY,
        "recipe": json.dumps({"backbone": "toy"}),
        "request": "{}",
        "ids": [f"{i}.jpg" for i in range(n)],
        "item_ids": item_ids,
        "y": np.arange(n) % 2 if y is None else y,
        "classes": ("cat", "dog"),
        "splits": ["train"] * n,
    }
    return store.publish(dataset, "toy-last-avg", TableContent(**(arguments | changes)))


def segment_files(store):
    return sorted((store.root / ".segments").rglob("*.h5"))
