"""One decoding process seen from the run: its inbox, its jobs and answers, its death or silence."""

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
from collections.abc import Iterable
from typing import IO, Any, NamedTuple

import numpy as np

from featx.errors import ImageError, ImageWarning
from featx.images.policy import File, Unread, item_id
from featx.images.resizing import Resize, by_pillow, prepare
from featx.machine import start_python
from featx.recipe import Frame

# glibc would give an image's memory back to the system after each image and fault it in again for the next,
# which cost 0.8 ms for a photo of 500×333.
_KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(2**27), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
#: An inbox that holds more is emptied by its decoder before more is put in.
_INBOX_BYTES = 16 * 2**20
#: Jobs in front of a decoder, whose answers all fit a socket: neither side ever waits for the other to read.
_MOST_JOBS = 16
_REASON_LENGTH = 300


class Slab:
    """A batch of images as pixels, in memory that the decoders write themselves.

    An image counts only once its decoder has reported it: what a decoder that died has left is written again, or black.

    Parameters
    ----------
    memory : ndarray of uint8, shape (size, height, width, 3)
        Shared with the decoders.
    first_row : int
        Where that lies in the memory of all slabs.

    Attributes
    ----------
    indices : list of int, length n
        The caller's indices of the images.
    pixels : ndarray of uint8, shape (n, height, width, 3)
        Black where there is no image. Valid until `DecodePool.release`.
    item_ids : ndarray of uint8, shape (n, 32)
        `item_id` of what was decoded; zeros where it could not be read.
    errors : dict of int to ImageError
        Why there is no image, by place in the batch.
    doubts : dict of int to str
        What is to be said of an image, by place in the batch.
    """

    def __init__(self, memory: np.ndarray, first_row: int = 0) -> None:
        self._memory, self.first_row = memory, first_row
        self.indices: list[int] = []
        self._item_ids = np.zeros((len(memory), 32), np.uint8)
        self.errors: dict[int, ImageError] = {}
        self.doubts: dict[int, str] = {}
        self.n_jobs = 0
        self.is_closed = False

    @property
    def pixels(self) -> np.ndarray:
        """The images, (n, height, width, 3)."""
        return self._memory[: len(self.indices)]

    @property
    def item_ids(self) -> np.ndarray:
        """Their content hashes, (n, 32)."""
        return self._item_ids[: len(self.indices)]

    @property
    def n(self) -> int:
        """How many images it has."""
        return len(self.indices)

    @property
    def n_left(self) -> int:
        """How many more images it can take."""
        return len(self._memory) - len(self.indices)

    @property
    def is_complete(self) -> bool:
        """Whether every image has been reported."""
        return self.is_closed and not self.n_jobs

    def fail(self, place: int, error: ImageError) -> None:
        """Have no image at that place, but the reason."""
        self.errors[place] = error
        self._memory[place] = 0


class Job:
    """A few images, side by side in a slab, on their way through one decoding process.

    Parameters
    ----------
    slab : Slab
    images : list of (int, bytes or ndarray or File or ImageError)
        The caller's index and the image; an error is its own result.
    """

    def __init__(self, slab: Slab, images: list[tuple[int, Unread | ImageError]]) -> None:
        self.slab, self.start = slab, len(slab.indices)
        self.images: dict[int, Unread] = {}
        for place, (index, image) in enumerate(images):
            slab.indices.append(index)
            if isinstance(image, ImageError):
                self.fail(place, image)
            else:
                self.images[place] = image
        slab.n_jobs += 1

    @property
    def pixels(self) -> np.ndarray:
        """Where its images go, (n, height, width, 3)."""
        return self.slab.pixels[self.start :]

    def fail(self, place: int, error: ImageError) -> None:
        """Make an error the result of the image at that place among ours."""
        self.slab.fail(self.start + place, error)
        self.images.pop(place, None)

    def finish(self, answer: Answer) -> None:
        """Take in what the decoder says of all images."""
        places = [self.start + place for place in self.images]
        self.slab.item_ids[places] = np.frombuffer(bytes.fromhex(answer.item_ids), np.uint8).reshape(-1, 32)
        self.slab.doubts.update((self.start + place, text) for place, text in answer.doubts)
        for place, reason, transient in answer.failures:
            self.fail(place, ImageError(reason, transient=transient))
        self.images.clear()
        self.slab.n_jobs -= 1


