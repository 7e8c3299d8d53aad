"""Command-line options from settings dataclasses: name, type, default and help stand at the field alone."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from featx.errors import OptionError
from featx.extraction.options import ComputeOptions, ViewOptions
from featx.settings import flag_of, options_of, types_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from dataclasses import Field

S = TypeVar("S")
_NUMBERS: dict[str, type] = {"int": int, "float": float}


def settings_options(
    *settings: type, without: Collection[str] = (), prefix: str = ""
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command the options of settings dataclasses.

    Parameters
    ----------
    *settings : type
        Dataclasses whose fields are made with `featx.settings.option`.
    without : collection of str
        Fields that the command says in another way.
    prefix : str
        Comes before each name: ``ft`` makes ``--ft-lr``. Such options are not listed in the help, and are None
        where nobody types them.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        fields = [field for field in options_of(*settings) if field.name not in without]
        for field in reversed(fields):
            command = _option(field, prefix)(command)
        return command

    return decorate


def _option(field: Field[Any], prefix: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    told, types = field.metadata, types_of(field)
    how: dict[str, Any] = {"help": told["help"], "default": field.default}
    if types == {"bool"}:
        how["is_flag"] = True
    elif "Sequence[str]" in types:
        how |= {"multiple": True, "metavar": told["metavar"], "help": told["help"].rstrip(".") + "; repeatable."}
    else:
        kind = _NUMBERS.get("|".join(types), str)
        shown = field.default not in (None, "")
        how |= {"type": kind, "metavar": told["metavar"], "show_default": shown}
    if not prefix:
        return click.option(*(told["flags"] or (flag_of(field),)), field.name, **how)
    typed = "/".join(f"--{prefix}-{flag.removeprefix('--')}" for flag in flag_of(field).split("/"))
    return click.option(typed, f"{prefix}_{field.name}", **how | {"hidden": True, "default": None})


def taken(kind: type[S], options: dict[str, Any]) -> S:
    """Make a settings dataclass of those of the command's `options` that are its own."""
    return kind(**{field.name: options[field.name] for field in options_of(kind) if field.name in options})


def refuse_extraction_options(what: str) -> None:
    """Refuse what the user typed for an extraction that there will not be: its features are there already.

    Those that decide how to compute, how many views are used, or what is random hold for what follows as well.

    Raises
    ------
    OptionError
    """
    from featx.extraction import Extract

    later = {field.name for field in dataclasses.fields(ComputeOptions)} | {"val", "seed"}
    later |= {field.name for field in dataclasses.fields(ViewOptions)}
    ours = {field.name for field in options_of(Extract)} - later
    context = click.get_current_context()
    for option in context.command.params:
        typed = context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
        if typed and option.name in ours:
            raise OptionError(
                f"{option.opts[0]} says how features are made, and {what} has its own. Leave it out, or name the DATA."
            )
