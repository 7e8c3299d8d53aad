"""The cache folder as everyone else sees it: the `Store`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from featx.errors import CacheError, CorruptFileError
from featx.files.atomic import adopt_record, read_record, write_record
from featx.files.disk import Disk, explained, make_folders, opened, remove
from featx.store.catalog import Catalog, RowsMovedError, missing_rows
from featx.store.hints import LEASE_SECONDS, Claims, HashMemo
from featx.store.publish import Publisher
from featx.store.segments import KEY_DIGITS, clean_name, segment_name, set_aside, write_segment
from featx.store.tables import Table, TableContent, use_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

logger = logging.getLogger("featx.store")

#: Bytes of ``X`` up to which a table is one file.
LIMIT = 4 << 30
_MARKER = ".featx"
_MARKER_TEXT = {"folder": "featx cache", "format": 1}
_MOST_ATTEMPTS = 5


def is_cache(folder: Path) -> bool:
    """Tell whether `folder` is marked as a cache of featx."""
    return (folder / _MARKER).is_file()


class Store:
    """Everything about the files of one cache folder.

    It knows keys, item ids, arrays and JSON, and nothing of images, recipes or networks. Rows are
    found by what they are of (`key`, item id), in whatever file they lie. `commit` may be called from
    several threads, the rest from one at a time; any number of processes may work on one folder.

    Parameters
    ----------
    root : Path
        The cache folder; made when something is first written.
    limit : int
        Bytes of ``X`` up to which a table is published as one file. Larger ones stay in segments.
    lease_seconds : float
        After so long a claim, or a temporary file, is taken for that of a dead process.
    disk : Disk
        The file system.

    Examples
    --------
    >>> import tempfile
    >>> store = Store(Path(tempfile.mkdtemp()))
    >>> items = np.arange(64, dtype=np.uint8).reshape(2, 32)
    >>> path = store.commit("ab12", items, np.float32([[1, 2], [3, 4]]))
    >>> store.find("ab12", items).tolist(), store.read("ab12", items[::-1]).tolist()
    ([True, True], [[3.0, 4.0], [1.0, 2.0]])
    """

    def __init__(
        self,
        root: str | Path,
        *,
        limit: int = LIMIT,
        lease_seconds: float = LEASE_SECONDS,
        disk: Disk | None = None,
    ) -> None:
        self.root = Path(root)
        self.limit = limit
        self.disk = disk or Disk()
        self.catalog = Catalog(self.disk, self.root)
        self.claims = Claims(self.disk, self.root, lease_seconds=lease_seconds)
        self._hashes = HashMemo(self.disk, self.root)
        self._is_ours = False

    # The folder

    def require_writable(self) -> None:
        """Make sure that the folder is a cache of ours and can be written, before any work is done.

        Raises
        ------
        CacheError
            If it holds other files, is of another format, or refuses to be written.
        """
        self._require_ours()
        probe = self.root / f".writable-{os.getpid()}.tmp"
        with explained("write in", self.root):
            with opened(self.disk, probe, os.O_WRONLY | os.O_CREAT):
                pass
            remove(self.disk, probe)

    def _require_ours(self) -> None:
        """Refuse a folder of other things or of another format; mark an empty one as a cache."""
        if self._is_ours:
            return
        marker = self.root / _MARKER
        known = read_record(self.disk, marker)
        if known is None:
            self._refuse_foreign()
            write_record(self.disk, marker, _MARKER_TEXT)
        elif known != _MARKER_TEXT:
            raise CacheError(
                f"{self.root} is a cache of format {known.get('format')}, this featx writes {_MARKER_TEXT['format']}. "
                "Name another folder: --cache DIR"
            )
        self._is_ours = True

    def _refuse_foreign(self) -> None:
        with explained("make", self.root):
            make_folders(self.disk, self.root)
        with explained("list", self.root):
            visible = [name for name in self.disk.list_folder(self.root) if not name.startswith(".")]
        if visible and not any(self.catalog.all_tables()):
            raise CacheError(
                f"{self.root} is not a cache of featx: it holds {visible[0]!r}. "
                "Name an empty or a new folder: --cache DIR, or FEATX_CACHE."
            )

    # Rows

    def find(self, key: str, item_ids: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        """Say which rows are there.

        Parameters
        ----------
        key : str
            Of the recipe.
        item_ids : ndarray of uint8, shape (n, 32)

        Returns
        -------
        ndarray of bool, shape (n,)
            A segment counts when all of it was verified in this process, a table when its header
            and item ids were. A damaged segment is set aside: its rows are missing.
        """
        return self.catalog.rows(key).positions(item_ids) >= 0

    def read(self, key: str, item_ids: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """Return rows (shape ``(n, …)``) in the order of `item_ids`, verified.

        Raises
        ------
        CacheError
            If any is not there.
        CorruptFileError
            If one lies in a damaged block.
        """
        for _ in range(_MOST_ATTEMPTS):
            rows = self.catalog.rows(key)
            positions = rows.positions(item_ids)
            if (positions < 0).any():
                raise missing_rows(key, int((positions < 0).sum()), len(positions))
            with contextlib.suppress(RowsMovedError):  # another process published, and dropped segments
                return rows.take(positions)
        raise CacheError("The cache changes too fast to be read. Run the same command again.")

    def known_errors(self, key: str, item_ids: npt.NDArray[np.uint8]) -> dict[int, str]:
        """Return the reasons of items that are known to give no row under `key`, by their index."""
        errors = self.catalog.rows(key).errors
        if not errors:
            return {}
        ids = (item.tobytes() for item in np.ascontiguousarray(item_ids))
        return {index: errors[item] for index, item in enumerate(ids) if item in errors}

    def commit(
        self,
        key: str,
        item_ids: npt.NDArray[np.uint8],
        X: npt.NDArray[Any],
        *,
        errors: Sequence[tuple[bytes, str]] = (),
    ) -> Path:
        """Keep rows for good, as one segment: after this returns, neither a kill nor a power cut loses them.

        Parameters
        ----------
        key : str
        item_ids : ndarray of uint8, shape (n, 32)
        X : ndarray of float32 or float16, shape (n, …)
        errors : sequence of (bytes, str)
            Item id and reason of items that give no row, and never will.

        Returns
        -------
        Path
            The segment. If it was there, and is sound, nothing is written.
        """
        return write_segment(self.disk, self.root, key, item_ids, X, errors)

    segment_name = staticmethod(segment_name)

    # Tables

    def table_path(self, dataset: str, stem: str, key: str) -> Path:
        """Return where the table of `key` for `dataset` is, or would be."""
        return self.root / clean_name(dataset) / f"{clean_name(stem)}-{key[:KEY_DIGITS]}.h5"

    def publish(self, dataset: str, stem: str, content: TableContent) -> Path:
        """Make the table ``<dataset>/<stem>-<key8>.h5`` of rows that are all in the cache.

        An older table of that name is replaced at once; rows that only it had are kept in segments.
        Segments whose rows are all in the table go. If the table already says the same, nothing is written.

        Raises
        ------
        CacheError
            If rows are missing.
        """
        path = self.table_path(dataset, stem, content.key)
        Publisher(self.disk, self.root, self.catalog, self.claims, self.limit).publish(path, content)
        return path

    def table(self, path: str | Path) -> Table:
        """Open a table, which counts as a use of it."""
        return use_table(Path(path), self.disk)

    def tables(self) -> Iterator[Table]:
        """Yield every table of the cache that can be read; the others are named in the log."""
        for path in self.catalog.all_tables():
            try:
                yield Table(path, self.disk)
            except CorruptFileError as error:
                logger.warning("%s See: featx cache verify", error)
            except CacheError as error:
                logger.warning("%s", error)

    def set_aside(self, key: str, item_ids: npt.NDArray[np.uint8] | None = None) -> None:
        """Put rows of `key` out of use, so that they are computed again. ``featx cache gc`` removes them.

        Parameters
        ----------
        key : str
        item_ids : ndarray of uint8, shape (n, 32), optional
            Only files that hold some of these items; without it all.
        """
        holdings = self.catalog.rows(key).holdings
        chosen = holdings if item_ids is None else [one for one in holdings if one.holds_some_of(item_ids)]
        segments = {one.path.stem for one in chosen}
        tables = [one.path for one in holdings if one.is_table and (one in chosen or segments & set(one.segments))]
        for path in [*tables, *(one.path for one in chosen if not one.is_table)]:
            set_aside(self.disk, path, f"{path}, as was asked for.")

    # Hints and records

    def claim(self, key: str, name: str) -> bool:
        """Say that this process works on `name`; False if another one said so less than a lease ago."""
        return self.claims.claim(key, name)

    def release(self, key: str, name: str) -> None:
        """Give a claim up."""
        self.claims.release(key, name)

    def plan(self, key: str, default: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the plan stored under `key`; where there is none, `default` becomes it (without one: empty)."""
        if default is None:
            return read_record(self.disk, self._plan_path(key)) or {}
        return adopt_record(self.disk, self._plan_path(key), json.loads(json.dumps(default)))

    def drop_plan(self, key: str) -> None:
        """Forget the plan stored under `key`."""
        remove(self.disk, self._plan_path(key))

    def _plan_path(self, key: str) -> Path:
        return self.root / ".plans" / f"{clean_name(key)}.json"

    def record(self, name: str) -> dict[str, Any] | None:
        """Return a metadata record, None if there is none that can be trusted."""
        return read_record(self.disk, self._record_path(name))

    def put_record(self, name: str, record: dict[str, Any]) -> None:
        """Keep a metadata record, in place of an older one of that name."""
        self._require_ours()
        write_record(self.disk, self._record_path(name), record)

    def drop_record(self, name: str) -> None:
        """Forget a metadata record."""
        remove(self.disk, self._record_path(name))

    def _record_path(self, name: str) -> Path:
        return self.root / ".notes" / f"{clean_name(name)[:100]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"

    def known_hashes(self, stamps: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        """Return the item id last seen behind each stamp (uint8, (n, 16) → (n, 32)) and which are known (bool)."""
        return self._hashes.known(stamps)

    def remember_hashes(self, stamps: npt.NDArray[np.uint8], item_ids: npt.NDArray[np.uint8]) -> None:
        """Remember the item id behind each stamp; a folder that cannot be written remembers nothing."""
        if len(stamps):
            with contextlib.suppress(CacheError):
                self._require_ours()
                self._hashes.remember(stamps, item_ids)
