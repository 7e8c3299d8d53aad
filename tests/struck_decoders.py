"""Decoding processes that are struck in the middle of a large image."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from PIL import Image

from featx.errors import ImageError


def encode(image: Image.Image, container: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, container, **options)
    return buffer.getvalue()


#: Eighty million pixels in a few kilobytes: a second of work, and 400 MB of memory.
LARGE = encode(Image.new("L", (8_000, 10_000)))


def children(thread: int) -> set[int]:
    """Processes, zombies too, that a thread of this process started."""
    text = Path(f"/proc/self/task/{thread}/children").read_text()
    return {int(pid) for pid in text.split()}


def holds_large(pid: int) -> bool:
    """Whether a decoder is in the middle of `LARGE`, by the memory it holds; it needs 160 MB for anything else."""
    try:
        if b"featx.images.worker" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            return False  # just born, and still with the memory of its parent
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") > 250e6
    except OSError:
        return False


@contextlib.contextmanager
def striking(pids: Callable[[], Iterable[int]], sign: signal.Signals, times: int = 1) -> Iterator[list[int]]:
    """Meanwhile, send a signal to those of `pids` that are in the middle of `LARGE`."""
    struck: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while len(struck) < times and not over.wait(0.005):
            for pid in pids():
                if pid not in struck and holds_large(pid):
                    struck.append(pid)
                    os.kill(pid, sign)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield struck
    finally:
        over.set()
        thread.join()


def reasons(results: Iterable[tuple[int, object]]) -> dict[int, str]:
    return {index: str(result) for index, result in results if isinstance(result, ImageError)}
