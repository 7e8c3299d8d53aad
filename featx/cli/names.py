"""``featx backbones``, ``featx layers``, ``featx heads``: what there is."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from featx.cli.common import Console, common, table
from featx.cli.options import settings_options
from featx.recipe import PreprocessingOptions

if TYPE_CHECKING:
    from pathlib import Path

#: How the network itself is listed, and named to `--layer`.
WHOLE = "output"


@click.command()
@click.argument("pattern", required=False, default="")
@common
def backbones(console: Console, cache: Path, pattern: str) -> None:  # noqa: ARG001 - every command has a cache
    """List backbones whose name contains PATTERN.

    \b
    featx backbones resnet
    """
    from featx.backbones import list_backbones

    found = [dataclasses.asdict(entry) for entry in list_backbones(pattern)]
    rows = [[e["name"], e["library"], ", ".join(e["weights"]) or "–"] for e in found]
    text = table(rows, ["name", "library", "weights"], "lll")
    console.result({"backbones": found}, f"{text}\n{len(found)} backbones")


@click.command()
@click.argument("backbone")
@settings_options(PreprocessingOptions, only=["image_size"])
@common
def layers(console: Console, cache: Path, backbone: str, image_size: int | None) -> None:  # noqa: ARG001
    """List the layers of BACKBONE: name, Keras name, output shape, parameters and share of the forward so far.

    \b
    featx layers vgg16 --image-size 32
    """
    from featx.backbones import load
    from featx.recipe import Request

    # The weights decide nothing that is listed here, and need not be on this machine.
    found = load(Request(backbone=backbone, weights="none", image_size=image_size)).layers()
    rows = [
        [
            e.name or WHOLE,
            e.keras or "",
            "×".join(map(str, e.shape)),
            f"{e.parameters:,}",
            f"{100 * e.share:.1f} %",
        ]
        for e in found
    ]
    data: list[dict[str, Any]] = [dataclasses.asdict(entry) for entry in found]
    console.result(
        {"backbone": backbone, "layers": data},
        table(rows, ["layer", "Keras name", "output", "parameters", "forward"], "lllrr"),
    )


@click.command()
@common
def heads(console: Console, cache: Path) -> None:  # noqa: ARG001 - every command has a cache
    """List heads and their settings.

    \b
    featx heads
    """
    from featx.heads import list_heads

    found = list_heads()
    lines = []
    for head in found:
        lines.append(f"{head.name:10} {head.summary}")
        lines.append(click.wrap_text(" ".join(f"{k}={v}" for k, v in head.settings.items()), 110, " " * 11, " " * 11))
    lines.append("package.module:Class or a scikit-learn path such as sklearn.svm.SVC works as well.")
    console.result({"heads": [dataclasses.asdict(head) for head in found]}, "\n".join(lines))
