"""``featx finetune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx.cli.common import Console, common, seconds_text
from featx.cli.fit import report_text
from featx.cli.options import settings_options
from featx.cli.progress import ProgressLine
from featx.datasets import Source
from featx.recipe import BackboneOptions, Preprocessing

if TYPE_CHECKING:
    from collections.abc import Callable

_OPTIONS = [
    click.option("--layer", metavar="L", help="What the head is put on, a name of `featx layers`."),
    click.option("--head-layers", metavar="SPEC", help='Before the last dense layer, as "bn gap 256 relu drop.5".'),
    click.option(
        "--unfreeze", default="all", show_default=True, metavar="all|N|LAYER", help="What trains, from above."
    ),
    click.option("--from-cache", is_flag=True, help="Frozen blocks never run again: their output is in the cache."),
    click.option("--views", type=int, default=1, metavar="N", help="With --from-cache --augment: N images for one."),
    click.option("--init-head", default="auto", show_default=True, metavar="MODEL|auto|none", help="auto: LP-FT."),
    click.option(
        "--freeze-bn/--train-bn", default=None, help="Batch norm stays as it is. Default: where weights are pretrained."
    ),
    click.option("--optimizer", default="adamw", show_default=True, metavar="sgd|adam|adamax|adamw"),
    click.option("--lr", type=float, default=1e-4, show_default=True),
    click.option("--eps", type=float, metavar="E", help="Of the Adam family; Keras has 1e-7. Default: torch's."),
    click.option("--momentum", type=float, default=0.9, show_default=True, help="For sgd."),
    click.option("--weight-decay", type=float, metavar="W", help="Default: 0.01 for adamw, else 0; never of biases."),
    click.option("--head-lr-mult", type=float, default=1.0, show_default=True, help="Times --lr for the head."),
    click.option("--layer-decay", type=float, default=1.0, show_default=True, help="Times the rate, block by block."),
    click.option("--batch-size", type=int, default=32, show_default=True, help="Images a forward."),
    click.option("--accumulate", type=int, default=1, show_default=True, help="Forwards an update."),
    click.option("--epochs", type=int, default=10, show_default=True),
    click.option("--schedule", default="cosine", show_default=True, metavar="plateau|cosine|none"),
    click.option("--factor", type=float, default=0.1, show_default=True, help="Of the rate, at a plateau."),
    click.option("--patience", type=int, default=3, show_default=True, help="Epochs that make a plateau."),
    click.option("--min-lr", type=float, default=0.0, show_default=True),
    click.option("--warmup", type=float, default=0.0, show_default=True, metavar="EPOCHS"),
    click.option("--early-stop", type=int, default=0, show_default=True, metavar="N", help="Epochs; 0 for never."),
    click.option("--min-delta", type=float, default=0.0, show_default=True, help="Less is no improvement."),
    click.option("--monitor", default="val_accuracy", show_default=True, metavar="val_accuracy|val_loss|…"),
    click.option("--augment", default="", metavar="SPEC", help='Training images only, as "flip,rotate=2,zoom=0.1".'),
    click.option("--test", is_flag=True, help="Report the test split as well. It never chooses."),
    click.option("--precision", default="fp32", show_default=True, metavar="fp32|tf32|bf16|fp16"),
    click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:i]"),
    click.option("--workers", type=int, metavar="N", help="Decoding processes; 0 decodes in this one."),
    click.option("--max-errors", default="1%", show_default=True, metavar="N|N%", help="Bad images still no failure."),
    click.option("--resume", is_flag=True, help="Go on where the same command was killed."),
    click.option("--checkpoint-minutes", type=float, default=5.0, show_default=True, help="Between two in an epoch."),
]


def finetune_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of fine-tuning itself."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("data")
@settings_options(BackboneOptions)
@finetune_options
@settings_options(Preprocessing, Source)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("model.featx"), show_default=True)
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
    with ProgressLine(quiet=console.quiet) as progress:
        model = run(data, **options, cache=cache, checkpoint=checkpoint, on_progress=progress)
    path = model.save(output)
    checkpoint.unlink(missing_ok=True)
    report = {"model": str(path), **model.report}
    console.result(report, _text(report))


def _text(report: dict[str, Any]) -> str:
    history = report["history"]
    epochs = len(history["loss"])
    last = " ".join(f"{name} {values[-1]:.4g}" for name, values in history.items())
    took = seconds_text(report["seconds"])
    return f"{epochs} epochs in {took}; the last: {last}\n{report_text(report)}"
