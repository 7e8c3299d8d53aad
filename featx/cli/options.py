"""The options of ``featx extract``, shared by every command that may have to extract first."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from featx.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable

_SOURCE = [
    click.option("--images", metavar="DIR", help="Folder of the images that a labels.csv names."),
    click.option("--image-column", metavar="NAME", help="Column with the image's name."),
    click.option("--label-column", metavar="NAME", help="Column with the label."),
    click.option("--split-column", metavar="NAME", help="Column with train, val or test."),
    click.option("--allow-outside", is_flag=True, help="Let a CSV name images outside --images."),
    click.option("--val", metavar="0.1|last:0.1", help="Validation share of train: stratified at random, or its end."),
    click.option("--name", metavar="NAME", help="Name of the dataset in the cache."),
]
_BACKBONE = [
    click.option("--backbone", default="efficientnet_lite0", show_default=True, help="A name of `featx backbones`."),
]
_TAP = [
    click.option("--layer", "layers", metavar="L", multiple=True, help="A name of `featx layers`; repeatable."),
    click.option("--pool", default="auto", show_default=True, metavar="auto|none|flatten|avg|max|gem|cls"),
]
_PIXELS = [
    click.option("--weights", default="imagenet", show_default=True, metavar="imagenet|none|PATH|TAG"),
    click.option("--image-size", type=int, metavar="N", help="Shorter side to N, crop N×N. Default: the weights' own."),
    click.option("--resize", default="weights", show_default=True, metavar="weights|crop|squash|pad"),
    click.option("--normalize", default="weights", show_default=True, metavar="weights|unit|none|MEAN/STD"),
    click.option("--interpolation", default="weights", show_default=True, metavar="weights|bilinear|bicubic|…"),
    click.option("--background", default="white", show_default=True, help="Colour under transparent pixels."),
    click.option(
        "--decode", default="full", show_default=True, metavar="full|draft", help="draft: large JPEGs faster."
    ),
    click.option("--backbone-version", "version", metavar="V", help="Version of your own package.module:function."),
]
_NUMBERS = [
    click.option("--precision", default="fp32", show_default=True, metavar="fp32|tf32|bf16|fp16"),
    click.option("--dtype", default="float32", show_default=True, metavar="float32|float16", help="As stored."),
]
_OPTIONS = [
    click.option("--engine", default="auto", show_default=True, metavar="auto|eager|compile|openvino"),
    click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:i]"),
    click.option("--batch-size", type=int, metavar="N", help="Images a forward. Default: chosen."),
    click.option("--workers", type=int, metavar="N", help="Decoding processes; 0 decodes in this one."),
    click.option("--max-errors", default="1%", show_default=True, metavar="N|N%", help="Bad images still no failure."),
    click.option("--rehash", is_flag=True, help="Read every image again instead of trusting size and times."),
    click.option("--refresh", is_flag=True, help="Compute all rows again; once stopped, go on without it."),
]
_VIEWS = [
    click.option("--views", type=int, metavar="N", help="Views of each training image, the plain one included."),
    click.option(
        "--augment", metavar="SPEC", help='How views are changed, as "flip,rotate=2,zoom=0.1" or light|standard|strong.'
    ),
]
_SEED = [click.option("--seed", type=int, default=0, show_default=True, help="Of splits, heads and random weights.")]


#: Options that decide what features are, or which images they are of; the validation share is used later as well.
_EXTRACTION = {
    *("backbone", "layers", "pool", "weights", "image_size", "resize", "normalize", "interpolation", "background"),
    *("decode", "version", "precision", "dtype", "images", "image_column", "label_column", "split_column", "name"),
    *("allow_outside", "rehash", "refresh"),
}


def extract_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add all options of ``featx extract`` but ``--dry-run``."""
    return _add([*_BACKBONE, *_TAP, *_PIXELS, *_NUMBERS, *_VIEWS, *_SOURCE, *_OPTIONS, *_SEED], command)


def preprocessing_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add those but ``--backbone``, ``--layer`` and ``--pool``, for commands that take several of each."""
    return _add([*_PIXELS, *_NUMBERS, *_VIEWS, *_SOURCE, *_OPTIONS, *_SEED], command)


def network_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add those that say which network, on which pixels of which data, for commands that train it."""
    return _add([*_BACKBONE, *_PIXELS, *_SOURCE, *_SEED], command)


def source_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add those that say how to read data and how to compute, for commands that know the recipe already."""
    return _add([*_SOURCE, *_OPTIONS, *_SEED], command)


def _add(options: list[Callable[..., Any]], command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(options):
        command = option(command)
    return command


def refuse_extraction_options(what: str) -> None:
    """Refuse what the user typed for an extraction that there will not be: its features are there already.

    Raises
    ------
    OptionError
    """
    context = click.get_current_context()
    for option in context.command.params:
        typed = context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
        if typed and option.name in _EXTRACTION:
            raise OptionError(
                f"{option.opts[0]} says how features are made, and {what} has its own. Leave it out, or name the DATA."
            )


def split_options(options: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """Sort what `extract_options` collected into a `Request`, `Options`, and keywords for `open_dataset`."""
    from featx.extraction import Options
    from featx.recipe import Request

    def take(kind: type) -> dict[str, Any]:
        return {f.name: options[f.name] for f in dataclasses.fields(kind) if f.name in options}

    request, how = Request(**take(Request)), Options(**take(Options))
    source = ("images", "image_column", "label_column", "split_column", "allow_outside", "val", "name", "seed")
    return request, how, {name: options[name] for name in source}
