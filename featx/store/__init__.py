"""The cache folder: crash-safe, verified, content-addressed rows in ordinary HDF5 files.

::

    cache/
        <dataset>/<backbone>-<layer>-<pool>-<key8>.h5    published tables
        .segments/<key>/<name>.h5                        rows not yet in a table
        .claims/ .hashes/ .notes/ .plans/                hints; may be deleted at any time

From the bottom up: `disk` (file system calls), `layout` (HDF5 structures), `payload` (rows),
`container` (one sealed file), `segments` and `tables` (kinds of it), `content` (what a table says), `segmented` (rows
that lie in segments), `catalog` (which file holds a row), `publish` (from segments to tables), `store` (the `Store`),
`maintenance`.
"""

from featx.files import Disk
from featx.store.names import clean_name, segment_name
from featx.store.store import LIMIT, Store
from featx.store.tables import Table, use_table

__all__ = ["LIMIT", "Disk", "Store", "Table", "clean_name", "segment_name", "use_table"]
