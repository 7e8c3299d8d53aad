"""What every command has: its common options, where its words go, tables, and progress."""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click

from featx.errors import OutputError
from featx.machine import VARIABLE, configure, parse_threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from featx.progress import Progress

#: Names of the options that every command has.
COMMON = ("cache", "as_json", "quiet", "verbose", "threads", "debug")
#: Seconds between two lines where stderr is no terminal, and between two redraws where it is.
LINE_SECONDS = 5.0
DRAW_SECONDS = 0.1


@dataclass(frozen=True)
class Console:
    """Where a command's words go: the result to stdout, all else to stderr.

    Attributes
    ----------
    as_json : bool
        Print exactly one JSON object instead of text.
    quiet : bool
        No progress, no notes, no warnings.
    """

    as_json: bool
    quiet: bool

    def result(self, data: dict[str, Any], text: str) -> None:
        """Print the command's result: `data` under ``--json``, else `text`."""
        try:
            click.echo(json_text(data) if self.as_json else escaped(text, keep="\n"))
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"Standard output takes no more: {error.strerror}. Write it elsewhere.") from error

    def note(self, *lines: str) -> None:
        """Say on stderr what was decided, or what one should know."""
        if not self.quiet:
            for line in lines:
                click.echo(escaped(line, keep="\n"), err=True)

    def progress(self) -> ProgressLine:
        """Return what shows progress on stderr, to be used in a ``with``."""
        return ProgressLine(quiet=self.quiet)


