"""``featx labels``: what people have labelled, applied and merged."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from featx.cli.common import Console, common
from featx.cli.options import output_option
from featx.cli.tables import find_table

_LOGS = click.argument(
    "logs", metavar="LABELS...", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False)
)


@click.group()
def labels() -> None:
    """Apply and merge the labels of `featx explore`.

    \b
    featx labels apply cache/photos-1f0c/….h5 photos.labels.csv -o labelled.csv
    """


@labels.command("apply")
@click.argument("source", metavar="TABLE")
@_LOGS
@output_option(None, "A .csv, .xlsx or .parquet, or a new folder of links.", metavar="OUT")
@common
def apply_command(console: Console, cache: Path, source: str, logs: tuple[Path, ...], output: Path) -> None:
    """Write the rows of TABLE with the labels of one or more LABELS; the images and the table stay as they are.

    \b
    featx labels apply cache/photos-1f0c/….h5 photos.labels.csv -o labelled.csv
    featx labels apply cache/photos-1f0c/….h5 ann.csv ben.csv -o labelled/

    Labels of several people are taken together by time: of two for one image the later holds.
    """
    from featx.curation import apply_labels
    from featx.features import relabelled
    from featx.features.label_log import read_labels
    from featx.reporting.thumbnails import open_images

    table = find_table(console, source, cache, None, remember=False)
    entries = read_labels(*logs)
    labelled = relabelled(table, entries)
    images = open_images(table)[0] if not output.suffix else None
    n = apply_labels(labelled, output, images)
    console.result({"output": str(output), "rows": n, "entries": len(entries)}, f"{n:,} labelled images: {output}")


@labels.command("merge")
@_LOGS
@output_option(None, "The new log.", metavar="LABELS")
@common
def merge_command(console: Console, cache: Path, logs: tuple[Path, ...], output: Path) -> None:
    """Write the entries of several LABELS, by time, to one that `featx fit --labels` takes.

    \b
    featx labels merge ann.csv ben.csv -o both.csv
    """
    from featx.features.label_log import merge_labels, read_labels, standing

    del cache
    n = merge_labels(logs, output)
    by = Counter(entry.by for entry in standing(read_labels(output)))
    people = ", ".join(f"{name} {count:,}" for name, count in by.most_common())
    console.result({"output": str(output), "entries": n, "by": by}, f"{n:,} entries: {output}. Labels of {people}")
