"""One decoding process seen from the run: the memory it shares, its jobs and answers, its death or silence."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import mmap
import os
import signal
import socket
import subprocess
import tempfile
import warnings
from collections import deque
from collections.abc import Iterator
from typing import IO, NamedTuple

import numpy as np

from featx.errors import ImageError, ImageWarning
from featx.machine import start_python
from featx.recipe import Frame

# glibc would give an image's memory back to the system after each image and fault it in again for the next,
# which cost 0.8 ms for a photo of 500×333.
_KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(2**27), "MALLOC_MMAP_THRESHOLD_": str(2**25)}


class Job:
    """A batch of images on its way through one decoding process.

    Parameters
    ----------
    batch : list of (int, bytes or ndarray or ImageError)
        The caller's index and the image; an error is its own result.
    """

    def __init__(self, batch: list[tuple[int, bytes | np.ndarray | ImageError]]) -> None:
        self.indices = [index for index, _ in batch]
        self.images = {k: image for k, (_, image) in enumerate(batch) if not isinstance(image, ImageError)}
        self.failures = {k: image for k, (_, image) in enumerate(batch) if isinstance(image, ImageError)}
        self.doubts: dict[int, str] = {}
        self.pixels: np.ndarray | None = None

    @property
    def done(self) -> bool:
        """Whether the process has answered."""
        return self.pixels is not None

    def fail(self, position: int, error: ImageError) -> None:
        """Make an error the result of the image at that position."""
        self.failures[position] = error
        del self.images[position]

    def results(self) -> Iterator[tuple[int, np.ndarray | ImageError]]:
        """Yield (index, pixels or error) in the order of the batch."""
        assert self.pixels is not None
        for k, index in enumerate(self.indices):
            yield index, self.failures.get(k, self.pixels[k])


class Decoder:
    """One decoding process, its socket, and the slots of shared memory that it works in.

    Parameters
    ----------
    frame : Frame
        What it fits every image to.
    depth, batch_size : int
        Number of slots, and images in each.
    memory_limit : int
        Bytes it may allocate.
    stderr : file
        Where it may complain while it starts.
    """

    def __init__(self, frame: Frame, *, depth: int, batch_size: int, memory_limit: int, stderr: IO[bytes]) -> None:
        self._settings = {
            "frame": dataclasses.asdict(frame),
            "batch_size": batch_size,
            "memory_limit": memory_limit,
        }
        self._stderr = stderr
        size = {"batch_size": batch_size, "height": frame.height, "width": frame.width}
        self._slots: list[Slot] = []
        try:
            for _ in range(depth):
                self._slots.append(Slot(create_memory(), **size))
            self._start()
        except OSError:
            self._free_memory()
            raise

    def _start(self) -> None:
        self._free = deque(range(len(self._slots)))
        self._jobs: deque[tuple[int, Job]] = deque()
        self._silence = 0.0
        self._last_seen: tuple[int, int] = (0, IDLE)
        self._half_line = b""
        self.n_replies = 0
        fds = [slot.fd for slot in self._slots]
        near_end, far_end = socket.socketpair()
        settings = self._settings | {"socket": far_end.fileno(), "slots": fds}
        with far_end, contextlib.ExitStack() as undo:
            undo.callback(near_end.close)
            self.process = start_python(
                "-m",
                "featx.images.worker",
                json.dumps(settings),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                pass_fds=[far_end.fileno(), *fds],
                env=_KEEP_MEMORY,
            )
            undo.pop_all()
        self.channel = near_end

    @property
    def n_free(self) -> int:
        """Number of slots that wait for a job."""
        return len(self._free)

    @property
    def at_work(self) -> bool:
        """Whether an image is being decoded at this moment."""
        return bool(self._jobs) and self._slots[self._jobs[0][0]].progress != IDLE

    def submit(self, job: Job) -> None:
        """Send a job to the process; there must be a free slot."""
        number = self._free.popleft()
        self._jobs.append((number, job))
        self._send(number, job)

    def _send(self, number: int, job: Job) -> None:
        slot = self._slots[number]
        slot.progress = IDLE
        parcels = slot.put(list(job.images.items()))
        try:
            self.channel.sendall(json.dumps({"slot": number, "parcels": parcels}).encode() + b"\n")
        except OSError:  # it is dead: `receive` will find out
            return

    def receive(self) -> bool:
        """Take in the answers that have come. False when the process has died."""
        try:
            data = self.channel.recv(2**16)
        except OSError:
            return False
        *lines, self._half_line = (self._half_line + data).split(b"\n")
        for line in lines:
            self._finish(Answer(*json.loads(line)))
        return bool(data)

    def _finish(self, answer: Answer) -> None:
        number, job = self._jobs.popleft()
        job.doubts = {job.indices[position]: text for position, text in answer.doubts}
        for position, reason, transient in answer.failures:
            job.fail(position, ImageError(reason, transient=transient))
        job.pixels = self._slots[number].pixels[: len(job.indices)].copy()
        job.images.clear()
        self._free.append(number)
        self.n_replies += 1

    def silence(self, waited: float) -> float:
        """Add to, and return, the seconds that were spent waiting since it last began an image."""
        seen = (self.n_replies, self._slots[self._jobs[0][0]].progress) if self._jobs else (self.n_replies, IDLE)
        self._silence = self._silence + waited if self._jobs and seen == self._last_seen else 0.0
        self._last_seen = seen
        return self._silence

    def reason_of_death(self) -> str:
        """Return why the process ended, as the reason why the image that it was decoding has no pixels."""
        code = self.process.wait()
        if code == -signal.SIGKILL:
            return "the decoder was killed (SIGKILL), as the system does when memory runs out"
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"the decoder crashed ({name})"

    def restart(self, error: ImageError) -> None:
        """Start a new process for the jobs of the old one, without the image that it was decoding."""
        jobs = list(self._jobs)
        if self.at_work:
            number, job = jobs[0]
            job.fail(self._slots[number].progress, error)
        self._stop()
        self._start()
        for _, job in jobs:
            self.submit(job)

    def _stop(self) -> None:
        self.process.kill()  # it holds nothing that could be lost
        self.process.wait()
        self.channel.close()

    def close(self) -> None:
        """End the process and free its memory."""
        self._stop()
        self._free_memory()

    def _free_memory(self) -> None:
        while self._slots:
            os.close(self._slots.pop().fd)


#: `Slot.progress` when no image is being decoded.
IDLE = -1

_COUNTER_BYTES = 8


class Parcel(NamedTuple):
    """Where one image lies behind a slot's pixels: bytes of a file, or of an array of that shape."""

    position: int
    offset: int
    n_bytes: int
    shape: list[int] | None


