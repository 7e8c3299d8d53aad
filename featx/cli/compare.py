"""``featx compare``."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx.cli.common import Console, common
from featx.cli.options import Parallel, output_option, settings_options, taken
from featx.datasets import Source
from featx.errors import DataError, OptionError
from featx.extraction import Options, ViewOptions
from featx.finetuning.settings import INDIVIDUAL, NetworkSettings
from featx.recipe import FeatureOptions

if TYPE_CHECKING:
    from collections.abc import Callable

_LISTS = [
    click.option(
        "--backbones", default="efficientnet_lite0", show_default=True, metavar="A,B", help="As in `featx backbones`."
    ),
    click.option("--layers", default="default", show_default=True, metavar="L,M", help="vgg16:L is for vgg16 alone."),
    click.option("--pools", default="auto", show_default=True, metavar="auto,max,…", help="Each with each layer."),
    click.option("--heads", default="logreg,mlp", show_default=True, metavar="X,Y|none", help="As in `featx heads`."),
    click.option("--finetune", is_flag=True, help="Fine-tune every backbone as well; --ft-OPTION says how."),
    click.option("--scratch", default="", metavar="NAME,…", help="Networks to train from scratch, as leaky-deep."),
    click.option("--set", "settings", metavar="NAME.KEY=VALUE", multiple=True, help="Of a head or scratch network."),
    click.option("--shots", default="all", show_default=True, metavar="50,500,all", help="Training images a class."),
    click.option("--seeds", default="0", show_default=True, metavar="0,1,2", help="Of subsets and fits: the median."),
    click.option("--no-test", is_flag=True, help="Leave the test rows alone."),
    output_option("comparison", "Folder of comparison.json and models/."),
]
_PREFIX = "ft"


def compare_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what is compared, and the options of ``featx finetune`` as ``--ft-…``; its own help describes those."""
    command = click.option(f"--{_PREFIX}-shots", f"{_PREFIX}_shots", hidden=True, help="Instead of --shots.")(command)
    command = settings_options(NetworkSettings, without=INDIVIDUAL, prefix=_PREFIX)(command)
    for add in reversed(_LISTS):
        command = add(command)
    return command


@click.command()
@click.argument("data")
@compare_options
@settings_options(Parallel, FeatureOptions, Options, ViewOptions, Source)
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
    from featx.comparison import parse_shots

    lists: dict[str, Any] = {
        name: words(options.pop(name)) for name in ("backbones", "layers", "pools", "heads", "scratch")
    }
    with taken(Parallel, options).context(), console.progress() as progress:
        found = compare_all(
            data,
            **lists | {"heads": tuple(head for head in lists["heads"] if head != "none")},
            settings=settings_by_name(options.pop("settings")),
            ft=take_prefixed(options),
            shots=parse_shots(options.pop("shots")),
            seeds=parse_seeds(options.pop("seeds")),
            test=not options.pop("no_test"),
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


def words(text: str) -> tuple[str, ...]:
    """Split what is written between commas.

    Examples
    --------
    >>> words("vgg16, resnet50")
    ('vgg16', 'resnet50')
    """
    return tuple(word.strip() for word in text.split(",") if word.strip())


def parse_seeds(text: str) -> list[int]:
    """Return the whole numbers that are written between commas."""
    try:
        return [int(word) for word in words(text)]
    except ValueError as error:
        raise OptionError(f"--seeds takes whole numbers between commas, got {text!r}.") from error


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
    start = f"{_PREFIX}_"
    found = {name.removeprefix(start): options.pop(name) for name in list(options) if name.startswith(start)}
    return {name: value for name, value in found.items() if value is not None}
