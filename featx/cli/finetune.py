"""``featx finetune``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from featx.cli.common import Console, common
from featx.cli.fit import fit_lines, show_fit
from featx.cli.options import output_option, settings_options
from featx.finetuning.settings import FineTune


@click.command()
@click.argument("data")
@settings_options(FineTune)
@output_option("model.featx", "Where the model goes.")
@common
def finetune(console: Console, cache: Path, data: str, output: Path, **options: Any) -> None:
    """Train a backbone on DATA, or its upper part, and a head on it; the model holds the whole network.

    \b
    featx finetune photos/ --unfreeze 2 --epochs 5 -o model.featx

    The head starts from one fitted on the frozen features. The best epoch on validation gives the weights. Scratch
    networks: featx finetune photos/ --backbone scratch/leaky --weights none --lr 0.001
    """
    from featx.finetuning import finetune as run

    checkpoint = output.with_name(f"{output.name}.checkpoint")
    with console.progress() as progress:
        model = run(data, **options, cache=cache, checkpoint=checkpoint, on_progress=progress)
    path = model.save(output)
    checkpoint.unlink(missing_ok=True)
    report = {"model": str(path), **model.report}
    show_fit(console, report, _lines(report))


def _lines(report: dict[str, Any]) -> list[str]:
    history = report["history"]
    epochs = len(history["loss"])
    last = " ".join(f"{name} {values[-1]:.4g}" for name, values in history.items())
    return [f"{epochs} epoch{'s' * (epochs > 1)}; the last: {last}", *fit_lines(report)]