class Answer(NamedTuple):
    """What is said of the images of a job, which are known by their places in it.

    Attributes
    ----------
    item_ids : str
        Hexadecimal digits: `item_id` of every image, one after the other; zeros where it could not be read.
    failures : list of (int, str, bool)
        Place, reason and transience of every image that failed.
    doubts : list of (int, str)
        Place and text of warnings.
    """

    item_ids: str
    failures: list[tuple[int, str, bool]]
    doubts: list[tuple[int, str]]


def decode_into(
    pixels: np.ndarray, images: Iterable[tuple[int, Unread]], frame: Frame, resize: Resize = by_pillow
) -> Answer:
    """Decode images to their places in `pixels`.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (n, frame.height, frame.width, 3)
        Nothing is written where an image fails.
    images : iterable of (int, bytes or ndarray or File)
        Place and image.
    frame : Frame
    resize : callable
        As in `featx.images.fit`.
    """
    item_ids, failures, doubts = [], [], []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("ignore")  # those of Pillow, of no use to anybody
        warnings.simplefilter("always", ImageWarning)
        for place, image in images:
            said.clear()
            known = bytes(32)
            try:
                data = image.read() if isinstance(image, File) else image
                known = item_id(data)
                pixels[place] = prepare(data, frame, resize)
                doubts += [(place, str(warning.message)) for warning in said]
            except ImageError as error:
                failures.append((place, str(error)[:_REASON_LENGTH], error.transient))
            except MemoryError:
                failures.append((place, "decoding needs more memory than a decoder may use", True))
            item_ids.append(known)
    return Answer(b"".join(item_ids).hex(), failures, doubts)


class Decoder:
    """One decoding process, its socket and its inbox.

    Parameters
    ----------
    frame : Frame
        What it fits every image to.
    memory : int
        File descriptor of the memory of all slabs.
    memory_limit : int
        Bytes it may allocate.
    stderr : file
        Where it may complain while it starts.
    n_images : int, optional
        How many it will get, about.
    max_pixels : int, optional
        Larger images are refused.
    """

    def __init__(
        self,
        frame: Frame,
        *,
        memory: int,
        memory_limit: int,
        stderr: IO[bytes],
        n_images: int | None = None,
        max_pixels: int | None = None,
    ) -> None:
        self._settings = {
            "frame": dataclasses.asdict(frame), "memory": memory, "memory_limit": memory_limit, "n_images": n_images,
            "max_pixels": max_pixels,
        }  # fmt: skip
        self._memory, self._stderr = memory, stderr
        self._inbox = Inbox(create_memory())
        try:
            self._start()
        except OSError:
            self._inbox.close()
            raise

    def _start(self) -> None:
        self.jobs: deque[Job] = deque()
        self._silence = 0.0
        self._last_seen: tuple[int, int] = (0, IDLE)
        self._half_line = b""
        self.n_replies = 0
        near_end, far_end = socket.socketpair()
        own = {"socket": far_end.fileno(), "inbox": self._inbox.fd}
        with far_end, contextlib.ExitStack() as undo:
            undo.callback(near_end.close)
            self.process = start_python(
                "-m",
                "featx.images.worker",
                json.dumps(self._settings | own),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                pass_fds=[*own.values(), self._memory],
                env=_KEEP_MEMORY,
            )
            undo.pop_all()
        self.channel = near_end

    @property
    def has_room(self) -> bool:
        """Whether another job may be submitted."""
        return not self.jobs or (len(self.jobs) < _MOST_JOBS and self._inbox.n_bytes < _INBOX_BYTES)

    @property
    def at_work(self) -> bool:
        """Whether an image is being decoded at this moment."""
        return bool(self.jobs) and self._inbox.progress != IDLE

    def submit(self, job: Job) -> None:
        """Send a job to the process."""
        if not self.jobs:
            self._inbox.empty()
        self.jobs.append(job)
        parcels = [[place, *self._inbox.put(image)] for place, image in job.images.items()]
        message = json.dumps({"first": job.slab.first_row + job.start, "parcels": parcels}).encode()
        try:
            self.channel.sendall(json.dumps(self._inbox.put(message)[:2]).encode() + b"\n")
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
            self.jobs.popleft().finish(Answer(*json.loads(line)))
            self.n_replies += 1
        return bool(data)

    def silence(self, waited: float) -> float:
        """Add to, and return, the seconds that were spent waiting since it last began an image."""
        seen = (self.n_replies, self._inbox.progress if self.jobs else IDLE)
        self._silence = self._silence + waited if self.jobs and seen == self._last_seen else 0.0
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
        jobs, in_hand = list(self.jobs), self._inbox.progress
        self._stop()  # it writes no more
        if jobs and in_hand != IDLE:
            jobs[0].fail(in_hand, error)
        self._start()
        for job in jobs:
            self.submit(job)

    def _stop(self) -> None:
        self.process.kill()  # it holds nothing that could be lost
        self.process.wait()
        self.channel.close()

    def close(self) -> None:
        """End the process and free its memory."""
        self._stop()
        self._inbox.close()


