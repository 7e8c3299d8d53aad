"""Fit heads on a table of ten times their memory limit, in a process whose peak memory is watched. A script.

    python tests/streamed_fits.py FOLDER

Prints, as JSON, for each head its peak in bytes above what the libraries take once each has been used, and how far
from a fit of the whole table it ends. The peak is the kernel's, so pages of memory maps count.
"""

import ctypes
import gc
import json
import sys
from pathlib import Path

import numpy as np
import toy_rows
from sklearn.base import clone

from featx.features import Features
from featx.heads import (
    CentroidHead,
    DenseHead,
    KNNHead,
    LogisticHead,
    LogisticHeadCV,
    RidgeHead,
    XGBoostHead,
)
from featx.heads.solver import NUMPY
from featx.store import Store

#: Bytes, and values a row. Of the wide rows a matrix of second moments takes a quarter of the limit.
LIMIT, WIDE_LIMIT = 32 << 20, 28 << 20
WIDTH, WIDE = 512, 1280


def make_table(folder, limit, d):
    """Publish a table of ten times the limit: four overlapping classes of rows of `d` values."""
    at_once, rng = (1 << 23) // d, np.random.default_rng(0)
    n = 10 * limit // (4 * d)
    store, item_ids, y = Store(folder), toy_rows.items(n), rng.integers(0, 4, n)
    centres = 0.15 * rng.standard_normal((4, d), dtype=np.float32)
    noise = rng.standard_normal((at_once, d), dtype=np.float32)
    for start in range(0, n, at_once):
        labels = y[start : start + at_once]
        X = noise[rng.permutation(at_once)[: len(labels)]] + centres[labels]
        store.commit(toy_rows.KEY, item_ids[start : start + at_once], X)
    return toy_rows.publish(store, item_ids, y=y, classes=tuple("abcd"), recipe="", request="")


def peak():
    """The most memory that was resident since the last `forget_peak`, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10


def forget_peak():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what the allocator keeps of the last fit is not this one's
    Path("/proc/self/clear_refs").write_text("5")


def by_objective(streamed, whole, table):
    return abs(streamed.objective_ / whole.objective_ - 1)


def by(name):
    def compare(streamed, whole, table):
        ours, theirs = getattr(streamed, name), getattr(whole, name)
        return float(np.abs(ours - theirs).max() / np.abs(theirs).max())

    return compare


def by_loss(streamed, whole, table):
    """Networks and trees see rows in another order, and end elsewhere, but no worse."""
    X, y = table[:20_000], table.y[:20_000]
    losses = [-np.log(head.predict_proba(X)[np.arange(len(y)), y]).mean() for head in (streamed, whole)]
    return float(losses[0] / losses[1] - 1)


def by_neighbours(streamed, whole, table):
    X = table[:1000]
    return float(np.abs(streamed.kneighbors(X)[0] - whole.kneighbors(X)[0]).max())


HEADS = {
    "trees": (XGBoostHead(3, components=8, random_state=0), by_loss),
    "logistic": (LogisticHead(C=1e-4), by_objective),
    "path": (LogisticHeadCV((1e-5, 1e-4), cv=5, tol=1e-4, random_state=0), by_objective),
    "ridge": (RidgeHead((1.0, 100.0)), by("coef_")),
    "centroid": (CentroidHead(), by("centroids_")),
    "neighbours": (KNNHead(5), by_neighbours),
    "dense": (DenseHead(32, epochs=1, random_state=0), by_loss),
}


def fit_under(limit, head, table, baseline):
    """Return the limit, and how many bytes more than the baseline were resident at a time."""
    forget_peak()
    head.fit(table, memory=limit)
    if isinstance(head, KNNHead):
        head.predict(table[:100])
    return {"limit": limit, "peak": peak() - baseline}


def main(folder):
    table = Features.open(make_table(folder / "cache", LIMIT, WIDTH))
    some = table.select(np.arange(NUMPY // WIDTH + 1))  # too many for the solver of small tables
    for head, _ in HEADS.values():  # libraries import and allocate more when they are first used
        clone(head).fit(some, memory=LIMIT).predict(some[:500])
    forget_peak()
    baseline = peak()
    found = {name: fit_under(LIMIT, head, table, baseline) for name, (head, _) in HEADS.items()}
    wide_table, wide = Features.open(make_table(folder / "wide", WIDE_LIMIT, WIDE)), clone(HEADS["ridge"][0])
    forget_peak()
    found["wide ridge"] = fit_under(WIDE_LIMIT, wide, wide_table, peak())
    for name, head, compare, rows in [
        *((name, head, compare, table) for name, (head, compare) in HEADS.items()),
        ("wide ridge", wide, by("coef_"), wide_table),
    ]:
        found[name]["difference"] = compare(head, clone(head).fit(rows), rows)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
