"""``featx evaluate``."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx.cli.common import Console, common
from featx.cli.options import settings_options
from featx.cli.report import typed_command
from featx.cli.tables import find_table
from featx.datasets import Source
from featx.errors import DataError
from featx.extraction import Extract, Options

if TYPE_CHECKING:
    from featx.datasets import Dataset
    from featx.features import Features
    from featx.model import Model


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("source", metavar="[TABLE|DATA]", required=False)
@click.option("--split", metavar="NAME", help="Default: test where there is one, else all rows.")
@click.option("--tta", is_flag=True, help="Average over the augmented views that the model was fitted on.")
@click.option("--report", "page", type=click.Path(path_type=Path), metavar="OUT.html", help="Also write the report.")
@click.option("--allow-code", is_flag=True, help="Import the backbone function that the model names.")
@click.option("--unsafe-pickle", is_flag=True, help="Load a head that was pickled: that runs whatever is in it.")
@settings_options(Source, Options)
@common
def evaluate(
    console: Console,
    cache: Path,
    model: Path,
    source: str | None,
    split: str | None,
    tta: bool,
    page: Path | None,
    **options: Any,
) -> None:
    """Print accuracy with its interval, per-class scores, and what is confused with what.

    \b
    featx evaluate model.featx --report report.html

    Without TABLE or DATA it is judged on the table that it was fitted on. Rows whose content the model was trained
    on are counted, named, and left out of the headline. DATA are extracted by the model's own recipe.
    """
    if tta and page is not None:
        raise click.UsageError("--report shows images as they are, --tta judges averages over views: one of the two.")
    from featx.evaluate import evaluate_model
    from featx.model import load
    from featx.reporting import report

    classifier = load(model, allow_code=options.pop("allow_code"), unsafe_pickle=options.pop("unsafe_pickle"))
    with classifier.loadable_request() if classifier.request else nullcontext() as request:
        if source is None:
            table = own_table(classifier)
        else:
            table = find_table(console, source, cache, Extract(**options), request, remember=False)
    images, how = (_images(table), _how(options)) if tta else (None, {})
    found = evaluate_model(classifier, table, split, images=images, **how)
    if page is not None:
        made = report(classifier, table=table, split=split, command=typed_command())
        console.note(f"The report: {made.save(page)}")
    console.result(found.to_dict() | {"table": str(table.path)}, f"{table.path}\n{found}")


def own_table(classifier: Model) -> Features:
    """Return the table that a model was fitted on."""
    table = classifier.table()
    if table is None:
        path = classifier.report.table
        why = f"{path}, on which it was fitted, is not there any more" if path else "it was not fitted on a table"
        raise DataError(f"Say what the model is to be judged on: {why}. Type: featx evaluate MODEL TABLE|DATA")
    return table


def _images(table: Features) -> Dataset:
    from featx.reporting.thumbnails import reopen

    source = table.provenance.get("source")
    if not source:
        raise DataError(
            "--tta makes views of the images, and the table does not say where they are. Give them instead of the "
            "table: featx evaluate MODEL DATA --tta"
        )
    return reopen(source)


def _how(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in ("engine", "device", "batch_size", "workers")}