#: `Inbox.progress` when no image is being decoded.
IDLE = -1
_COUNTER_BYTES = 8


class Inbox:
    """What goes to one decoder, behind a counter of its progress: images that are not files, and its jobs.

    The memory has no name, so nothing is left of it when its last process ends, however it ends; and it
    is not bound by the size of ``/dev/shm``, 64 MiB in a container.

    Parameters
    ----------
    fd : int
        File descriptor from `create_memory`, inherited by the decoding process.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        if not os.fstat(fd).st_size:
            os.truncate(fd, _COUNTER_BYTES)
        self._counter = np.frombuffer(mmap.mmap(fd, _COUNTER_BYTES), np.int64)
        self._end = _COUNTER_BYTES

    @property
    def progress(self) -> int:
        """Place in its job of the image that is being decoded, or `IDLE`."""
        return int(self._counter[0])

    @progress.setter
    def progress(self, place: int) -> None:
        self._counter[0] = place

    @property
    def n_bytes(self) -> int:
        """Bytes that wait to be decoded, or have been since it was last empty."""
        return self._end

    def empty(self) -> None:
        """Forget all images: no job is under way. What a large one took is given back, the rest is written over."""
        if self._end > _INBOX_BYTES:
            os.truncate(self.fd, _COUNTER_BYTES)
        self._end, self.progress = _COUNTER_BYTES, IDLE

    def put(self, image: Unread) -> list[Any]:
        """Write an image behind the others, and return what `get` takes; a file is only named."""
        if isinstance(image, File):
            return [*image]
        shape = list(image.shape) if isinstance(image, np.ndarray) else None
        data = np.ascontiguousarray(image).reshape(-1).data if isinstance(image, np.ndarray) else image
        offset = self._end
        self._end += _write(self.fd, data, offset)
        return [offset, len(data), shape]

    def get(self, parcel: list[Any]) -> Unread:
        """Return one image that the other side has `put`."""
        if isinstance(parcel[0], str):
            return File(*parcel)
        offset, n_bytes, shape = parcel
        data = self.read(offset, n_bytes)
        return data if shape is None else np.frombuffer(data, np.uint8).reshape(shape)

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Return bytes that the other side has written."""
        return os.pread(self.fd, n_bytes, offset)

    def close(self) -> None:
        """Give the memory back."""
        os.close(self.fd)


def create_memory() -> int:
    """Open a file without a name: memory on Linux, elsewhere a temporary file that is already deleted."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("featx-pixels")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def map_pixels(fd: int, frame: Frame) -> np.ndarray:
    """Map the memory of all slabs as large as it is now: uint8, shape (n, height, width, 3)."""
    memory = np.frombuffer(mmap.mmap(fd, os.fstat(fd).st_size), np.uint8)
    return memory.reshape(-1, frame.height, frame.width, 3)


def _write(fd: int, data: bytes | memoryview, offset: int) -> int:
    written = 0
    while written < len(data):  # one call writes 2 GiB at most
        written += os.pwrite(fd, data[written:], offset + written)
    return written
