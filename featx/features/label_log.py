"""`LabelLog`: labels that people give, one line each, appended to a file that nothing is ever taken out of."""

from __future__ import annotations

import csv
import fcntl
import getpass
import io
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from featx.errors import DataError, MissingDataError
from featx.files.atomic import write_whole
from featx.files.disk import Disk, explained, sync_folder
from featx.targets import check_classes

if TYPE_CHECKING:
    from featx.features.features import Features

COLUMNS = ("id", "item_id", "label", "why", "by", "when")
_HEADER = ",".join(COLUMNS)
#: The last column, of one length: a line that was torn on its way to the disk cannot end with one.
_WHEN = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"
#: What `why` begins with where an entry takes others back: those of the same person and the time that follows.
_UNDO = "undo "
_TAIL_BYTES = 1 << 16


@dataclass(frozen=True, order=True)
class Entry:
    """One line of a log.

    Attributes
    ----------
    when : str
        UTC, to the microsecond; entries of one gesture share it.
    by : str
        Who said so.
    id : str
        What the image was called. Empty for an undo.
    item_id : str
        SHA-256 of its content in hexadecimal; empty where the table knows none.
    label : str
        Its class from now on; empty for none.
    why : str
        Free text; ``undo WHEN`` takes back what the same person said then.
    """

    when: str
    by: str
    id: str
    item_id: str
    label: str
    why: str

    @property
    def undoes(self) -> str:
        """When the entries were made that it takes back; empty for none."""
        return self.why.removeprefix(_UNDO) if self.why.startswith(_UNDO) and not self.id else ""

    def line(self) -> str:
        """Return it as it is written, without the end of the line."""
        out = io.StringIO()
        csv.writer(out, lineterminator="").writerow([_escaped(getattr(self, name)) for name in COLUMNS])
        return out.getvalue()


