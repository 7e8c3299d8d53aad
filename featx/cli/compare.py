"""``featx compare``."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import click

from featx.cli.common import Console, common
from featx.cli.options import Parallel, output_option, settings_options, taken
from featx.comparison.settings import Compare, Compared
from featx.errors import DataError, OptionError
from featx.finetuning.settings import INDIVIDUAL, NetworkSettings


@click.command()
@click.argument("data")
@settings_options(Compare)
@click.option("--set", "settings", metavar="NAME.KEY=VALUE", multiple=True, help="Of a head or scratch network.")
@settings_options(NetworkSettings, without=INDIVIDUAL, prefix="ft")
@settings_options(Compared, only=["shots"], prefix="ft")
@output_option("comparison", "Folder of comparison.json and models/.")
@settings_options(Parallel)
@common
def compare(console: Console, cache: Path, data: str, output: Path, **options: Any) -> None:
    """Fit every head on every layer of every backbone, train networks beside them, and rank what comes out.

    \b
    featx compare photos/ --backbones vgg16,resnet50 --heads logreg,mlp,xgboost -o comparison/
    featx compare photos/ --finetune --ft-epochs 5 --ft-lr 1e-4 --scratch leaky-deep --shots 50,500

    Validation chooses, test only reports. All layers of a backbone come from one pass. The folder -o gets
    comparison.json and models/; what is finished there is not done again: a run that was stopped goes on.
    With --jobs 4 or --backend ray the heads of a backbone are fitted side by side; networks train one by one.
    Options of featx finetune work with the prefix --ft-, as --ft-image-size 64; --ft-shots 50 keeps it to those.
    """
    from featx.comparison import compare as compare_all

    options["heads"] = tuple(head for head in options["heads"] if head != "none")
    with taken(Parallel, options).context(), console.progress() as progress:
        found = compare_all(
            data,
            settings=settings_by_name(options.pop("settings")),
            ft=take_prefixed(options),
            output=output,
            cache=cache,
            on_progress=progress,
            note=progress.note,
            **options,
        )
    if found.best is None:
        first = found.rows[0]["error"]["message"] if found.rows else "there is nothing to compare"
        raise DataError(f"None of the {len(found.rows):,} rows came out. The first: {first}")
    console.result(found.to_dict(), f"{found}\nSaved in {output}: comparison.json, and the models that it names.")


def settings_by_name(settings: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Sort ``NAME.KEY=VALUE`` words by name.

    Examples
    --------
    >>> settings_by_name(("mlp.hidden=256,128", "mlp.dropout=0.3", "sklearn.svm.SVC.C=10"))
    {'mlp': {'hidden': '256,128', 'dropout': '0.3'}, 'sklearn.svm.SVC': {'C': '10'}}
    """
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for setting in settings:
        left, equals, value = setting.partition("=")
        name, _, key = left.rpartition(".")
        if not (equals and name and key):
            raise OptionError(f"--set takes NAME.KEY=VALUE, for example --set mlp.dropout=0.3; got {setting!r}.")
        found[name][key] = value
    return dict(found)


def take_prefixed(options: dict[str, Any]) -> dict[str, Any]:
    """Take the ``--ft-…`` options that were given out of `options`, and return them without the prefix."""
    start = "ft_"
    found = {name.removeprefix(start): options.pop(name) for name in list(options) if name.startswith(start)}
    return {name: value for name, value in found.items() if value is not None}
