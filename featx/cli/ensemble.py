"""``featx ensemble``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from featx.cli.common import Console, common
from featx.cli.fit import fit_lines, show_fit
from featx.cli.options import output_option, settings_options, taken
from featx.model.settings import Ensemble, Loading, Saving


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", type=click.Path(path_type=Path))
@settings_options(Ensemble, Loading, Saving)
@output_option("ensemble.featx", "Where the model goes.")
@common
def ensemble(console: Console, cache: Path, models: tuple[Path, ...], output: Path, **options: Any) -> None:  # noqa: ARG001
    """Put several models together: what they say of an image is averaged, and each backbone runs once.

    \b
    featx ensemble a.featx b.featx -o both.featx
    featx ensemble a.featx b.featx --weights validation -o both.featx
    """
    from featx.model import ensemble as put_together
    from featx.model import load

    opened = [load(path, **vars(taken(Loading, options))) for path in models]
    model = put_together(opened, **vars(taken(Ensemble, options)))
    path = model.save(output, **vars(taken(Saving, options)))
    report = {"model": str(path), **model.report}
    show_fit(console, report, fit_lines(report))
