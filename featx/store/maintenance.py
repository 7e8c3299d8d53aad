"""Looking after a cache folder: what is in it, whether it is sound, and what can go.

Nothing but `collect` and `remove_table` ever drops rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from featx.errors import CacheError, CorruptFileError, MissingDataError
from featx.files.disk import TEMPORARY, remove
from featx.store.catalog import Holding
from featx.store.container import Sealed
from featx.store.hdf5 import Inspector
from featx.store.hints import CLAIMS
from featx.store.publish import covered_segments, rescue
from featx.store.segments import ASIDE, list_files, list_segments, segment_path, set_aside
from featx.store.segments import FOLDER as SEGMENTS
from featx.store.store import Store
from featx.store.tables import Table

#: A temporary file that was not written to for so many leases is nobody's.
_TEMPORARY_LEASES = 6

OnBytes = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of ``featx cache list``.

    Attributes
    ----------
    kind : {"table", "unfinished", "damaged", "unreadable"}
        ``unfinished``: the segments of one key that are in no table. ``unreadable``: nobody knows, as with a file of
        a newer featx.
    path : Path
        File, or folder of segments.
    dataset, name : str
        Folder and stem of a table's file.
    key, recipe : str
        Key of the rows and JSON of what made them, where known.
    shape : tuple of int
        Of ``X``.
    dtype : str
    n_bytes : int
        On disk, with the segments that a table needs.
    created, used : float
        Seconds since the epoch.
    n_errors : int
        Images that could not be read.
    problem : str
        Why a file is unreadable.
    """

    kind: str
    path: Path
    dataset: str = ""
    name: str = ""
    key: str = ""
    recipe: str = ""
    shape: tuple[int, ...] = ()
    dtype: str = ""
    n_bytes: int = 0
    created: float = 0.0
    used: float = 0.0
    n_errors: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Verdict:
    """What was found out about one file.

    Attributes
    ----------
    path : Path
    n_bytes : int
    kind : {"sound", "damaged", "unreadable"}
        ``sound``: every byte is as it was written. ``unreadable``: nobody knows, as with a file of a newer featx.
    problem : str or None
        What is wrong with it.
    n_rescued : int
        Rows that a repair copied out of it.
    """

    path: Path
    n_bytes: int
    kind: str = "sound"
    problem: str | None = None
    n_rescued: int = 0


@dataclass(frozen=True)
class Reclaimable:
    """A file that can go, and why."""

    path: Path
    n_bytes: int
    reason: str


def entries(store: Store) -> list[Entry]:
    """List the tables of the cache, the rows that are in none, and the damaged files."""
    found = [_table_entry(store, path) for path in store.catalog.all_tables()]
    unfinished, named = [_unfinished_entry(store, key) for key in _keys(store)], {entry.problem for entry in found}
    return found + [one for one in unfinished if one.n_bytes or (one.problem and one.problem not in named)]


def _table_entry(store: Store, path: Path) -> Entry:
    status = store.disk.stat(path)
    used = max(status.st_atime, status.st_mtime)
    entry = Entry(
        kind="damaged",
        path=path,
        dataset=path.parent.name,
        name=path.stem,
        n_bytes=status.st_size,
        created=status.st_mtime,
        used=used,
    )
    try:
        table = Table(path, store.disk)
    except CorruptFileError:
        return entry
    except CacheError as error:
        return replace(entry, kind="unreadable", problem=str(error))
    segments = [segment_path(store.root, table.key, name) for name in table.segments]
    return replace(
        entry,
        kind="table",
        key=table.key,
        recipe=table.recipe,
        shape=table.shape,
        dtype=str(table.dtype),
        n_bytes=table.n_bytes + total_bytes(store, segments),
        n_errors=len(table.error_item_ids),
    )


def _unfinished_entry(store: Store, key: str) -> Entry:
    path = store.root / SEGMENTS / key
    try:
        loose = [(holding, store.disk.stat(holding.path)) for holding in _loose_segments(store, key)]
    except CacheError as error:
        return Entry(kind="unreadable", path=path, key=key, problem=str(error))
    changed = max((status.st_mtime for _, status in loose), default=0.0)
    return Entry(
        kind="unfinished",
        path=path,
        key=key,
        shape=(sum(len(holding.item_ids) for holding, _ in loose),),
        n_bytes=sum(status.st_size for _, status in loose),
        created=changed,
        used=changed,
    )


