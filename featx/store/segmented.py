"""Rows that lie in segments, read as if they were in one file."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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
        numbers, places = self._place[rows].T
        if out is None:
            self._segment(int(numbers[0])) if len(rows) else None  # is of our shape, before memory is taken for it
            out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        return gather(out, numbers, places, partial(self._take_of, mapped=mapped))

    def _take_of(
        self, number: int, rows: npt.NDArray[np.int64], out: npt.NDArray[Any] | None, *, mapped: bool
    ) -> npt.NDArray[Any]:
        source = self._segment(number).rows
        if not within(rows, len(source)):
            raise CorruptFileError(f"A segmented table is damaged: {self._names[number]} has no such rows.")
        return source.take(rows, out, mapped=mapped)

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


def gather(
    out: npt.NDArray[Any],
    sources: npt.NDArray[np.int64],
    places: npt.NDArray[np.int64],
    take: Callable[[int, npt.NDArray[np.int64], npt.NDArray[Any] | None], npt.NDArray[Any]],
) -> npt.NDArray[Any]:
    """Fill `out` (m, …) with rows of several readers, and return it.

    Parameters
    ----------
    out : ndarray, shape (m, …)
    sources, places : ndarray of int64, shape (m,)
        For each row the number of its reader, and its row there.
    take : callable
        ``take(source, places, out)`` returns rows of one reader, in `out` where there is one.
    """
    for source in np.unique(sources).tolist():
        here = np.flatnonzero(sources == source)
        if len(here) == len(out):
            return take(source, places, out)
        out[here] = take(source, places[here], None)
    return out


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
