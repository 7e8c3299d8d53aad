"""``featx explore``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx.cli.common import Console, common
from featx.cli.options import refuse_extraction_options, settings_options
from featx.cli.tables import find_table, is_table
from featx.extraction import Extract
from featx.model.settings import Loading

if TYPE_CHECKING:
    from featx.features import Features
    from featx.model import Model


@click.command()
@click.argument("source", metavar="[TABLE|DATA|MODEL]", required=False)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Default: a free one.", metavar="N")
@click.option("--no-browser", is_flag=True, help="Print the address only.")
@click.option(
    "--labels", type=click.Path(path_type=Path), metavar="FILE", help="Where labels go. Default: beside the data."
)
@settings_options(Loading, Extract)
@common
def explore(
    console: Console,
    cache: Path,
    source: str | None,
    port: int,
    no_browser: bool,
    labels: Path | None,
    **options: Any,
) -> None:
    """Look at, search, clean and label the images of TABLE, DATA or the table of MODEL, in a browser.

    \b
    featx explore photos/
    featx explore cache/photos-1f0c/….h5 --labels mine.csv

    The page is on this machine only, and nothing leaves it. Each label is on the disk before the next; the photos
    stay as they are. Then: featx fit TABLE --labels FILE
    """
    from featx.exploring.server import check_installed, serve

    check_installed()
    from featx.exploring import Session, default_log

    table, model = _opened(console, source, cache, options)
    path = default_log(table) if labels is None else labels
    session = Session(table, path, model)
    console.note(*session.notes, f"Labels go to {path}")
    serve(
        session,
        port=port,
        browser=not no_browser,
        say=lambda address: console.result({"address": address, "labels": str(path)}, address),
    )


def _opened(
    console: Console, source: str | None, cache: Path, options: dict[str, Any]
) -> tuple[Features, Model | None]:
    """Return the table that is explored, and the model whose table it is."""
    if source is not None and Path(source).suffix.lower() == ".featx":
        from featx.cli.predict import own_table
        from featx.model import load

        loading = {name: options.pop(name) for name in ("allow_code", "unsafe_pickle")}
        model = load(source, **loading)
        return own_table(model), model
    for name in ("allow_code", "unsafe_pickle"):
        options.pop(name)
    if source is None or is_table(source):
        refuse_extraction_options("a table")
        return find_table(console, source, cache, None), None
    return find_table(console, source, cache, Extract(**options)), None
