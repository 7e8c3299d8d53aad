"""Which table a command means: a file, the one used last, or data that have to be extracted first. And its export."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featx.cli.common import Console, common, n_bytes_text
from featx.cli.options import output_option, settings_options
from featx.errors import DataError, OptionError
from featx.features.export import Export

if TYPE_CHECKING:
    from featx.extraction import Extract
    from featx.features import Features
    from featx.recipe import Request


def is_table(source: str | None) -> bool:
    """Say whether `source` names a table file."""
    return source is not None and Path(source).suffix.lower() in {".h5", ".hdf5"}


def find_table(
    console: Console,
    source: str | None,
    cache: Path,
    settings: Extract | None,
    request: Request | None = None,
    *,
    remember: bool = True,
) -> Features:
    """Open the table that `source` names, or the one used last, or extract the data that `source` names.

    Data are extracted as `request` says, or without one as `settings` do; no settings, no data. With `remember` the
    table is the one used last from now on.

    Raises
    ------
    DataError
        If there is none, or several that it could be.
    """
    from featx.features import Features
    from featx.store.opening import last_used, note_last_used, open_store

    if source is not None and not is_table(source):
        if settings is None:
            raise DataError(f"{source} is no table. Name its .h5 file; all of them: featx cache list")
        return _extracted(console, source, cache, settings, request, remember=remember)
    store = open_store(cache)
    path = Path(source) if source is not None else _only(last_used(store), cache)
    table = Features.open(path)
    if remember and path.is_relative_to(store.root):
        note_last_used(store, [path])
    console.note(f"Reading {' × '.join(f'{n:,}' for n in table.shape)} features from {path}")
    return table


def _only(paths: list[Path], cache: Path) -> Path:
    if not paths:
        raise DataError(
            f"No table used yet in {cache}. Make one: featx extract photos/   (or name one: featx fit TABLE)"
        )
    if len(paths) > 1:
        names = shlex.join(map(str, paths))
        raise DataError(f"{len(paths)} layers were extracted last; name the table to take: {names}")
    return paths[0]


def _extracted(
    console: Console, source: str, cache: Path, settings: Extract, known: Request | None, *, remember: bool
) -> Features:
    from featx.extraction import run

    request = known or settings.request
    if not request.is_one:
        raise OptionError("One layer at a time here: give --layer once, or make the tables first with featx extract.")
    with console.progress() as progress:
        done = run(
            settings.open(source),
            request,
            cache=cache,
            options=settings.options,
            on_progress=progress,
            views=settings.asked_views,
            remember=remember,
        )
    (table,) = done.tables
    console.note(*done.notes, f"{done.computed:,} images computed, {done.reused:,} reused: {table.path}")
    return table


@click.command()
@click.argument("table", required=False)
@output_option(None, "Where it goes.", metavar="F.{npz,parquet,csv,h5}")
@settings_options(Export)
@common
def export(console: Console, cache: Path, table: str | None, output: Path, *, columns: bool) -> None:
    """Write TABLE, or the table used last, in another form; the ending of the file names it.

    \b
    featx export -o features.parquet
    """
    features = find_table(console, table, cache, None)
    path = features.export(output, columns=columns)
    n_bytes = path.stat().st_size
    console.result(
        {"path": str(path), "rows": len(features), "bytes": n_bytes},
        f"{path}: {len(features):,} rows, {n_bytes_text(n_bytes)}",
    )
