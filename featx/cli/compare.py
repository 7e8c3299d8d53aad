"""``featx compare``."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import click

from featx.cli.common import Console, common
from featx.cli.options import preprocessing_options
from featx.cli.progress import ProgressLine
from featx.errors import DataError, OptionError


@click.command()
@click.argument("data")
@click.option("--backbones", default="efficientnet_lite0", show_default=True, metavar="A,B")
@click.option("--layers", default="default", show_default=True, metavar="L,M", help="vgg16:L is for vgg16 alone.")
@click.option("--pools", default="auto", show_default=True, metavar="auto,max,…")
@click.option("--heads", default="logreg,mlp", show_default=True, metavar="X,Y", help="Names of `featx heads`.")
@click.option("--set", "settings", metavar="HEAD.KEY=VALUE", multiple=True, help="As mlp.hidden=256,128; repeatable.")
@click.option("--shots", default="all", show_default=True, metavar="50,500,all", help="Training images a class.")
@click.option("--seeds", default="0", show_default=True, metavar="0,1,2", help="Of subsets and fits; median and range.")
@click.option("--no-test", is_flag=True, help="Leave the test rows alone.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("comparison"), show_default=True)
@preprocessing_options
@common
def compare(console: Console, cache: Path, data: str, output: Path, **options: Any) -> None:
    """Fit every head on every layer of every backbone, and rank what comes out.

    \b
    featx compare photos/ --backbones vgg16,resnet50 --heads logreg,mlp,xgboost -o comparison/

    Validation chooses, test only reports. All layers of a backbone come from one pass. The folder -o gets
    comparison.json and models/; what is finished there is not done again: a run that was stopped goes on.
    """
    from featx.comparison import compare as compare_all

    lists = {name: words(options.pop(name)) for name in ("backbones", "layers", "pools", "heads")}
    with ProgressLine(quiet=console.quiet) as progress:
        found = compare_all(
            data,
            **lists,
            settings=settings_by_head(options.pop("settings")),
            shots=[None if word == "all" else whole("--shots", word) for word in words(options.pop("shots"))],
            seeds=[whole("--seeds", word) for word in words(options.pop("seeds"))],
            test=not options.pop("no_test"),
            output=output,
            cache=cache,
            tick=progress,
            note=progress.note,
            **options,
        )
    if found.best is None:
        first = found.rows[0]["error"]["message"]
        raise DataError(f"None of the {len(found.rows):,} rows came out. The first: {first}")
    console.result(found.to_dict(), f"{found}\nSaved in {output}: comparison.json, and the models that it names.")


def words(text: str) -> tuple[str, ...]:
    """Split what is written between commas.

    Examples
    --------
    >>> words("vgg16, resnet50")
    ('vgg16', 'resnet50')
    """
    return tuple(word.strip() for word in text.split(",") if word.strip())


def whole(option: str, word: str) -> int:
    """Return the whole number that is written."""
    try:
        return int(word)
    except ValueError as error:
        raise OptionError(f"{option} takes whole numbers between commas, got {word!r}.") from error


def settings_by_head(settings: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Sort ``HEAD.KEY=VALUE`` words by head.

    Examples
    --------
    >>> settings_by_head(("mlp.hidden=256,128", "mlp.dropout=0.3", "sklearn.svm.SVC.C=10"))
    {'mlp': {'hidden': '256,128', 'dropout': '0.3'}, 'sklearn.svm.SVC': {'C': '10'}}
    """
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for setting in settings:
        name, equals, value = setting.partition("=")
        head, dot, key = name.rpartition(".")
        if not (equals and dot and head and key):
            raise OptionError(f"--set takes HEAD.KEY=VALUE, for example --set mlp.dropout=0.3; got {setting!r}.")
        found[head][key] = value
    return dict(found)
