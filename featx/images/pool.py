"""Decoding in processes of their own: an image that crashes, hangs or swallows memory costs itself, never the run."""

from __future__ import annotations

import functools
import logging
import os
import selectors
import tempfile
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np

from featx.errors import FeatxError, ImageError
from featx.files.disk import explanation
from featx.images.decoder import Decoder, Job, Slab, create_memory, decode_into, map_pixels
from featx.images.policy import Unread
from featx.machine import n_cores
from featx.recipe import Frame

log = logging.getLogger("featx")

#: Images that a decoder is handed at a time, where its share of a batch is not smaller or larger.
_LEAST_IMAGES, _MOST_IMAGES = 8, 32
#: A job is closed at so many bytes of encoded images.
_JOB_BYTES = 4 * 2**20
#: Jobs in front of each decoder, so that none idles while the network is waited for.
_DEPTH = 2
#: Seconds that a process may take to start.
_START_SECONDS = 60.0
#: Processes that may die one after another before any of them decodes an image.
_FAILED_STARTS = 3
#: Seconds to wait for answers before looking for processes that hang.
_TICK = 0.25


#: The caller's index of an image, with the image, or with its pixels at last; or with why there are none.
_Image: TypeAlias = tuple[int, Unread | ImageError]
_Result: TypeAlias = tuple[int, np.ndarray | ImageError]


