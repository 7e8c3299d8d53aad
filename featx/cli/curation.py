"""``featx search``, ``duplicates``, ``doubts`` and ``suggest``: questions to a table, answered row by row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx.cli.common import Console, common, table
from featx.cli.options import settings_options, taken
from featx.cli.tables import find_table
from featx.curation.settings import Doubting, Duplicating, Suggesting
from featx.features.nearest import Searching
from featx.model.settings import Loading

if TYPE_CHECKING:
    from collections.abc import Callable

    from featx.curation import Listing
    from featx.model import Model

#: Rows that a terminal is shown.
_MOST_SHOWN = 50


@dataclass(frozen=True)
class _Sheet:
    """Where the rows go as a spreadsheet, if they do."""

    path: Path | None
    raw: bool

    def check(self) -> None:
        from featx.model.tabulate import check_destination

        if self.path is None and self.raw:
            raise click.UsageError("--raw is of the file that --csv OUT writes.")
        if self.path is not None:
            check_destination(self.path)

    def show(self, console: Console, found: Listing, nothing: str) -> None:
        """Write `found`, or print it; `nothing` is what an empty one means."""
        from featx.model.tabulate import write_rows

        console.note(*(f"Note: {text}" for text in found.notes))
        if self.path is not None:
            write_rows(self.path, *found.records(), raw=self.raw)
            text = f"{len(found):,} rows: {self.path}"
        else:
            text = _text(found) if len(found) else nothing
        console.result(found.to_dict(), text)


def _sheet_options(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option("--raw", is_flag=True, help="Leave names that a spreadsheet would run as formulas.")(command)
    return click.option(
        "--csv", "sheet", type=click.Path(path_type=Path), metavar="OUT", help="Write them; .xlsx and .parquet too."
    )(command)


def _loaded(path: Path | None, options: dict[str, Any]) -> Model | None:
    """Return the model at `path`, loaded as its part of `options` says, which is taken out of them."""
    from featx.model import load

    how = taken(Loading, options)
    return None if path is None else load(path, **vars(how))


def _text(found: Listing) -> str:
    header, rows = found.records()
    kept = [i for i, name in enumerate(header) if not found.shown or name in ("file", "label", "split", *found.shown)]
    cells = [[_cell(row[i]) for i in kept] for row in rows[:_MOST_SHOWN]]
    numbers = [isinstance(rows[0][i], int | float) for i in kept]
    text = table(cells, [header[i] for i in kept], "".join("lr"[number] for number in numbers))
    more = len(rows) - _MOST_SHOWN
    return f"{text}\n… and {more:,} more: --csv OUT has all" if more > 0 else text


def _cell(value: Any) -> str:
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


@click.command()
@click.argument("source", metavar="TABLE")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@settings_options(Searching)
@_sheet_options
@common
def search(
    console: Console, cache: Path, source: str, images: tuple[str, ...], sheet: Path | None, raw: bool, **options: Any
) -> None:
    """List the rows of TABLE that are most like an IMAGE, a file or the id of a row, or like several.

    \b
    featx search cache/photos-1f0c/….h5 new-photo.jpg -k 10
    featx search cache/photos-1f0c/….h5 sea/1.jpg sea/2.jpg --unlike shore/7.jpg
    """
    from featx.curation import search as run

    out = _Sheet(sheet, raw)
    out.check()
    rows = find_table(console, source, cache, None, remember=False)
    out.show(console, run(rows, list(images), cache=cache, **options), "The table has no other row.")


@click.command()
@click.argument("source", metavar="[TABLE]", required=False)
@settings_options(Duplicating)
@_sheet_options
@common
def duplicates(
    console: Console, cache: Path, source: str | None, sheet: Path | None, raw: bool, **options: Any
) -> None:
    """List the images of TABLE, or of the table used last, that are nearly the same, with the split of each.

    \b
    featx duplicates --near 0.98 --csv duplicates.csv

    What stands in two splits is named: a classifier that was trained on one image knows the other.
    """
    from featx.curation import duplicates as run

    out = _Sheet(sheet, raw)
    out.check()
    rows = find_table(console, source, cache, None, remember=False)
    out.show(console, run(rows, **options), f"No two rows are nearer than {options['near']:g}.")


@click.command()
@click.argument("source", metavar="[TABLE]", required=False)
@settings_options(Doubting)
@click.option("--model", type=click.Path(path_type=Path), help="Whose head doubts. Default: a logistic regression.")
@settings_options(Loading)
@_sheet_options
@common
def doubts(
    console: Console,
    cache: Path,
    source: str | None,
    model: Path | None,
    sheet: Path | None,
    raw: bool,
    **options: Any,
) -> None:
    """List the images of TABLE, or of the table used last, whose label looks wrong, with the reason.

    \b
    featx doubts --csv doubts.csv

    Each image is predicted by classifiers that have not learned from it, nor from others of its group.
    """
    from featx.curation import doubts as run

    out = _Sheet(sheet, raw)
    out.check()
    classifier = _loaded(model, options)
    rows = find_table(console, source, cache, None, remember=False)
    out.show(console, run(rows, model=classifier, **options), "No label looks wrong.")


@click.command()
@click.argument("source", metavar="[TABLE]", required=False)
@settings_options(Suggesting)
@click.option("--model", type=click.Path(path_type=Path), help="What is unsure. Default: a fit on the labelled rows.")
@settings_options(Loading)
@_sheet_options
@common
def suggest(
    console: Console,
    cache: Path,
    source: str | None,
    model: Path | None,
    sheet: Path | None,
    raw: bool,
    **options: Any,
) -> None:
    """List the unlabelled images of TABLE, or of the table used last, whose labels would teach most.

    \b
    featx suggest -n 50 --csv to-label.csv

    They are unsure, and unlike one another. Without any label yet they stand for all. Images of val and test are left.
    """
    from featx.curation import suggest as run

    out = _Sheet(sheet, raw)
    out.check()
    classifier = _loaded(model, options)
    rows = find_table(console, source, cache, None, remember=False)
    out.show(console, run(rows, model=classifier, **options), "No unlabelled row is left.")