def _keys(store: Store) -> list[str]:
    return [path.name for path in list_files(store.disk, store.root / SEGMENTS, suffix="")]


def _loose_segments(store: Store, key: str) -> list[Holding]:
    """Return the sound segments of `key` that no segmented table needs."""
    held = store.catalog.rows(key)
    needed = {name for holding in held.holdings for name in holding.segments}
    return [holding for holding in held.holdings if not holding.is_table and holding.path.stem not in needed]


def _size(store: Store, path: Path) -> int:
    try:
        return store.disk.stat(path).st_size
    except FileNotFoundError:
        return 0


def sealed_files(store: Store) -> list[Path]:
    """Return every table and segment: what `verify` reads."""
    segments = [path for key in _keys(store) for path in list_segments(store.disk, store.root, key)]
    return [*store.catalog.all_tables(), *segments]


def total_bytes(store: Store, paths: Iterable[Path] | None = None) -> int:
    """Return the bytes that `paths` take on disk, by default everything below the cache folder."""
    return sum(_size(store, path) for path in (_files_below(store, store.root) if paths is None else paths))


def verify(store: Store, *, on_bytes: OnBytes | None = None, repair: bool = False) -> Iterator[Verdict]:
    """Check every byte of every table and segment, and that h5py sees what featx reads.

    Parameters
    ----------
    store : Store
    on_bytes : callable, optional
        Gets the bytes that were checked since the last call.
    repair : bool
        Set damaged files aside; sound rows of a damaged table are first copied into segments, so
        that the next ``featx extract`` computes only the others.
    """
    with Inspector() as inspector:
        for path in sealed_files(store):
            n_bytes = _size(store, path)
            try:
                file = Sealed.open(store.disk, path)
                file.verify(on_bytes)
                file.check_structure(inspector)
            except FileNotFoundError:
                continue  # published, and gone, in the meantime
            except CorruptFileError as error:
                n_rescued = _repair(store, path, str(error)) if repair else 0
                yield Verdict(path, n_bytes, "damaged", str(error), n_rescued)
            except CacheError as error:
                yield Verdict(path, n_bytes, "unreadable", str(error))
            else:
                yield Verdict(path, n_bytes)


def _repair(store: Store, path: Path, problem: str) -> int:
    n_rescued = 0
    try:
        table = Table(path, store.disk)
        if not table.segments:
            n_rescued = rescue(store.disk, store.root, table, np.arange(len(table)))
    except CorruptFileError:
        pass  # it cannot be told any more whose rows these are
    set_aside(store.disk, path, problem)
    return n_rescued


def reclaimable(store: Store, *, orphans: bool = False, max_size: int | None = None) -> list[Reclaimable]:
    """Say what `collect` would remove.

    Parameters
    ----------
    store : Store
    orphans : bool
        Also rows that are in no table: work of runs that did not finish.
    max_size : int, optional
        Bytes that the folder may have: orphans go, oldest first, then the tables used longest ago.
    """
    superfluous = sorted(set(_superfluous(store)))
    loose = [held.path for key in _keys(store) for held in _loose_segments(store, key) if held.path not in superfluous]
    loose.sort(key=lambda path: store.disk.stat(path).st_mtime)
    found = [*_rubbish(store), *(_reclaimable(store, path, "its rows are in a table") for path in superfluous)]
    unfinished = [_reclaimable(store, path, "rows of an unfinished run") for path in loose]
    if orphans:
        found, unfinished = found + unfinished, []
    if max_size is not None:
        excess = total_bytes(store) - sum(one.n_bytes for one in found) - max_size
        for one in [*unfinished, *_tables_by_use(store)]:
            if excess <= 0:
                break
            found.append(one)
            excess -= one.n_bytes
    return found


