"""Decoding in processes of their own: an image that crashes, hangs or swallows memory costs itself, never the run."""

from __future__ import annotations

import errno
import functools
import logging
import selectors
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

import numpy as np

from featx.errors import FeatxError, ImageError
from featx.files.disk import explanation
from featx.images.decoder import Decoder, Job, warned
from featx.images.resizing import prepare
from featx.machine import n_cores
from featx.recipe import Frame

log = logging.getLogger("featx")

#: Batches that wait in front of each decoding process, so that it never idles.
_DEPTH = 3
#: A batch is closed at so many images, bytes of pixels, or bytes of encoded images.
_BATCH_IMAGES = 32
_BATCH_BYTES = 4 * 2**20
#: Seconds that a process may take to start.
_START_SECONDS = 60.0
#: Processes that may die one after another before any of them decodes an image.
_FAILED_STARTS = 3
#: Seconds to wait for answers before looking for processes that hang.
_TICK = 0.25


#: The caller's index of an image, with the image, or with its pixels at last; or with why there are none.
_Image: TypeAlias = tuple[int, bytes | np.ndarray | ImageError]
_Result: TypeAlias = tuple[int, np.ndarray | ImageError]


class DecodePool:
    """Processes that turn encoded images into pixels, ahead of their consumer and in order.

    Each process is a fresh interpreter that imports Pillow and NumPy, and numba where there is much to
    resize; scripts need no ``__main__`` guard. Pixels come back through shared memory. A process that
    crashes, is killed, hangs or asks for too much memory is replaced; the image it had in hand becomes an
    `ImageError`, and the others of its batch are decoded again.

    Parameters
    ----------
    frame : Frame
        What every image is fitted to.
    n_workers : int, optional
        Processes; as many as there are cores to use by default. 0 decodes in this very process, without
        any protection.
    timeout : float
        Seconds of waiting for one image after which its process is taken for hung.
    memory_limit : int
        Bytes that a process may allocate (on Linux). 2 GiB decode every image that the policy allows.

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
        self, frame: Frame, *, n_workers: int | None = None, timeout: float = 60.0, memory_limit: int = 2 * 2**30
    ) -> None:
        n_workers = n_cores() if n_workers is None else n_workers
        self._frame = frame
        self._timeout = timeout
        self._memory_limit = memory_limit
        self._batch_size = min(_BATCH_IMAGES, max(1, _BATCH_BYTES // (frame.height * frame.width * 3)))
        self._failed_starts = 0
        self._mapping = False
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        self._decoders: list[Decoder] = []
        try:
            for _ in range(n_workers):
                self._decoders.append(self._new_decoder())
        except OSError as error:
            self.close()
            if error.errno in (errno.EFBIG, errno.ENOSPC, errno.EDQUOT):  # they share memory by temporary files
                raise explanation(error, "write in", Path(tempfile.gettempdir())) from error
            raise FeatxError(f"Cannot start {n_workers} decoding processes ({error}). Try --workers 1") from error

    def _new_decoder(self) -> Decoder:
        return Decoder(
            self._frame,
            depth=_DEPTH,
            batch_size=self._batch_size,
            memory_limit=self._memory_limit,
            stderr=self._stderr,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all processes at once, whatever they are doing, and free the shared memory."""
        while self._decoders:
            self._decoders.pop().close()
        self._stderr.close()

    @property
    def pids(self) -> list[int]:
        """Process ids of the living decoders."""
        return [decoder.process.pid for decoder in self._decoders]

    def map(self, images: Iterable[_Image], names: Sequence[str] | None = None) -> Iterator[_Result]:
        """Decode images, reading only so far ahead as keeps the processes busy.

        Parameters
        ----------
        images : iterable of (int, bytes or ndarray or ImageError)
            An index of the caller's and an image as `featx.images.decode` takes it. An `ImageError` (of an
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
        if self._mapping:
            raise RuntimeError("This DecodePool is in the middle of a map; take another pool for a second one.")
        self._mapping = True
        try:
            doubts: dict[int, str] = {}
            for job in self._map(iter(images)) if self._decoders else _decoded_here(images, self._frame):
                if job.doubts and not doubts:
                    doubts = job.doubts
                    index, text = next(iter(doubts.items()))
                    _say_once(f"{names[index] if names else f'image {index + 1:,}'}: {text}")
                yield from job.results()
        finally:
            self._mapping = False

    def _map(self, images: Iterator[_Image]) -> Iterator[Job]:
        # Jobs of an earlier map, whose consumer stopped early, are finished too, and their results dropped.
        pending: deque[Job] = deque()
        exhausted = False
        while pending or not exhausted:
            decoder = max(self._decoders, key=lambda each: each.n_free)
            can_submit = not exhausted and decoder.n_free > 0 and len(pending) < 2 * _DEPTH * len(self._decoders)
            if can_submit:
                job = Job(self._take(images))
                exhausted = not job.indices
                if job.indices:
                    pending.append(job)
                    decoder.submit(job)
            ready = pending and pending[0].done
            self._collect(0.0 if can_submit or ready else _TICK)
            while pending and pending[0].done:
                yield pending.popleft()

    def _take(self, images: Iterator[_Image]) -> list[_Image]:
        batch: list[_Image] = []
        n_bytes = 0
        for index, image in islice(images, self._batch_size):
            batch.append((index, image))
            n_bytes += _n_bytes(image)
            if n_bytes >= _BATCH_BYTES:
                break
        return batch

    def _collect(self, seconds: float) -> None:
        """Read the answers that have come, and replace processes that died or have hung for too long."""
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


def _decoded_here(images: Iterable[_Image], frame: Frame) -> Iterator[Job]:
    """Decode in this process, one image a job."""
    for index, image in images:
        job = Job([(index, image)])
        job.pixels = np.empty(1)
        try:
            if not isinstance(image, ImageError):
                with warned() as said:
                    job.pixels = prepare(image, frame)[np.newaxis]
                job.doubts = {index: said[0]} if said else {}
        except ImageError as error:
            job.fail(0, error)
        yield job


@functools.lru_cache
def _say_once(text: str) -> None:
    """Say it once in the life of this process: augmented views are made of the same images."""
    log.warning("%s", text)


def _n_bytes(image: bytes | np.ndarray | ImageError) -> int:
    if isinstance(image, np.ndarray):
        return image.nbytes
    return 0 if isinstance(image, ImageError) else len(image)
