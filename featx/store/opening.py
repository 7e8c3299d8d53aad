"""Which cache folder is meant, and which of its tables a command without TABLE takes."""

from __future__ import annotations

import os
from pathlib import Path

from featx.settings import parse_bytes
from featx.store.store import LIMIT, Store

#: Name of the record that remembers which tables were made or found last.
LAST_USED = "last-used"


def open_store(cache: str | Path | None = None) -> Store:
    """Open the cache folder: `cache`, else ``FEATX_CACHE``, else ``./cache``.

    Tables larger than ``FEATX_TABLE_LIMIT`` (as ``64GiB``; 4 GiB without it) stay in segments.
    """
    limit = os.environ.get("FEATX_TABLE_LIMIT")
    return Store(Path(cache or os.environ.get("FEATX_CACHE") or "cache"), limit=parse_bytes(limit) if limit else LIMIT)


def note_last_used(store: Store, paths: list[Path]) -> bool:
    """Remember the tables that a command without TABLE takes; False where the cache cannot be written."""
    try:
        store.put_record(LAST_USED, {"tables": [str(path.relative_to(store.root)) for path in paths]})
    except OSError:
        return False
    return True


def last_used(store: Store) -> list[Path]:
    """Return the tables that were made or found last and are still there."""
    names = (store.record(LAST_USED) or {"tables": []})["tables"]
    return [store.root / name for name in names if (store.root / name).exists()]
