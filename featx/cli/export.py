"""``featx export``."""

from __future__ import annotations

from pathlib import Path

import click

from featx.cli.common import Console, common, n_bytes_text
from featx.cli.tables import find_table


@click.command()
@click.argument("table", required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="F.{npz,parquet,csv,h5}")
@click.option("--columns", is_flag=True, help="In Parquet a column for each feature, instead of one of lists.")
@common
def export(console: Console, cache: Path, table: str | None, output: Path, columns: bool) -> None:
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
