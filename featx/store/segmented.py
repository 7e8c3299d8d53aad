"""Rows that lie in segments, read as if they were in one file."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.errors import CacheError, CorruptFileError
from featx.store.segments import Segment

#: Segments that one reader holds open at a time: blocks of shuffled rows come from about as many.
_OPEN_SEGMENTS = 64


@dataclass(frozen=True)
class Places:
    """Where the rows of a segmented table lie.

    Attributes
    ----------
    segments : list of str
        Names.
    place : ndarray of int64, shape (n, 2)
        For each row the number of its segment in `segments`, and its row there.
    shape : tuple of int
        Of ``X``.
    dtype : numpy.dtype
    """

    segments: list[str]
    place: npt.NDArray[np.int64]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class SegmentedRows:
    """Rows of ``X`` that lie in segments.

    Parameters
    ----------
    open_segment : callable
        From the name of a segment, and its identity if it was opened before, to the `Segment`.
    places : Places
    """

    def __init__(self, open_segment: Callable[[str, bytes | None], Segment], places: Places) -> None:
        self.shape, self.dtype = places.shape, places.dtype
        self._names, self._place = places.segments, places.place
        self._open_segment = open_segment
        self._open: OrderedDict[int, Segment] = OrderedDict()
        self._known: dict[int, bytes] = {}
        self._lock = threading.Lock()
        self._most_open = min(_OPEN_SEGMENTS, max(1, _most_files() // 4))

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the rows ``start … stop``."""
        return self.take(np.arange(start, stop))

    def take(
        self, rows: npt.NDArray[np.int64], out: npt.NDArray[Any] | None = None, *, mapped: bool = False
    ) -> npt.NDArray[Any]:
        """Return any rows in any order."""
        place = self._place[rows]
        numbers = np.unique(place[:, 0]).tolist()
        if out is None:
            self._segment(numbers[0]) if numbers else None  # its shape is held against ours before memory is taken
            out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for number in numbers:
            here = np.flatnonzero(place[:, 0] == number)
            source = self._segment(number).rows
            if not within(place[here, 1], len(source)):
                raise CorruptFileError(f"A segmented table is damaged: {self._names[number]} has no such rows.")
            if len(here) == len(rows):
                return source.take(place[:, 1], out, mapped=mapped)
            out[here] = source.take(place[here, 1], mapped=mapped)
        return out

    def verify(self, progress: Callable[[int], None] | None = None) -> None:
        """Check every segment."""
        for number in range(len(self._names)):
            self._segment(number).verify(progress)

    def _segment(self, number: int) -> Segment:
        with self._lock:
            if number not in self._open:
                self._open[number] = self._fetch(number)
                while len(self._open) > self._most_open:
                    self._open.popitem(last=False)  # closed when nobody reads it any more
            self._open.move_to_end(number)
            return self._open[number]

    def _fetch(self, number: int) -> Segment:
        try:
            segment = self._open_segment(self._names[number], self._known.get(number))
        except FileNotFoundError as error:
            raise CacheError(
                f"{error.filename} is missing, which holds rows of this table. Compute them again: featx extract"
            ) from error
        if segment.rows.shape[1:] != self.shape[1:] or segment.rows.dtype != self.dtype:
            raise CorruptFileError(f"{segment.path} is damaged: its rows have another shape than the table's.")
        self._known[number] = segment.identity
        segment.forget()
        return segment


def within(numbers: npt.NDArray[np.int64], length: int) -> bool:
    """Say whether all are in ``0 … length``."""
    return not len(numbers) or bool(numbers.min() >= 0 and numbers.max() < length)


def _most_files() -> int:
    """Return how many files this process may have open."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return 4 * _OPEN_SEGMENTS
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 4 * _OPEN_SEGMENTS if limit == resource.RLIM_INFINITY else limit
