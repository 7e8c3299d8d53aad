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
    from collections.abc import Sequence

    from featx.extraction import Extract
    from featx.features import Features
    from featx.recipe import Request


def is_table(source: str | None) -> bool:
    """Say whether `source` names a table file."""
    return source is not None and Path(source).suffix.lower() in {".h5", ".hdf5"}


def find_table(
    console: Console,
    source: str | Sequence[str] | None,
    cache: Path,
    settings: Extract | None,
    requests: Sequence[Request] = (),
    *,
    remember: bool = True,
) -> Features:
    """Open the table that `source` names, or the one used last, or extract the data that `source` names.

    Several tables, and several layers of data, are put side by side. Data are extracted as `requests` say, or without
    any as `settings` do; no settings, no data. With `remember` the table is the one used last from now on.

    Raises
    ------
    DataError
        If there is none, or several that it could be.
    """
    from featx.features import Features
    from featx.store.opening import last_used, note_last_used, open_store

    if isinstance(source, str) and not is_table(source):
        if settings is None:
            raise DataError(f"{source} is no table. Name its .h5 file; all of them: featx cache list")
        return _extracted(console, source, cache, settings, requests, remember=remember)
    store = open_store(cache)
    if source is None:
        paths = [_only(last_used(store), cache)]
    else:
        paths = [Path(source)] if isinstance(source, str) else list(map(Path, source))
    table = _joined(console, list(map(Features.open, paths)))
    if remember and all(path.is_relative_to(store.root) for path in paths):
        note_last_used(store, paths)
    names = ", ".join(map(str, paths))
    console.note(f"Reading {' × '.join(f'{n:,}' for n in table.shape)} features from {names}")
    return table


def one_source(sources: Sequence[str]) -> str | Sequence[str] | None:
    """Return what the arguments of a command name: nothing, DATA or a table, or several tables.

    Raises
    ------
    click.UsageError
        For several that are not all tables.
    """
    if len(sources) < 2:
        return sources[0] if sources else None
    if not all(map(is_table, sources)):
        raise click.UsageError("Several arguments are tables, .h5 files of the same images. DATA is one argument.")
    return sources


def _joined(console: Console, tables: list[Features]) -> Features:
    from featx.features import join

    table = join(tables)
    lost = table.errors[len(tables[0].errors) :]
    if lost:
        image, reason = lost[0]
        console.note(f"{len(lost):,} images are not in all tables and left out, the first {image}: {reason}")
    return table


def _only(paths: list[Path], cache: Path) -> Path:
    if not paths:
        raise DataError(
            f"No table used yet in {cache}. Make one: featx extract photos/   (or name one: featx fit TABLE)"
        )
    if len(paths) > 1:
        names = shlex.join(map(str, paths))
        raise DataError(f"{len(paths)} layers were extracted last; name the table to take, or several: {names}")
    return paths[0]


def _extracted(
    console: Console, source: str, cache: Path, settings: Extract, known: Sequence[Request], *, remember: bool
) -> Features:
    from featx.extraction import run
    from featx.store.opening import note_last_used, open_store

    requests, tables = known or [settings.request], []
    if settings.asked_views and not (len(requests) == 1 and requests[0].is_one):
        raise OptionError("Views go with one layer and pooling, not with several side by side. Leave out --views.")
    dataset = settings.open(source)
    for request in requests:
        with console.progress() as progress:
            done = run(
                dataset,
                request,
                cache=cache,
                options=settings.options,
                on_progress=progress,
                views=settings.asked_views,
                remember=remember,
            )
        paths = ", ".join(str(table.path) for table in done.tables)
        console.note(*done.notes, f"{done.computed:,} images computed, {done.reused:,} reused: {paths}")
        tables += done.tables
    if remember and len(requests) > 1:  # the last of them is remembered alone
        note_last_used(open_store(cache), [table.path for table in tables if table.path])
    return _joined(console, tables)


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
