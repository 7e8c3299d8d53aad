"""Finished runs of comparisons, one small checksummed file each, so that none is done twice."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from featx import __version__
from featx.comparison.runs import Run
from featx.files.notes import read_note, write_note
from featx.store import Disk


class Ledger:
    """Finished runs in a folder, by everything that decides how a run comes out.

    A file is written whole or not at all, when its run is done: a comparison that is killed loses the run in hand.
    One that is damaged, or was written by another version of featx, is no run.

    Parameters
    ----------
    folder : Path or None
        None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._disk = Disk()

    def get(self, key: str) -> Run | None:
        """Return the run of that key, None if it has not been done."""
        found = read_note(self._disk, self._folder / f"{key}.json") if self._folder else None
        try:
            return None if found is None else Run(**found)
        except TypeError:
            return None

    def put(self, key: str, run: Run) -> None:
        """Keep a finished run."""
        if self._folder:
            write_note(self._disk, self._folder / f"{key}.json", dataclasses.asdict(run))


def key_of(**facts: Any) -> str:
    """Return the name under which a run is kept: a digest of `facts` and of featx's version.

    Examples
    --------
    >>> key_of(head="mlp", seed=0) == key_of(seed=0, head="mlp"), key_of(head="mlp") == key_of(head="knn")
    (True, False)
    """
    text = json.dumps({"featx": __version__, **facts}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
