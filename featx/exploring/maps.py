"""Where rows lie on a plane: by principal components, by what a head says of them, or by UMAP."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featx.features import Features

    Floats = NDArray[np.float32]

#: Rows that principal components are of, and rows beyond which UMAP places the others by their nearest of these.
_SAMPLE, _MOST_UMAP = 3000, 30_000
#: Share of rows on either side that may lie beyond the frame.
_BEYOND = 0.002


def principal(table: Features) -> Floats:
    """Return two principal components of unit rows, (n, 2), framed to −1 … 1."""
    some = np.sort(np.random.default_rng(0).permutation(len(table))[:_SAMPLE])
    X = _unit(table[some])
    mean = X.mean(axis=0)
    X -= mean
    axes = _leading(X)
    found = np.empty((len(table), 2), np.float32)
    for where, block in table.blocks(16 << 20, in_place=True):
        rows = np.asarray(block.reshape(len(block), -1), np.float32)
        lengths = np.maximum(np.linalg.norm(rows, axis=1), 1e-30)
        found[where] = (rows @ axes) / lengths[:, None] - mean @ axes
    return framed(found)


def by_scores(scores: Floats) -> Floats:
    """Return two principal components of a head's scores (n, k), framed."""
    X = np.where(np.isfinite(scores), scores, 0).astype(np.float32)
    X -= X.mean(axis=0)
    if X.shape[1] < 2:
        return np.zeros((len(X), 2), np.float32)
    return framed(X @ _leading(X[:: max(1, len(X) // 20_000)]))


def has_umap() -> bool:
    """Say whether UMAP is installed."""
    return find_spec("umap") is not None


def umap(table: Features) -> Floats:
    """Return UMAP's place of each row, (n, 2), framed; of more than 30,000 rows, others lie beside their nearest."""
    library = import_module("umap")  # without types, and rarely there
    rng = np.random.default_rng(0)
    some = np.sort(rng.permutation(len(table))[:_MOST_UMAP])
    reducer: Any = library.UMAP(n_neighbors=15, min_dist=0.1, metric="cosine", random_state=0, n_jobs=1)
    found = np.empty((len(table), 2), np.float32)
    found[some] = reducer.fit_transform(_unit(table[some]))
    others = np.setdiff1d(np.arange(len(table)), some)
    for at in range(0, len(others), 4096):
        found[others[at : at + 4096]] = reducer.transform(_unit(table[others[at : at + 4096]]))
    return framed(found)


def framed(places: Floats) -> Floats:
    """Return places moved and stretched alike on both axes, so that nearly all lie in −1 … 1.

    Examples
    --------
    >>> framed(np.array([[0.0, 0.0], [4.0, 2.0]])).tolist()
    [[-1.0, -0.5], [1.0, 0.5]]
    """
    low, high = np.quantile(places, [_BEYOND, 1 - _BEYOND], axis=0) if len(places) > 500 else (
        places.min(axis=0), places.max(axis=0))  # fmt: skip
    return np.asarray((places - (low + high) / 2) / max(float((high - low).max()) / 2, 1e-30), np.float32)


def curve_order(places: Floats) -> NDArray[np.intp]:
    """Return rows in the order of Morton's curve through the plane: neighbours there are mostly neighbours here."""
    cells = (np.clip((places + 1) / 2, 0, 1) * 65535).astype(np.uint64)
    x, y = (_spread(cells[:, axis]) for axis in (0, 1))
    return np.argsort(x | (y << np.uint64(1)), kind="stable")


def _spread(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
        values = (values | (values << np.uint64(shift))) & np.uint64(mask)
    return values


def _leading(X: Floats) -> Floats:
    """Return the two leading right singular vectors of centred rows, (d, 2), by a few steps of subspace iteration."""
    basis = np.random.default_rng(0).standard_normal((X.shape[1], min(12, *X.shape))).astype(np.float32)
    for _ in range(8):
        basis = np.linalg.qr(X.T @ (X @ basis))[0]
    vectors = np.linalg.svd(X @ basis, full_matrices=False)[2]
    axes = basis @ vectors[:2].T
    axes = np.pad(axes, ((0, 0), (0, 2 - axes.shape[1])))
    return np.asarray(axes * np.where(axes.sum(axis=0) < 0, -1, 1), np.float32)


def _unit(rows: Any) -> Floats:
    X = np.asarray(rows.reshape(len(rows), -1), np.float32)
    return np.asarray(X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-30), np.float32)
