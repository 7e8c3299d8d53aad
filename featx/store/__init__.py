"""The cache folder: crash-safe, verified, content-addressed rows in ordinary HDF5 files.

::

    cache/
        <dataset>/<backbone>-<layer>-<pool>-<key8>.h5    published tables
        .segments/<key>/<name>.h5                        rows not yet in a table
        .claims/ .hashes/ .notes/ .plans/                hints; may be deleted at any time

From the bottom up: `hdf5` (how HDF5 lays out a file), `rows` (readers of ``X``), `container` (one sealed file, and the
readers of its formats), `segments` and `tables` (kinds of it), `catalog` (which file holds a row), `hints` (claims and
remembered hashes), `publish` (from segments to tables), `store` (the `Store`), `maintenance`.

It works on Linux and macOS: it reads and writes by ``preadv`` and ``pwrite``, and syncs folders, which others cannot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx.importing import later

if TYPE_CHECKING:
    from featx.files import Disk
    from featx.store.segments import clean_name, segment_name
    from featx.store.store import LIMIT, Store, is_cache
    from featx.store.tables import Table, TableContent, use_table

__all__ = [
    "LIMIT",
    "Disk",
    "Store",
    "Table",
    "TableContent",
    "clean_name",
    "is_cache",
    "segment_name",
    "use_table",
]

if not TYPE_CHECKING:  # for a type checker a name that is not above is an error
    __getattr__ = later(
        __name__,
        {
            "featx.files": "Disk",
            "featx.store.segments": "clean_name segment_name",
            "featx.store.store": "LIMIT Store is_cache",
            "featx.store.tables": "Table TableContent use_table",
        },
    )