class LabelLog:
    """An append-only file of labels, which several people and programs may write to at once.

    Every `label` and `undo` is on the disk when it returns. A line that was torn when a machine died is no entry.

    Parameters
    ----------
    path : path
        Made by the first entry.
    by : str, optional
        Who labels; the user's name by default.

    Examples
    --------
    >>> import tempfile
    >>> log = LabelLog(tempfile.mkdtemp() + "/labels.csv", by="ann")
    >>> _ = log.label([("a.jpg", "")], "cat")
    >>> _ = log.label([("a.jpg", ""), ("b.jpg", "")], "dog")
    >>> _ = log.undo()
    >>> [(entry.id, entry.label) for entry in standing(log.entries())]
    [('a.jpg', 'cat')]
    """

    def __init__(self, path: str | Path, by: str | None = None) -> None:
        self.path = Path(path)
        self.by = user_name() if by is None else by
        self._entries: list[Entry] = []
        self._n_bytes = 0

    def entries(self) -> list[Entry]:
        """Return all entries by time, those that others have written meanwhile included.

        Raises
        ------
        DataError
            If the file is another kind of file.
        """
        with explained("read", self.path):
            try:
                with self.path.open("rb") as file:
                    file.seek(self._n_bytes)
                    new = file.read()
            except FileNotFoundError:
                new = b""
        whole = new[: new.rfind(b"\n") + 1]  # whoever writes the rest now has not been told that it is there
        if whole:
            if not self._n_bytes:
                _check_kind(whole.split(b"\n", 1)[0], self.path)
            self._n_bytes += len(whole)
            self._entries = sorted({*self._entries, *_parsed(whole)})
        return list(self._entries)

    def label(self, images: Iterable[tuple[str, str]], label: str, why: str = "") -> str:
        """Give images a label, in one gesture, and return its time.

        Parameters
        ----------
        images : iterable of (str, str)
            The id of each, and its content's SHA-256 in hexadecimal, or an empty text.
        label : str
            A class, known or new; empty takes the label away.
        why : str
        """
        if label != label.strip() or len(label) > 200:
            raise DataError(f"A class has a name of up to 200 characters, none of them spaces around it: {label!r}")
        return self._append([Entry("", self.by, name, item_id, label, why) for name, item_id in images])

    def undo(self) -> str | None:
        """Take back the latest gesture of this person that still stands, and return when it was made, if any."""
        mine = [entry for entry in _not_undone(self.entries()) if entry.by == self.by and entry.id]
        if not mine:
            return None
        when = mine[-1].when
        self._append([Entry("", self.by, "", "", "", _UNDO + when)])
        return when

    def _append(self, entries: Sequence[Entry]) -> str:
        with explained("write", self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                size = os.fstat(fd).st_size
                tail = os.pread(fd, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
                when = _after(tail)
                lines = [replace(entry, when=when).line() for entry in entries]
                head = "" if size else _HEADER + "\n"
                head = "\n" if tail and not tail.endswith(b"\n") else head
                data = (head + "".join(f"{line}\n" for line in lines)).encode("utf-8", "surrogateescape")
                while data:
                    data = data[os.write(fd, data) :]
                os.fsync(fd)
            finally:
                os.close(fd)  # the lock goes with it
            if not size:
                sync_folder(Disk(), self.path.parent)
        return when


def standing(entries: Sequence[Entry]) -> list[Entry]:
    """Return what holds of a log: of each image the last entry that was not taken back, by time."""
    last = {entry.item_id or f"id {entry.id}": entry for entry in _not_undone(entries) if entry.id}
    return sorted(last.values())


def read_labels(*paths: str | Path) -> list[Entry]:
    """Return the entries of one log or of several people's, by time.

    Raises
    ------
    MissingDataError, DataError
        If there is no such file, or it is no log.
    """
    for path in paths:
        if not Path(path).is_file():
            raise MissingDataError(f"{path} is no file of labels. One is made by: featx explore TABLE --labels {path}")
    return sorted({entry for path in paths for entry in LabelLog(path, by="").entries()})


def merge_labels(paths: Sequence[str | Path], output: Path) -> int:
    """Write the entries of several logs, each once and by time, to a new one, and return how many they are."""
    entries = read_labels(*paths)
    write_whole(output, "".join(f"{line}\n" for line in [_HEADER, *(entry.line() for entry in entries)]))
    return len(entries)


def relabelled(table: Features, labels: str | Path | Sequence[Entry]) -> Features:
    """Return a table with the labels of a log in place of its own, where the log has any.

    An image is known by its content, whatever it is called; where a table knows no contents, by its id. New classes
    come behind those of the table.

    Parameters
    ----------
    table : Features
        With one class a row.
    labels : path or sequence of Entry

    Raises
    ------
    DataError
        If rows have several labels or numbers, or no row of the table is in the log.
    """
    check_classes(table.task, "A log of labels")
    path = labels if isinstance(labels, str | Path) else None
    entries = standing(read_labels(path) if path is not None else labels)  # type: ignore[arg-type]
    places, y, classes = Places(table), table.y.copy(), list(table.classes)
    number = {name: k for k, name in enumerate(classes)} | {"": -1}
    found = 0
    for entry in entries:
        rows = places.of(entry)
        if rows and entry.label not in number:
            number[entry.label] = len(classes)
            classes.append(entry.label)
        y[rows] = number.get(entry.label, -1)
        found += bool(rows)
    if entries and not found:
        raise DataError(f"{path or 'The log'} labels {len(entries):,} images, and none of them is a row of the table.")
    return table.with_labels(y, classes)


class Places:
    """Which rows of a table an entry is about.

    Parameters
    ----------
    table : Features
    """

    def __init__(self, table: Features) -> None:
        self._rows: dict[str, list[int]] = {}
        self.names: list[tuple[str, str]] = []
        for row, (name, item) in enumerate(zip(table.ids.tolist(), table.item_ids, strict=True)):
            item_id = item.tobytes().hex() if item.any() else ""
            self.names.append((name, item_id))
            self._rows.setdefault(item_id or f"id {name}", []).append(row)

    def of(self, entry: Entry) -> list[int]:
        """Return the rows of an entry's image, none where the table has another content or lacks it."""
        return self._rows.get(entry.item_id or f"id {entry.id}", [])

    def same(self, rows: Iterable[int]) -> list[int]:
        """Return `rows` and all others of the same contents."""
        keys = {item or f"id {name}" for name, item in (self.names[row] for row in rows)}
        return sorted(row for key in keys for row in self._rows[key])


def user_name() -> str:
    """Return who labels on this machine."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # of a container without names
        return f"user {os.getuid()}"


def _not_undone(entries: Sequence[Entry]) -> list[Entry]:
    gone: set[tuple[str, str]] = set()
    for entry in sorted(entries, reverse=True):  # an undo that was itself taken back takes nothing
        if entry.undoes and (entry.by, entry.when) not in gone:
            gone.add((entry.by, entry.undoes))
    return [entry for entry in sorted(entries) if (entry.by, entry.when) not in gone]


def _parsed(data: bytes) -> list[Entry]:
    found = []
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        try:
            cells = next(csv.reader([line.rstrip("\r")], strict=True), [])
        except csv.Error:
            continue
        if len(cells) == len(COLUMNS) and _WHEN.fullmatch(cells[-1]):
            found.append(Entry(**dict(zip(COLUMNS, map(_unescaped, cells), strict=True))))
    return found


def _check_kind(first: bytes, path: Path) -> None:
    text = first.decode("utf-8", "surrogateescape").rstrip("\r")
    if not _HEADER.startswith(text) and not _parsed(first):
        raise DataError(
            f"{path} is no log of labels: its first line is not {_HEADER}. A table of labels is DATA: "
            f"featx extract {path}"
        )


def _after(tail: bytes) -> str:
    """Return the time now, or a moment after the last entry where a clock was set back."""
    now, last = datetime.now(UTC).strftime(_FORMAT), max((entry.when for entry in _parsed(tail)), default="")
    if now > last:
        return now
    return (datetime.strptime(last, _FORMAT).replace(tzinfo=UTC) + timedelta(microseconds=1)).strftime(_FORMAT)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")


def _unescaped(text: str) -> str:
    return re.sub(r"\\([\\nr])", lambda found: {"\\": "\\", "n": "\n", "r": "\r"}[found[1]], text)
