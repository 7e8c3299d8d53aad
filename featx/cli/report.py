"""``featx report``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from featx.cli.common import Console, common, n_bytes_text
from featx.cli.options import settings_options
from featx.datasets import Source
from featx.model.settings import Reporting


@click.command()
@click.argument("subjects", nargs=-1, required=True, metavar="MODEL...|COMPARISON", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="OUT.html", help="Where the page goes.")
@click.option(
    "--figures", type=click.Path(path_type=Path), metavar="DIR", help="Also write each picture as PNG and SVG."
)
@click.option("--table", type=click.Path(path_type=Path), help="Rows to evaluate on. Default: those it was fitted on.")
@settings_options(Reporting)
@settings_options(Source, only=["images"])
@common
def report(
    console: Console,
    cache: Path,
    subjects: tuple[Path, ...],
    output: Path | None,
    figures: Path | None,
    table: Path | None,
    data: str | None,
    images: str | None,
    **options: Any,
) -> None:
    """Write one page about a model, several models, or a comparison. It loads nothing and opens from disk.

    \b
    featx report model.featx -o report.html
    featx report logreg.featx mlp.featx -o report.html --figures figures/
    """
    from featx.extraction import open_dataset
    from featx.features import Features
    from featx.reporting import report as make

    if images is not None and data is None:
        raise click.UsageError("--images is the folder of what a CSV names: --data labels.csv --images DIR")
    if output is None and figures is None:
        raise click.UsageError("Name the page, the folder of its pictures, or both: -o OUT.html --figures DIR")
    with console.progress() as progress:
        made = make(
            subjects[0] if len(subjects) == 1 else subjects,
            table=None if table is None else Features.open(table),
            data=data if images is None else open_dataset(data, images=images),
            cache=cache,
            command=typed_command(),
            on_progress=progress,
            **options,
        )
    page = None if output is None else made.save(output)
    paths = [] if figures is None else made.save_figures(figures)
    console.result(
        {"report": page and str(page), "figures": [str(path) for path in paths]},
        "\n".join(
            [
                *([] if page is None else [f"{page} ({n_bytes_text(page.stat().st_size)})"]),
                *([] if not paths else [f"{len(paths)} files in {figures}"]),
            ]
        ),
    )


def typed_command() -> str:
    """Return the command that is running, as it would be typed again."""
    return shlex.join(["featx", *sys.argv[1:]])
