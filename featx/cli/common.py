"""Options that every command has, and how results reach the terminal."""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx.threads import VARIABLE, configure, parse_threads

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Console:
    """Where a command's words go: the result to stdout, all else to stderr.

    Attributes
    ----------
    as_json : bool
        Print exactly one JSON object instead of text.
    quiet : bool
        No progress, no notes.
    """

    as_json: bool
    quiet: bool

    def result(self, data: dict[str, Any], text: str) -> None:
        """Print the command's result: `data` under ``--json``, else `text`."""
        click.echo(json.dumps(data, ensure_ascii=False, allow_nan=False) if self.as_json else text)

    def note(self, text: str) -> None:
        """Say on stderr what was decided."""
        if not self.quiet:
            click.echo(text, err=True)


def common(command: Callable[..., None]) -> Callable[..., None]:
    """Add ``--cache --json -q -v --debug`` to a command and hand it a `Console` as ``console``."""

    @click.option(
        "--cache",
        type=click.Path(path_type=Path),
        envvar="FEATX_CACHE",
        default=Path("cache"),
        show_default="./cache",
        help="Cache folder (also FEATX_CACHE).",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON object on stdout.")
    @click.option("-q", "--quiet", is_flag=True, help="No progress, no notes.")
    @click.option("-v", "--verbose", is_flag=True, help="Say more on stderr.")
    @click.option("--threads", metavar="N", help="Processor threads at most (also FEATX_THREADS). Default: all cores.")
    @click.option("--debug", is_flag=True, help="Log everything; a traceback where something unexpected fails.")
    @functools.wraps(command)
    def wrapped(*, as_json: bool, quiet: bool, verbose: bool, debug: bool, threads: str | None, **options: Any) -> None:
        if threads is not None:
            os.environ[VARIABLE] = str(parse_threads(threads))
        configure()
        level = logging.DEBUG if debug else logging.INFO if verbose else logging.ERROR if quiet else logging.WARNING
        logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s", force=True)
        logging.getLogger("featx").setLevel(level)
        command(console=Console(as_json, quiet), **options)

    return wrapped


def table(rows: list[list[str]], header: list[str], align: str) -> str:
    """Lay out `rows` under `header` in columns.

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
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if side == "l" else cell.rjust(width)
            for cell, width, side in zip(row, widths, align, strict=True)
        ).rstrip()
        for row in [header, *rows]
    ]
    return "\n".join(lines)


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
