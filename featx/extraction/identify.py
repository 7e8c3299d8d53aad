"""Which image is which: the content hash of every row of a dataset."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from featx.datasets import item_id
from featx.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from featx.datasets import Dataset
    from featx.store import Store


@dataclass
class Identity:
    """Content hashes of a dataset's rows.

    Attributes
    ----------
    item_ids : ndarray of uint8, shape (n, 32)
        SHA-256 of each row's bytes; zeros where the bytes could not be read.
    unreadable : dict of int to ImageError
        Rows without bytes, by position.
    """

    item_ids: np.ndarray
    unreadable: dict[int, ImageError] = field(default_factory=dict)

    @property
    def readable(self) -> np.ndarray:
        """Rows whose bytes could be read, bool of shape (n,)."""
        mask = np.ones(len(self.item_ids), dtype=bool)
        mask[list(self.unreadable)] = False
        return mask


def identify(
    dataset: Dataset,
    store: Store,
    *,
    rehash: bool = False,
    on_progress: Callable[[int, int, float], None] | None = None,
) -> Identity:
    """Hash every row of `dataset` that the cache's memo of file stamps does not know yet.

    Parameters
    ----------
    dataset : Dataset
        Rows to identify.
    store : Store
        Keeps the memo ``(path, size, mtime, inode) → hash``.
    rehash : bool
        Read every byte again. Needed only where a file was edited with its size and times kept.
    on_progress : callable, optional
        Called with (hashed so far, to hash, seconds) after each row.
    """
    stamps = dataset.stamps()
    identity = Identity(np.zeros((len(dataset), 32), dtype=np.uint8))
    known = np.zeros(len(dataset), dtype=bool)
    if stamps is not None and not rehash:
        identity.item_ids, known = store.known_hashes(stamps)
    unknown, started = np.flatnonzero(~known), time.perf_counter()
    for done, (index, data) in enumerate(dataset.iterate(unknown), start=1):
        if isinstance(data, ImageError):
            identity.unreadable[index] = data
        else:
            identity.item_ids[index] = np.frombuffer(item_id(data), dtype=np.uint8)
        if on_progress is not None:
            on_progress(done, len(unknown), time.perf_counter() - started)
    if stamps is not None and len(unknown):
        learned = unknown[identity.readable[unknown]]
        store.remember_hashes(stamps[learned], identity.item_ids[learned])
    return identity
