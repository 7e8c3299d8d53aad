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
@output_option("model.onnx", "Where it goes.", metavar="F.onnx")
@settings_options(Packing, Loading)
@common
def pack(console: Console, cache: Path, model: Path, output: Path, **options: Any) -> None:  # noqa: ARG001
    """Write MODEL as one ONNX file: from an image of any size to probabilities, for any ONNX runtime.

    \b
    featx pack model.featx -o model.onnx
    featx predict model.onnx photo.jpg

    The file takes its name once it has said what the model says about images of several sizes.
    """
    from featx.model import load
    from featx.packing import pack as write

    done = write(load(model, **vars(taken(Loading, options))), output, **options)
    n_bytes = done.path.stat().st_size
    console.result(
        {"path": str(done.path), "bytes": n_bytes, "checked": done.n_checked, "apart": done.apart},
        f"{done.path}: {n_bytes_text(n_bytes)}. On {done.n_checked} images its probabilities are within "
        f"{done.apart:.0e} of the model's.",
    )