def collect(store: Store, *, orphans: bool = False, max_size: int | None = None) -> list[Reclaimable]:
    """Remove what nobody needs, and return it; see `reclaimable`."""
    removed = reclaimable(store, orphans=orphans, max_size=max_size)
    remove_tables(store, [one.path for one in removed if one.reason.startswith("used")])
    for one in removed:
        remove(store.disk, one.path)
    return removed


def remove_tables(store: Store, paths: Iterable[Path]) -> int:
    """Remove several tables as `remove_table` does; views that are named themselves may be gone with their table.

    Nothing is removed if one of them is no table of this cache.
    """
    paths = [_of_this_cache(store, path) for path in paths]
    return sum(remove_table(store, path) for path in paths if _size(store, path))


def remove_table(store: Store, path: Path) -> int:
    """Remove a table with its views, and the segments that only they need; return the bytes that this freed.

    Raises
    ------
    MissingDataError
        If there is no such table.
    CacheError
        If it is not in this cache.
    """
    path = _of_this_cache(store, path)
    views, segments = _belongings(store, path)
    of_views = [one for view in views for one in (view, *_belongings(store, view)[1])]  # which have no views themselves
    doomed = list(dict.fromkeys([*of_views, path, *segments]))
    freed = total_bytes(store, doomed)
    for one in doomed:
        remove(store.disk, one)
    return freed


def _of_this_cache(store: Store, path: str | Path) -> Path:
    path = Path(path)
    if path.resolve().parent.parent != store.root.resolve():
        raise CacheError(f"{path} is not a table of the cache {store.root}. All tables: featx cache list")
    if not _size(store, path):
        raise MissingDataError(f"There is no table at {path}. All tables: featx cache list")
    return path


def _belongings(store: Store, path: Path) -> tuple[list[Path], list[Path]]:
    """Return what nothing leads to without the table at `path`: its tables of views, and segments only it needs."""
    try:
        table = Table(path, store.disk)
        views = [path.parent / name for name in table.views]
    except CorruptFileError:
        return [], []
    others = [holding for holding in store.catalog.rows(table.key).holdings if holding.path.resolve() != path.resolve()]
    needed = {name for holding in others for name in holding.segments}
    segments = [segment_path(store.root, table.key, name) for name in table.segments if name not in needed]
    return [view for view in views if view != path and _size(store, view)], segments


def _rubbish(store: Store) -> Iterator[Reclaimable]:
    """Yield what dead processes left and what was set aside."""
    now = time.time()
    for path in _files_below(store, store.root):
        try:
            status = store.disk.stat(path)
        except FileNotFoundError:
            continue
        leases = (now - status.st_mtime) / store.claims.lease_seconds
        if path.name.endswith(TEMPORARY) and leases > _TEMPORARY_LEASES:
            yield Reclaimable(path, status.st_size, "left by a process that died")
        elif path.name.endswith(ASIDE):
            yield Reclaimable(path, status.st_size, "set aside")
        elif path.is_relative_to(store.root / CLAIMS) and store.claims.is_over(path):
            yield Reclaimable(path, status.st_size, "expired")


def _superfluous(store: Store) -> Iterator[Path]:
    """Yield segments whose rows are all in a table that is sound to the last byte."""
    for table in store.tables():
        covered = covered_segments(store.catalog, table)
        if covered:
            try:
                table.verify()
            except CorruptFileError:
                continue
            yield from covered


def _reclaimable(store: Store, path: Path, reason: str) -> Reclaimable:
    return Reclaimable(path, _size(store, path), reason)


def _tables_by_use(store: Store) -> list[Reclaimable]:
    tables = [entry for entry in entries(store) if entry.kind in ("table", "damaged")]
    return [
        Reclaimable(entry.path, entry.n_bytes, time.strftime("used last on %Y-%m-%d", time.localtime(entry.used)))
        for entry in sorted(tables, key=lambda entry: entry.used)
    ]


def _files_below(store: Store, folder: Path) -> Iterator[Path]:
    for path in (folder / name for name in store.disk.list_folder(folder)):
        if path.is_dir() and not path.is_symlink():
            yield from _files_below(store, path)
        else:
            yield path
