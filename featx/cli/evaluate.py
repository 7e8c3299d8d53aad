"""``featx evaluate``."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from featx.cli.common import Console, common
from featx.cli.options import source_options
from featx.cli.report import typed_command
from featx.cli.tables import find_table


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("source", metavar="[TABLE|DATA]", required=False)
@click.option("--split", metavar="NAME", help="Default: test where there is one, else all rows.")
@click.option("--report", "page", type=click.Path(path_type=Path), metavar="OUT.html", help="Also write the report.")
@click.option("--allow-code", is_flag=True, help="Import the backbone function that the model names.")
@click.option("--unsafe-pickle", is_flag=True, help="Load a head that was pickled: that runs whatever is in it.")
@source_options
@common
def evaluate(
    console: Console,
    cache: Path,
    model: Path,
    source: str | None,
    split: str | None,
    page: Path | None,
    **options: Any,
) -> None:
    """Print accuracy with its interval, per-class scores, and what is confused with what.

    \b
    featx evaluate model.featx --report report.html

    Rows whose content the model was trained on are counted, named, and left out of the headline. DATA are
    extracted by the model's own recipe.
    """
    from featx.evaluate import evaluate_model
    from featx.model import load
    from featx.model.saving import with_network
    from featx.reporting import report

    classifier = load(model, allow_code=options.pop("allow_code"), unsafe_pickle=options.pop("unsafe_pickle"))
    with with_network(classifier) if classifier.request else nullcontext() as request:
        table = find_table(console, source, cache, options, request)
    found = evaluate_model(classifier, table, split=split)
    if page is not None:
        made = report(classifier, table=table, split=split, command=typed_command())
        console.note(f"The report: {made.save(page)}")
    console.result(found.to_dict(), str(found))