class DecodePool:
    """Processes that turn encoded images into pixels, ahead of their consumer and in order.

    Each process is a fresh interpreter that imports Pillow and NumPy, and numba where there is much to
    resize; scripts need no ``__main__`` guard. They read files, and write pixels to a ring of slabs, a batch each, in
    shared memory. A process that crashes, is killed, hangs or asks for too much memory is replaced; the image it
    had in hand becomes an `ImageError`, and the others that it had not reported are decoded again.

    Parameters
    ----------
    frame : Frame
        What every image is fitted to.
    n_workers : int, optional
        Processes; as many as there are cores to use by default. 0 decodes in this very process, without
        any protection.
    n_images : int, optional
        How many are to come, if that is known: for a few hundred, numba is not worth its start.
    timeout : float
        Seconds of waiting for one image after which its process is taken for hung.
    memory_limit : int
        Bytes that a process may allocate (on Linux). 2 GiB decode every image that the policy allows.
    max_pixels : int, optional
        Larger images are refused; never more than the policy allows. Not in this very process (`n_workers` 0).

    Examples
    --------
    >>> frame = Frame(height=2, width=2, resize="squash", shorter=0, interpolation="bilinear")
    >>> images = [np.zeros((5, 4), np.uint8), b"no image"]
    >>> with DecodePool(frame, n_workers=1) as pool:
    ...     for index, result in pool.map(enumerate(images)):
    ...         print(index, result.shape if isinstance(result, np.ndarray) else result)
    0 (2, 2, 3)
    1 not an image: text that begins 'no image'
    """

    def __init__(
        self,
        frame: Frame,
        *,
        n_workers: int | None = None,
        n_images: int | None = None,
        timeout: float = 60.0,
        memory_limit: int = 2 * 2**30,
        max_pixels: int | None = None,
    ) -> None:
        n_workers = n_cores() if n_workers is None else n_workers
        share = None if n_images is None else -(-n_images // max(1, n_workers))
        self._frame = frame
        self._timeout = timeout
        self._failed_starts = 0
        self._mapping = False
        self._free: list[int] = []
        self._memory = create_memory()
        self._pixels = np.empty(0, np.uint8)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        self._decoders: list[Decoder] = []
        try:
            for _ in range(n_workers):
                decoder = Decoder(
                    frame,
                    memory=self._memory,
                    memory_limit=memory_limit,
                    stderr=self._stderr,
                    n_images=share,
                    max_pixels=max_pixels,
                )
                self._decoders.append(decoder)
        except OSError as error:
            self.close()
            raise FeatxError(f"Cannot start {n_workers} decoding processes ({error}). Try --workers 1") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all processes at once, whatever they are doing, and free the memory of all slabs that nobody holds."""
        while self._decoders:
            self._decoders.pop().close()
        if not self._stderr.closed:
            del self._pixels
            os.close(self._memory)
            self._stderr.close()

    @property
    def pids(self) -> list[int]:
        """Process ids of the living decoders."""
        return [decoder.process.pid for decoder in self._decoders]

    def map(self, images: Iterable[_Image], names: Sequence[str] | None = None) -> Iterator[_Result]:
        """Decode images one by one, reading only so far ahead as keeps the processes busy.

        Parameters
        ----------
        images : iterable of (int, bytes or ndarray or File or ImageError)
            An index of the caller's and an image as `featx.images.decode` takes it, or its file. An `ImageError` (of an
            image that could not even be read) is passed on in its place.
        names : sequence of str, optional
            By index, for the log: the first image of which something is to be said is named there.

        Yields
        ------
        index : int
            In the order given.
        result : ndarray of uint8, shape (height, width, 3), or ImageError

        Raises
        ------
        FeatxError
            If processes keep dying before they decode anything.
        """
        images = iter(images)
        batches = (chain([first], islice(images, _MOST_IMAGES - 1)) for first in images)
        for slab in self.batches(batches, _MOST_IMAGES, names):
            for place, index in enumerate(slab.indices):
                yield index, slab.errors[place] if place in slab.errors else slab.pixels[place].copy()
            self.release(slab)

    def batches(
        self,
        batches: Iterable[Iterable[_Image]],
        size: int,
        names: Sequence[str] | None = None,
        *,
        held: int = 2,
        around: Callable[[np.ndarray], AbstractContextManager[Any]] = nullcontext,
    ) -> Generator[Slab]:
        """Decode images in batches, as `map` does one by one.

        Parameters
        ----------
        batches : iterable of iterables
            Of at most `size` images each, as `map` takes them; each is read to its end before the next.
        size : int
        names : sequence of str, optional
            As in `map`.
        held : int
            Batches that the consumer holds at a time.
        around : callable
            Takes the memory of all slabs; its context manager is around the work.

        Yields
        ------
        Slab
            In the order given. Its memory is used for other images after `release`.
        """
        if self._mapping:
            raise RuntimeError("This DecodePool is in the middle of a map; take another pool for a second one.")
        self._mapping, said = True, False
        try:
            with around(self._allocate(size, held)):
                for slab in self._batches(batches):
                    for place, text in islice(slab.doubts.items(), int(not said)):
                        index, said = slab.indices[place], True
                        _say_once(f"{names[index] if names else f'image {index + 1:,}'}: {text}")
                    yield slab
        finally:
            self._mapping = False

    def release(self, slab: Slab) -> None:
        """Give the memory of a slab back: nobody reads it any more."""
        self._free.append(slab.first_row)

    def _allocate(self, size: int, held: int) -> np.ndarray:
        """Cut the shared memory into slabs of `size` images, which are all free, and return it."""
        while any(decoder.jobs for decoder in self._decoders):  # of a consumer that stopped early
            self._collect(_TICK)
        n_jobs = _DEPTH * len(self._decoders)
        self._job_images = min(_MOST_IMAGES, max(_LEAST_IMAGES, -(-size // max(1, n_jobs))))
        n_slabs = held + 1 + -(-n_jobs * self._job_images // size)
        n_bytes = n_slabs * size * self._frame.height * self._frame.width * 3
        if n_bytes > os.fstat(self._memory).st_size:  # it never shrinks: an engine may still read what it was given
            try:
                os.truncate(self._memory, n_bytes)
            except OSError as error:  # without memory files, it is a temporary one
                raise explanation(error, "write in", Path(tempfile.gettempdir())) from error
        self._pixels = map_pixels(self._memory, self._frame)
        self._slab_rows = size
        self._free = list(range(0, n_slabs * size, size))
        return self._pixels

    def _batches(self, batches: Iterable[Iterable[_Image]]) -> Iterator[Slab]:
        ahead: deque[Slab] = deque()
        for job in self._jobs(batches, ahead):
            if job is not None:
                self._hand_out(job)
            yield from self._complete(ahead, wait=job is None)
        while ahead:
            yield from self._complete(ahead, wait=True)

    def _complete(self, ahead: deque[Slab], *, wait: bool) -> Iterator[Slab]:
        """Yield the slabs that are complete, in their order, having waited a moment for the first to be."""
        self._collect(_TICK if wait and not (ahead and ahead[0].is_complete) else 0.0)
        while ahead and ahead[0].is_complete:
            yield ahead.popleft()

    def _jobs(self, batches: Iterable[Iterable[_Image]], ahead: deque[Slab]) -> Iterator[Job | None]:
        """Read images, and cut them into jobs, each batch in a slab of its own; None while there is no room."""
        for batch in batches:
            while not self._free:
                if not ahead:
                    raise RuntimeError("The consumer holds every slab: release them, or ask for more.")
                yield None
            first, images = self._free.pop(0), iter(batch)
            slab = Slab(self._pixels[first : first + self._slab_rows], first)
            ahead.append(slab)
            while part := self._take(images, slab.n_left):
                job = Job(slab, part)
                while self._decoders and not any(decoder.has_room for decoder in self._decoders):
                    yield None
                yield job
            slab.is_closed = True

    def _take(self, images: Iterator[_Image], n: int) -> list[_Image]:
        part: list[_Image] = []
        n_bytes = 0
        for index, image in islice(images, min(n, self._job_images)):
            part.append((index, image))
            n_bytes += _n_bytes(image)
            if n_bytes >= _JOB_BYTES:
                break
        return part

    def _hand_out(self, job: Job) -> None:
        if self._decoders:
            min((each for each in self._decoders if each.has_room), key=lambda each: len(each.jobs)).submit(job)
        else:
            job.finish(decode_into(job.pixels, job.images.items(), self._frame))

    def _collect(self, seconds: float) -> None:
        """Read the answers that have come, and replace processes that died or have hung for too long."""
        if not self._decoders:
            return
        with selectors.PollSelector() as selector:
            for decoder in self._decoders:
                selector.register(decoder.channel, selectors.EVENT_READ, decoder)
            start = time.monotonic()
            answered = [key.data for key, _ in selector.select(seconds)]
            waited = min(time.monotonic() - start, seconds)
        for decoder in self._decoders:
            if decoder in answered:
                if decoder.receive():
                    self._failed_starts = 0
                else:
                    self._replace(decoder, decoder.reason_of_death())
            # Only time spent waiting counts: a consumer that was busy, or a run that was stopped with
            # Ctrl-Z, says nothing about the decoder.
            elif decoder.silence(waited) > max(self._timeout, 0 if decoder.at_work else _START_SECONDS):
                self._replace(decoder, f"decoding took longer than {self._timeout:g} s")

    def _replace(self, decoder: Decoder, reason: str) -> None:
        if not decoder.at_work:
            self._failed_starts += 1
        if self._failed_starts > _FAILED_STARTS:
            said = self._last_line_of_stderr() or reason
            raise FeatxError(f"The decoding processes die before they decode anything ({said}).")
        try:
            decoder.restart(ImageError(reason, transient=True))
        except OSError as error:
            raise FeatxError(f"Cannot replace a decoding process ({error}). Run the same command again.") from error

    def _last_line_of_stderr(self) -> str:
        self._stderr.seek(0)
        lines = self._stderr.read()[-2000:].decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""


@functools.lru_cache
def _say_once(text: str) -> None:
    """Say it once in the life of this process: augmented views are made of the same images."""
    log.warning("%s", text)


def _n_bytes(image: Unread | ImageError) -> int:
    if isinstance(image, np.ndarray):
        return image.nbytes
    return len(image) if isinstance(image, bytes) else 0
