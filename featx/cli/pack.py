"""``featx pack``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from featx.cli.common import Console, common, n_bytes_text
from featx.cli.options import output_option, settings_options, taken
from featx.model.settings import Loading
from featx.packing import Packing


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@output_option("model.onnx", "Where it goes: .onnx, .xml or .pt2.", metavar="F")
@settings_options(Packing, Loading)
@common
def pack(console: Console, cache: Path, model: Path, output: Path, **options: Any) -> None:  # noqa: ARG001
    """Write MODEL as one file for other runtimes: from an image of any size to probabilities or numbers.

    \b
    featx pack model.featx -o model.onnx
    featx predict model.onnx photo.jpg
    featx pack model.featx -o small.onnx --precision int8

    The file takes its name once it has said what the model says about images of several sizes.
    """
    from featx.model import load
    from featx.packing import pack as write

    done = write(load(model, **vars(taken(Loading, options))), output, **options)
    n_bytes = sum(path.stat().st_size for path in done.paths)
    says = f"its {done.what} are within {done.apart:.0e} of the model's"
    says += "." if done.what == "numbers" else f", and {100 * done.same:.4g} % of its labels are the model's."
    console.result(
        {"path": str(done.path), "bytes": n_bytes, "checked": done.n_checked, "apart": done.apart, "same": done.same},
        f"{done.path}: {n_bytes_text(n_bytes)}. On {done.n_checked} images {says}",
    )
