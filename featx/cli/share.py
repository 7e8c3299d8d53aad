"""``featx card`` and ``featx push``: a model for others."""

from __future__ import annotations

from pathlib import Path

import click

from featx.cli.common import Console, common
from featx.errors import DataError
from featx.files import write_whole

_license = click.option("--license", "license_name", metavar="NAME", help="As the Hub abbreviates it: apache-2.0.")


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="OUT.md", help="Default: standard output.")
@click.option("--name", metavar="NAME", help="What it is called. Default: the file's name.")
@_license
@common
def card(
    console: Console,
    cache: Path,  # noqa: ARG001
    model: Path,
    output: Path | None,
    name: str | None,
    license_name: str | None,
) -> None:
    """Write a model's card: what it predicts, how well, from what it learned, how to use it.

    \b
    featx card model.featx -o README.md --name me/birds --license cc-by-4.0

    All of it comes from the model's own report; front matter is there for the Hugging Face Hub.
    """
    from featx.model import load
    from featx.sharing import card as written

    text = written(load(model), name=name or model.stem, file=model.name, license=license_name)
    if output is None:
        console.result({"card": text}, text.rstrip())
        return
    try:
        write_whole(output, text)
    except OSError as error:
        raise DataError(f"Cannot write the card to {output}: {error.strerror}. Name another place: -o FILE") from error
    console.result({"path": str(output)}, f"{output}: the card of {model}")


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("to", metavar="hf://OWNER/NAME")
@click.option("--private", is_flag=True, help="A new repository is seen by its owner alone.")
@_license
@common
def push(
    console: Console,
    cache: Path,  # noqa: ARG001
    model: Path,
    to: str,
    private: bool,
    license_name: str | None,
) -> None:
    """Send a model file and its card to the Hugging Face Hub.

    \b
    featx push model.featx hf://me/birds --license cc-by-4.0
    featx predict hf://me/birds photo.jpg

    Files that hold code are not sent. The login is that of 'hf auth login', or HF_TOKEN.
    """
    from featx.sharing import push as send

    address = send(model, to, private=private, license=license_name)
    console.result({"address": to, "commit": address}, f"{to} has {model} and its card: {address}")
