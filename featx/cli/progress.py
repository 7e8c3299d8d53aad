"""Progress on stderr: a bar with rate and ETA on a terminal, one line every few seconds elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from featx.cli.common import n_bytes_text, seconds_text

if TYPE_CHECKING:
    from types import TracebackType

    from featx.progress import Progress

#: Seconds between two lines where stderr is no terminal, and between two redraws where it is.
LINE_SECONDS = 5.0
DRAW_SECONDS = 0.1
_BAR = 24


class ProgressLine:
    """Draws each `Progress` it is called with; used as a context manager it ends the line."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._drawn_at, self._open = time.perf_counter(), False
        self._preparing = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._open:
            sys.stderr.write("\n")
            self._open = False

    def bytes_counter(self, step: str, total: int) -> Callable[[int], None]:
        """Return a function that takes bytes as they are done and draws how far `total` is."""
        done, started = 0, time.perf_counter()

        def count(n_bytes: int) -> None:
            nonlocal done
            done += n_bytes
            if self._is_due(at_once=self._terminal and done >= total):
                rate = done / max(time.perf_counter() - started, 1e-9)
                self._draw(
                    f"{step} {_bar(done, total)} {n_bytes_text(done)}/{n_bytes_text(total)}  {n_bytes_text(rate)}/s"
                    f"  ETA {seconds_text(max(0, total - done) / rate)}"
                )

        return count

    def note(self, text: str) -> None:
        """Say something on a line of its own, below what is drawn."""
        if not self._quiet:
            sys.stderr.write(f"\n{text}\n" if self._open else f"{text}\n")
            self._open = False

    def __call__(self, progress: Progress) -> None:
        """Draw `progress` if it is time to, and at once if it is the first that comes of long preparations."""
        awaited = self._preparing and progress.done > 0
        self._preparing = progress.done == 0
        if self._is_due(at_once=awaited or (self._terminal and progress.done == progress.total)):
            self._draw(describe(progress))

    def _is_due(self, *, at_once: bool) -> bool:
        now = time.perf_counter()
        pause = DRAW_SECONDS if self._terminal else LINE_SECONDS
        if self._quiet or (now - self._drawn_at < pause and not at_once):
            return False
        self._drawn_at = now
        return True

    def _draw(self, text: str) -> None:
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write("\r" + text[:width].ljust(width))
            self._open = True
        else:
            sys.stderr.write(text + "\n")
        sys.stderr.flush()


def describe(progress: Progress) -> str:
    """Return one line: bar, count, rate, ETA, and what the time went into.

    Examples
    --------
    >>> from featx.progress import Progress
    >>> describe(Progress("extract", 500, 1000, 10.0, 2.5))
    'extract ############············ 500/1,000  50.0 images/s  ETA 10.0 s  25 % waiting for images'
    >>> describe(Progress("extract", 0, 1000, 0.0))
    'extract ························ 0/1,000  preparing'
    """
    if not progress.done:
        return f"{progress.step} {_bar(0, progress.total)} 0/{progress.total:,}  preparing"
    rate = progress.done / max(progress.seconds, 1e-9)
    text = (
        f"{progress.step} {_bar(progress.done, progress.total)} {progress.done:,}/{progress.total:,}"
        f"  {rate:.1f} images/s  ETA {seconds_text((progress.total - progress.done) / max(rate, 1e-9))}"
    )
    if progress.waiting > 0:
        text += f"  {progress.waiting / max(progress.seconds, 1e-9):.0%} waiting for images".replace("%", " %")
    return text


def _bar(done: int, total: int) -> str:
    full = min(_BAR, _BAR * done // max(total, 1))
    return "#" * full + "·" * (_BAR - full)