class Answer(NamedTuple):
    """What is said of a batch: position, reason and transience of failures; position and text of warnings."""

    failures: list[tuple[int, str, bool]]
    doubts: list[tuple[int, str]]


@contextlib.contextmanager
def warned() -> Iterator[list[str]]:
    """Collect the texts of `ImageWarning`; other warnings are Pillow's, of no use to anybody."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", ImageWarning)
        yield texts
        texts += [str(warning.message) for warning in caught]


class Slot:
    """A counter of progress, room for the pixels of a batch, and behind them the encoded images.

    The memory has no name, so nothing is left of it when its last process ends, however it ends; and it
    is not bound by the size of ``/dev/shm``, 64 MiB in a container.

    Parameters
    ----------
    fd : int
        File descriptor from `create_memory`, inherited by the decoding process.
    batch_size, height, width : int
        Room for so many images of that many pixels.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (batch_size, height, width, 3)
        Written by the decoding process.
    """

    def __init__(self, fd: int, *, batch_size: int, height: int, width: int) -> None:
        self.fd = fd
        self._mapped_bytes = _COUNTER_BYTES + batch_size * height * width * 3
        os.truncate(fd, max(self._mapped_bytes, os.fstat(fd).st_size))
        memory = mmap.mmap(fd, self._mapped_bytes)
        self._counter = np.frombuffer(memory, np.int64, count=1)
        self.pixels = np.frombuffer(memory, np.uint8, offset=_COUNTER_BYTES).reshape(batch_size, height, width, 3)

    @property
    def progress(self) -> int:
        """Position in the batch of the image that is being decoded, or `IDLE`."""
        return int(self._counter[0])

    @progress.setter
    def progress(self, position: int) -> None:
        self._counter[0] = position

    def put(self, images: list[tuple[int, bytes | np.ndarray]]) -> list[Parcel]:
        """Write (position, image) pairs behind the pixels, in place of those of the batch before."""
        os.truncate(self.fd, self._mapped_bytes)
        parcels, offset = [], self._mapped_bytes
        for position, image in images:
            shape = list(image.shape) if isinstance(image, np.ndarray) else None
            data = np.ascontiguousarray(image).reshape(-1).data if isinstance(image, np.ndarray) else image
            parcels.append(Parcel(position, offset, len(data), shape))
            offset += _write(self.fd, data, offset)
        return parcels

    def get(self, parcel: Parcel) -> bytes | np.ndarray:
        """Read one image that the other side has `put`."""
        data = os.pread(self.fd, parcel.n_bytes, parcel.offset)
        return data if parcel.shape is None else np.frombuffer(data, np.uint8).reshape(parcel.shape)


def create_memory() -> int:
    """Open a file without a name: memory on Linux, elsewhere a temporary file that is already deleted."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("featx-pixels")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _write(fd: int, data: bytes | memoryview, offset: int) -> int:
    written = 0
    while written < len(data):  # one call writes 2 GiB at most
        written += os.pwrite(fd, data[written:], offset + written)
    return written
