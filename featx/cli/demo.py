"""``featx demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx.cli.common import Console, common, seconds_text, table
from featx.cli.extract import STAND_IN, extraction_text

if TYPE_CHECKING:
    from featx.features import Features
    from featx.model import Model

HEADS = ("logreg", "mlp", "xgboost")


@click.command()
@click.option("--full", is_flag=True, help="Also write the report: one page with pictures of all of it.")
@common
def demo(console: Console, cache: Path, full: bool) -> None:
    """Run the whole line on built-in data: extract, three heads, a leaderboard, predictions.

    \b
    featx demo --full
    """
    from featx import extraction
    from featx.recipe import Request

    console.note(STAND_IN)
    console.note("\n1. featx extract digits   (efficientnet_lite0, ImageNet weights that came with the installation)")
    with console.progress() as progress:
        done = extraction.run(
            extraction.open_dataset("digits", val="0.2"), Request(), cache=cache, on_progress=progress
        )
    console.note(*done.notes, extraction_text(done))
    console.note(f"\n2. featx fit --head {'|'.join(HEADS)}")
    models = _fit_all(console, done.tables[0])
    best = max(models, key=lambda model: model.report["val"]["accuracy"])
    path = best.save(cache / "demo.featx")
    rows = [model.report.to_dict() for model in models]
    page = _write_report(console, models, cache / "demo.html") if full else None
    console.note(f"\nChosen on validation: {best.head_name}, saved as {path}")
    console.result(
        {
            "extraction": done.to_dict(),
            "rows": rows,
            "best": best.head_name,
            "model": str(path),
            "report": page and str(page),
        },
        _leaderboard(rows),
    )


def _fit_all(console: Console, features: Features) -> list[Model]:
    from featx.model import fit

    models = []
    for head in HEADS:
        models.append(fit(features, head))
        console.note(f"   {head}: {seconds_text(models[-1].report['seconds'])}")
    return models


def _write_report(console: Console, models: list[Model], path: Path) -> Path:
    from featx.reporting import report

    console.note(f"\n3. featx report -o {path}")
    return report(models, command="featx demo --full").save(path)


def _row(report: dict[str, Any]) -> list[str]:
    val = report["val"]
    low, high = val["ci95"]
    return [
        report["head"],
        f"{100 * report['train']['accuracy']:.1f} %",
        f"{100 * val['accuracy']:.1f} %",
        f"{100 * low:.1f}–{100 * high:.1f}",
        f"{report['n_parameters']:,}",
        f"{report['seconds']:.1f} s",
    ]


def _leaderboard(reports: list[dict[str, Any]]) -> str:
    ranked = sorted(reports, key=lambda report: report["val"]["accuracy"], reverse=True)
    board = table(list(map(_row, ranked)), ["head", "train", "validation", "95 %", "parameters", "fit"], "lrrrrr")
    return (
        f"\n{board}\n\n"
        "Run it again: 0 images computed. Your own images, in one folder a class:\n"
        "  featx extract photos/\n  featx fit --head logreg -o model.featx\n  featx predict model.featx photo.jpg"
    )
