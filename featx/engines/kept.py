"""Converted networks of this user: a folder that all his caches share, bounded in size, of which nothing is trusted.

::

    networks/<key>/about.json      what it is of, and the SHA-256 of its files
    networks/<key>/network.xml     as OpenVINO writes it
    networks/<key>/network.bin
    networks/recipe-<request>.json what a request came to when its backbone was last loaded

The key names everything that decides the network. Whatever is missing, torn, changed or somebody else's is not found,
and made again; the folder may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featx.errors import CacheError
from featx.files import Disk, whole_folder
from featx.files.atomic import read_record, write_record

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Names the folder, or switches it off.
VARIABLE = "FEATX_NETWORKS"
#: Bytes that the folder may take: fifty networks of a ResNet-50's size. Those used longest ago go first.
LIMIT = 5 << 30
FILES = ("network.xml", "network.bin")
_ABOUT = "about.json"
#: Bytes of that file: a name and what decides it.
_MOST_SAID = 1 << 20
#: Requests that are remembered.
_MOST_RECORDS = 500


def folder() -> Path | None:
    """Return the folder: ``FEATX_NETWORKS``, else below the user's cache directory; None where that is ``off``."""
    named = os.environ.get(VARIABLE)
    if named:
        return None if named == "off" else Path(named)
    try:
        base = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    except RuntimeError:  # no home
        base = None
    caches = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(caches) if Path(caches).is_absolute() else base
    return base and base / "featx" / "networks"


@dataclass(frozen=True)
class Kept:
    """A converted network that is there, as it was written.

    Attributes
    ----------
    path : Path
        Its ``network.xml``.
    of : str
        Backbone and layers.
    n_bytes : int
    used : float
        When it was used last, in seconds since 1970.
    slower : bool
        Whether eager PyTorch ran faster where both were measured.
    problem : str
        What is wrong with it; empty if nothing is.
    """

    path: Path
    of: str
    n_bytes: int
    used: float
    slower: bool = False
    problem: str = ""


def find(networks: Path | None, decides: list[Any]) -> Kept | None:
    """Return the network that everything in `decides` leads to, if it is kept in `networks` and as it was written."""
    if networks is None:
        return None
    found = _read(networks / key_of(decides), decides)
    if found.problem:
        return None
    with contextlib.suppress(OSError):
        os.utime(found.path.with_name(_ABOUT))
    return found


def keep(networks: Path | None, decides: list[Any], written: Path, of: str) -> None:
    """Keep the network whose ``network.xml`` is `written`, so that a reader sees all of it or nothing.

    Parameters
    ----------
    networks : Path or None
        The folder, if there is one.
    decides : list
        Everything that decides it.
    written : Path
    of : str
        Backbone and layers, for people.
    """
    if networks is None:
        return
    # Read-only, full, or another process was first: this run has its network either way.
    with contextlib.suppress(OSError):
        networks.mkdir(parents=True, exist_ok=True)
        with whole_folder(networks / key_of(decides)) as place:
            for name in FILES:
                shutil.copyfile(written.with_name(name), place / name)
            sums = {name: _sha256(place / name) for name in FILES}
            _write_about(place, {"decides": decides, "of": of, "sha256": sums, "slower": False})
        prune(networks, checked=False)


def note_slower(networks: Path | None, decides: list[Any]) -> None:
    """Remember that eager PyTorch runs this network faster here, so that it is not tried again."""
    if networks is not None:
        place = networks / key_of(decides)
        with contextlib.suppress(OSError, ValueError, TypeError):
            _write_about(place, json.loads((place / _ABOUT).read_text()) | {"slower": True})


def listing(networks: Path, *, checked: bool = True) -> list[Kept]:
    """Return all that is kept, what was used longest ago first; `checked`, with a problem what would not be taken."""
    found = (_read(place, checked=checked) for place in _places(networks))
    return sorted(found, key=lambda one: (not one.problem, one.used))


def prune(networks: Path, limit: int | None = None, *, checked: bool = True) -> list[Kept]:
    """Remove what is damaged, then what was used longest ago until `limit` bytes are left; return what went."""
    limit = LIMIT if limit is None else limit
    there = listing(networks, checked=checked)
    n_bytes, gone = sum(one.n_bytes for one in there), []
    for one in there:
        if not one.problem and n_bytes <= limit:
            break
        shutil.rmtree(one.path.parent, ignore_errors=True)
        n_bytes -= one.n_bytes
        gone.append(one)
    return gone


def recall(name: str) -> dict[str, Any] | None:
    """Return the record that was remembered under `name`, None if there is none that can be trusted."""
    networks = folder()
    return None if networks is None else read_record(Disk(), networks / f"{name}.json")


def remember(name: str, record: dict[str, Any]) -> None:
    """Remember a small record for all caches of the user; of many, those written longest ago are forgotten."""
    if (networks := folder()) is None:
        return
    with contextlib.suppress(OSError, CacheError):
        write_record(Disk(), networks / f"{name}.json", record, durable=False)
        records = sorted(networks.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in records[:-_MOST_RECORDS]:
            path.unlink(missing_ok=True)


def key_of(decides: list[Any]) -> str:
    """Return the name of what `decides` leads to."""
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:32]


def _places(networks: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from (place for place in sorted(networks.iterdir()) if place.is_dir() and len(place.name) == 32)


def _read(place: Path, decides: list[Any] | None = None, *, checked: bool = True) -> Kept:
    """Read what is kept at `place` and, `checked`, hold its bytes against their digests."""
    path = place / FILES[0]
    try:
        about_status, *statuses = ((place / name).stat() for name in (_ABOUT, *FILES))
        n_bytes, used = sum(status.st_size for status in statuses), about_status.st_mtime
        whole = all(stat.S_ISREG(status.st_mode) for status in (about_status, *statuses))
    except OSError:
        whole, n_bytes, used = False, 0, 0.0
    if not whole or about_status.st_size > _MOST_SAID:
        return Kept(path, "", n_bytes, used, problem="it is not whole")
    try:
        about = json.loads((place / _ABOUT).read_text())
        of, slower, sums = str(about["of"]), about["slower"] is True, dict(about["sha256"])
        right = key_of(about["decides"]) == place.name and decides in (None, about["decides"])
        same = right and (not checked or all(sums[name] == _sha256(place / name) for name in FILES))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Kept(path, "", n_bytes, used, problem="it does not say what it is")
    problem = "" if same else "its bytes are not those once written"
    if hasattr(os, "getuid") and not all(status.st_uid in (0, os.getuid()) for status in (about_status, *statuses)):
        problem = "it is somebody else's"
    return Kept(path, of, n_bytes, used, slower, problem)


def _write_about(place: Path, about: dict[str, Any]) -> None:
    temporary = place / f"{_ABOUT}.{os.getpid()}"
    temporary.write_text(json.dumps(about))
    temporary.replace(place / _ABOUT)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
