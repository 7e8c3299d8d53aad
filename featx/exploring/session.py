"""`Session`: one table being explored: its labels as they stand, what is learned of them, and who is to be told."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.curation.search import row_vectors
from featx.errors import DataError
from featx.exploring import maps
from featx.exploring.columns import Column, columns_of
from featx.exploring.pictures import Pictures
from featx.exploring.quick_head import QuickHead
from featx.features import LabelLog
from featx.features.label_log import Places, standing
from featx.model.report import Accuracy
from featx.model.rows import row_groups
from featx.reporting.thumbnails import open_images
from featx.targets import check_classes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from featx.features import Features
    from featx.model import Model

log = logging.getLogger("featx")

#: Labelled rows of val and test from which on accuracy is theirs; with fewer it is over folds.
_ENOUGH = 20
#: Splits that never teach.
_HELD_OUT = ("val", "test")
#: Seconds between two looks at the log, to which others may write.
_WATCH_SECONDS = 0.5
_MOST_CLASSES = 1000


def default_log(table: Features) -> Path:
    """Return where labels of a table go: beside its data, or beside the table where these are no files here.

    Raises
    ------
    DataError
        If the table is in memory.
    """
    data = (table.provenance.get("source") or {}).get("data")
    if data and Path(data).exists():
        return Path(data).absolute().with_name(f"{Path(data).absolute().name}.labels.csv")
    if table.path is None:
        raise DataError("The table is no file, so say where labels go: --labels FILE")
    return table.path.with_suffix(".labels.csv")


class Session:
    """A table, the labels that people give it, and a head that learns them as they come.

    Parameters
    ----------
    table : Features
        With one class a row, or none yet.
    labels : path
        The log; what it says already holds.
    model : Model, optional
        Whose predictions are shown beside those of the head.
    pictures : path, optional
        Folder of small pictures, see `Pictures`.

    Attributes
    ----------
    y : ndarray of int64, shape (n,)
        Labels as they stand, numbers of `classes`, −1 for none.
    revision : int
        Grows with each change of a label and with each fit.
    """

    def __init__(
        self, table: Features, labels: str | Path, model: Model | None = None, *, pictures: Path | None = None
    ) -> None:
        check_classes(table.task, "featx explore")
        if not len(table):
            raise DataError("The table has no rows.")
        self.table, self.log = table, LabelLog(labels)
        dataset, note = open_images(table)
        self.notes = [note] if note else []
        self.places = Places(table)
        self.y, self.classes = table.y.copy(), list(table.classes)
        self.touched = np.zeros(len(table), bool)
        self.maps = {"principal": maps.principal(table)}
        order = maps.curve_order(self.maps["principal"])
        self.rank = np.empty(len(table), np.uint32)
        self.rank[order] = np.arange(len(table), dtype=np.uint32)
        self.pictures = Pictures(table, dataset, order, pictures)
        self.columns = columns_of(table)
        if model is not None:
            guesses = model.predict_proba(table).argmax(axis=1).astype(np.int32)
            self.columns["prediction of the model"] = Column(list(model.classes), guesses)
        groups = row_groups(table, np.arange(len(table)))
        self.groups, self.held_out = groups, np.isin(table.splits, _HELD_OUT)
        self.head = QuickHead(table, groups, self.held_out)
        self.photos: list[NDArray[np.float32]] = []
        self.revision, self.learned_revision = 1, 0
        self.learned: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self._changes: list[tuple[int, NDArray[np.intp]]] = []
        self._lock, self._to_learn, self._closed = threading.RLock(), threading.Event(), threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._learn, self._watch)]
        self.refresh()

    def start(self) -> None:
        """Begin to learn, and to watch the log."""
        self._to_learn.set()
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End what runs in the background. Labels need no closing: they are on the disk."""
        self._closed.set()
        self._to_learn.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(10)
        self.pictures.close()

    # Labels

    def label(self, rows: Sequence[int], label: str | None, why: str = "") -> list[int]:
        """Give rows, and others of the same contents, a class, or None for none; return all rows that got it.

        Raises
        ------
        DataError
            If a row is none of the table, or there would be too many classes.
        """
        if not rows or not all(0 <= row < len(self.table) for row in rows):
            raise DataError(f"Rows are numbers of 0 … {len(self.table) - 1:,}, at least one.")
        if label and label not in self.classes and len(self.classes) >= _MOST_CLASSES:
            raise DataError(f"There are {_MOST_CLASSES:,} classes already.")
        if label is not None and not label:
            raise DataError("A class has a name.")
        self.log.label([self.places.names[row] for row in rows], label or "", why)
        self.refresh()
        return self.places.same(rows)

    def keep(self, rows: Sequence[int]) -> None:
        """Say that labels which look wrong are right."""
        y = self.y
        for code in np.unique(y[list(rows)]).tolist():
            some = [row for row in rows if y[row] == code]
            self.label(some, None if code < 0 else self.classes[code], "kept")

    def undo(self) -> bool:
        """Take back the last gesture that stands; False if there is none."""
        undone = self.log.undo() is not None
        self.refresh()
        return undone

    def refresh(self) -> None:
        """Take up what the log says, whoever wrote it."""
        with self._lock:
            y, touched = self.table.y.copy(), np.zeros(len(self.table), bool)
            number = {name: k for k, name in enumerate(self.classes)} | {"": -1}
            for entry in standing(self.log.entries()):
                rows = self.places.of(entry)
                if rows and entry.label not in number:
                    number[entry.label] = len(self.classes)
                    self.classes.append(entry.label)
                y[rows] = number.get(entry.label, -1)
                touched[rows] = True
            changed = np.flatnonzero((y != self.y) | (touched != self.touched))
            if len(changed):
                self.y, self.touched = y, touched
                self.revision += 1
                self._changes.append((self.revision, changed))
                self._to_learn.set()

    def changes(self, after: int) -> dict[str, Any]:
        """Return what has changed since a revision: rows with their labels, and what was learned."""
        with self._lock:
            parts = [rows for revision, rows in self._changes if revision > after]
            rows = np.unique(np.concatenate(parts)) if parts else np.empty(0, np.intp)
            news: dict[str, Any] = {"revision": self.revision, "classes": self.classes, "rows": rows.tolist()}
            news |= {"labels": self.y[rows].tolist(), "touched": self.touched[rows].tolist()}
            news |= {"n_labelled": int((self.y >= 0).sum()), "history": self.history[-200:]}
            if self.learned_revision > after:
                news["learned"] = self.learned
            return news

    # Learning

    def learn_now(self) -> None:
        """Fit the head to the labels as they stand, and tell what it is worth."""
        with self._lock:
            y, k = self.y.copy(), len(self.classes)
        started = time.perf_counter()
        learned = self.head.learn(y, k)
        told: dict[str, Any] = {"n": self.head.n_taught, "accuracy": None, "n_labelled": int((y >= 0).sum())}
        if learned:
            told["accuracy"] = self._accuracy(y)
            self.maps["learned"] = maps.by_scores(self.head.scores)
        told["seconds"] = round(time.perf_counter() - started, 3)
        with self._lock:
            self.revision += 1
            self.learned, self.learned_revision = told, self.revision
            if told["accuracy"] and (not self.history or self.history[-1]["n"] != told["n_labelled"]):
                self.history.append({"n": told["n_labelled"], "value": told["accuracy"]["value"]})

    def prediction(self) -> NDArray[np.int16]:
        """Return the most probable class of each row, by a head that has not learned from it, −1 for none yet."""
        p = self.head.honest
        return (p.argmax(axis=1) if p.shape[1] else np.full(len(self.table), -1)).astype(np.int16)

    def unsure(self) -> NDArray[np.float32]:
        """Return how unsure the head is of each row: 1 less the probability of its prediction."""
        p = self.head.honest
        return np.asarray(1 - p.max(axis=1) if p.shape[1] else np.zeros(len(self.table)), np.float32)

    def doubt(self) -> NDArray[np.float32]:
        """Return by how much another class is more probable than each row's label; 0 where none is, or none given."""
        p, y = self.head.honest, self.y
        known = (y >= 0) & (y < p.shape[1])
        found = np.zeros(len(y), np.float32)
        rows = np.flatnonzero(known)
        if len(rows) and p.shape[1]:
            found[rows] = p[rows].max(axis=1) - p[rows, y[rows]]
        return found

    def vector(self, photo: bytes) -> int:
        """Make a row of a photo, and return its number among those that were dropped in.

        Raises
        ------
        DataError
            If it cannot be read, or the table does not say how rows are made.
        """
        with self._lock:
            (found,), _ = row_vectors(self.table, [photo], None)
            self.photos.append(np.asarray(found, np.float32).reshape(-1))
            return len(self.photos) - 1

    def _accuracy(self, y: NDArray[np.int64]) -> dict[str, Any] | None:
        p = self.head.honest
        held = np.flatnonzero(self.held_out & (y >= 0) & (y < p.shape[1]))
        rows, how = held, "val and test"
        if len(held) < _ENOUGH:
            rows, how = np.flatnonzero(~self.held_out & (y >= 0)), "folds"
        if not len(rows):
            return None
        found = Accuracy.of(p[rows].argmax(axis=1) == y[rows], self.groups[rows])
        low, high = found.ci95
        return {"value": found.value, "low": low, "high": high, "n": len(rows), "how": how}

    def _learn(self) -> None:
        while not self._closed.is_set():
            self._to_learn.wait()
            self._to_learn.clear()
            if self._closed.is_set():
                return
            try:
                self.learn_now()
            except Exception:  # labels are safe, and the next batch may be learned
                log.exception("The head has not learned the labels as they stand.")

    def _watch(self) -> None:
        size = -1
        while not self._closed.wait(_WATCH_SECONDS):
            with contextlib.suppress(OSError):
                now = self.log.path.stat().st_size
                if now != size:
                    size = now
                    self.refresh()