def common(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """Add ``--cache --json -q -v --threads --debug`` to a command and hand it a `Console` as ``console``."""

    @click.option(
        "--cache",
        type=click.Path(path_type=Path),
        envvar="FEATX_CACHE",
        default=Path("cache"),
        show_default="./cache",
        help="Cache folder (also FEATX_CACHE).",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON object on stdout.")
    @click.option("-q", "--quiet", is_flag=True, help="Results only: no progress, no notes, no warnings.")
    @click.option("-v", "--verbose", is_flag=True, help="Say more on stderr.")
    @click.option("--threads", metavar="N", help="Processor threads at most (also FEATX_THREADS). Default: all cores.")
    @click.option("--debug", is_flag=True, help="Log everything; a traceback where something unexpected fails.")
    @functools.wraps(command)
    def wrapped(
        *, as_json: bool, quiet: bool, verbose: bool, debug: bool, threads: str | None, **options: Any
    ) -> int | None:
        if threads is not None:
            os.environ[VARIABLE] = str(parse_threads(threads))
        configure()
        level = logging.DEBUG if debug else logging.INFO if verbose else logging.ERROR if quiet else logging.WARNING
        logging.basicConfig(handlers=[_StderrHandler()], level=logging.WARNING, format="%(message)s", force=True)
        logging.getLogger("featx").setLevel(level)
        return command(console=Console(as_json, quiet), **options)

    return wrapped


class _StderrHandler(logging.Handler):
    """Writes to what stderr is at that moment: while a bar is drawn, above it."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


def json_text(data: dict[str, Any]) -> str:
    """Return `data` as one line of JSON; file names that are no UTF-8 are escaped."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False)
    return json.dumps(data, allow_nan=False) if any("\ud800" <= c <= "\udfff" for c in text) else text


def escaped(text: str, *, keep: str = "") -> str:
    r"""Write characters that would move a terminal's cursor, or that it cannot show, as escapes; `keep` stays.

    Examples
    --------
    >>> print(escaped("a\x1b[31m\nb ü"))
    a\x1b[31m\nb ü
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def table(rows: list[list[str]], header: list[str], align: str) -> str:
    """Lay out `rows` under `header` in columns.

    A table of rich comes out the same and takes seventy times as long: a second for all backbones.

    Parameters
    ----------
    rows : list of list of str
        Cells.
    header : list of str
        Column names.
    align : str
        One of ``l`` or ``r`` a column.

    Examples
    --------
    >>> print(table([["vgg16", "512"], ["alexnet", "256"]], ["backbone", "d"], "lr"))
    backbone    d
    vgg16     512
    alexnet   256
    """
    lines = [[escaped(cell) for cell in row] for row in [header, *rows]]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell + " " * (width - _width(cell)) if side == "l" else " " * (width - _width(cell)) + cell
            for cell, width, side in zip(row, widths, align, strict=True)
        ).rstrip()
        for row in lines
    )


def _width(text: str) -> int:
    """Return how many columns of a terminal `text` takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def n_bytes_text(n_bytes: float) -> str:
    """Write a size for people.

    Examples
    --------
    >>> n_bytes_text(512), n_bytes_text(2_500_000)
    ('512 B', '2.4 MiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.1f} TiB"


def seconds_text(seconds: float) -> str:
    """Write a duration for people.

    Examples
    --------
    >>> seconds_text(3.21), seconds_text(75), seconds_text(7300)
    ('3.2 s', '1 min 15 s', '2 h 01 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


class ProgressLine:
    """Shows each `Progress` it is called with: a bar on a terminal, elsewhere a line every few seconds."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._said_at, self._preparing = time.perf_counter(), False
        self._bars: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def __call__(self, progress: Progress) -> None:
        """Show `progress` if it is time to, and at once if it is the first that comes of long preparations."""
        awaited = self._preparing and progress.done > 0
        self._preparing = progress.done == 0
        if self._is_due(at_once=awaited or (self._terminal and progress.done == progress.total)):
            self._show(progress.step, progress.done, progress.total, facts(progress))

    def bytes_counter(self, step: str, total: int) -> Callable[[int], None]:
        """Return a function that takes bytes as they are done and shows how far `total` is."""
        done, started = 0, time.perf_counter()

        def count(n_bytes: int) -> None:
            nonlocal done
            done += n_bytes
            if self._is_due(at_once=self._terminal and done >= total):
                rate = done / max(time.perf_counter() - started, 1e-9)
                left = seconds_text(max(0, total - done) / max(rate, 1e-9))
                so_far = f"{n_bytes_text(done)}/{n_bytes_text(total)}"
                self._show(step, done, total, f"{so_far}  {n_bytes_text(rate)}/s  ETA {left}")

        return count

    def note(self, text: str) -> None:
        """Say something on a line of its own, above the bar."""
        if not self._quiet:
            print(escaped(text), file=sys.stderr)

    def _is_due(self, *, at_once: bool) -> bool:
        now = time.perf_counter()
        pause = DRAW_SECONDS if self._terminal else LINE_SECONDS
        if self._quiet or (now - self._said_at < pause and not at_once):
            return False
        self._said_at = now
        return True

    def _show(self, step: str, done: int, total: int, text: str) -> None:
        if not self._terminal:
            print(f"{step} {text}", file=sys.stderr, flush=True)
            return
        if self._bars is None:
            from rich.console import Console as Terminal
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bars

            step_column, text_column = (
                TextColumn(f"{{task.{name}}}", markup=False) for name in ("description", "fields[text]")
            )
            self._bars = Bars(
                step_column, BarColumn(24), text_column, console=Terminal(stderr=True), auto_refresh=False
            )
            self._bars.add_task(step, text=text)
            self._bars.start()
        self._bars.update(0, description=step, completed=done, total=total, text=text, refresh=True)


def facts(progress: Progress) -> str:
    """Return count, rate, ETA, and what the time went into.

    Examples
    --------
    >>> from featx.progress import Progress
    >>> facts(Progress("extract", 500, 1000, 10.0, 2.5))
    '500/1,000  50.0 images/s  ETA 10.0 s  25 % waiting for images'
    >>> facts(Progress("extract", 0, 1000, 0.0))
    '0/1,000  preparing'
    """
    count = f"{progress.done:,}/{progress.total:,}"
    if not progress.done:
        return f"{count}  preparing"
    rate = max(progress.done / max(progress.seconds, 1e-9), 1e-9)
    text = f"{count}  {rate:.1f} images/s  ETA {seconds_text((progress.total - progress.done) / rate)}"
    share = progress.waiting / max(progress.seconds, 1e-9)
    return f"{text}  {100 * share:.0f} % waiting for images" if progress.waiting > 0 else text
