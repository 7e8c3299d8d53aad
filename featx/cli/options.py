"""Command-line options from settings dataclasses: name, type, default and help stand at the field alone."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from featx.errors import MissingExtraError, OptionError
from featx.settings import check_value, flag_of, option, options_of, types_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from dataclasses import Field

S = TypeVar("S")
_Command = TypeVar("_Command", bound="Callable[..., Any]")
_NUMBERS: dict[str, type] = {"int": int, "float": float}


def settings_options(
    *settings: type, only: Collection[str] = (), without: Collection[str] = (), prefix: str = ""
) -> Callable[[_Command], _Command]:
    """Return a decorator that gives a command the options of settings dataclasses.

    Parameters
    ----------
    *settings : type
        Dataclasses whose fields are made with `featx.settings.option`.
    only, without : collection of str
        Fields that the command takes, all by default, and those that it says in another way.
    prefix : str
        Comes before each name: ``ft`` makes ``--ft-lr``. Such options are not listed in the help, and are None
        where nobody types them.
    """

    def decorate(command: _Command) -> _Command:
        fields = [field for field in options_of(*settings) if field.name not in without]
        for field in reversed(fields):
            if not only or field.name in only:
                command = _option(field, prefix)(command)
        return command

    return decorate


def _option(field: Field[Any], prefix: str) -> Callable[[_Command], _Command]:
    told, types = field.metadata, types_of(field)
    how: dict[str, Any] = {"help": told["help"], "default": field.default}
    if "bool" in types:
        how["is_flag"] = True
    elif field.type in _LISTS:
        default: Any = field.default
        how |= {"metavar": told["metavar"], "show_default": bool(default)}
        how["default"] = ",".join("all" if item is None else str(item) for item in default)
    elif "Sequence[str]" in types:
        how |= {"multiple": True, "metavar": told["metavar"], "help": told["help"].rstrip(".") + "; repeatable."}
    else:
        kind = _NUMBERS.get("|".join(types), str)
        shown = field.default not in (None, "")
        how |= {"type": kind, "metavar": told["metavar"], "show_default": shown}
    name, typed = field.name, told["flags"] or (flag_of(field),)
    if prefix:
        name = f"{prefix}_{name}"
        typed = ("/".join(f"--{prefix}-{flag.removeprefix('--')}" for flag in typed[0].split("/")),)
        how |= {"hidden": True, "default": None}

    def checked(context: click.Context, given: click.Parameter, value: Any) -> Any:
        if value is not None and field.type in _LISTS:
            return _split(typed[0], value, _LISTS[str(field.type)])
        if context.get_parameter_source(given.name or "") is ParameterSource.COMMANDLINE:
            check_value(field, value, typed[0])
        return value

    return click.option(*typed, name, callback=checked, **how)


def _split(flag: str, text: str, read: Callable[[str], Any]) -> tuple[Any, ...]:
    try:
        return tuple(read(word.strip()) for word in text.split(",") if word.strip())
    except ValueError as error:
        form = "whole numbers between commas, or all" if read is _number_or_all else "whole numbers between commas"
        raise OptionError(f"{flag} takes {form}; got {text!r}.") from error


def _number_or_all(word: str) -> int | None:
    return None if word == "all" else int(word)


#: Fields that are typed as a list between commas, by what reads one of its items.
_LISTS: dict[str, Callable[[str], Any]] = {
    "Sequence[str]": str,
    "Sequence[int]": int,
    "Sequence[int | None]": _number_or_all,
}


def output_option(default: str | None, explanation: str, **how: Any) -> Callable[[_Command], _Command]:
    """Return the decorator that adds ``-o``, which must be given where there is no default."""
    how |= {"required": True} if default is None else {"default": Path(default), "show_default": True}
    return click.option("-o", "--output", type=click.Path(path_type=Path), help=explanation, **how)


def taken(kind: type[S], options: dict[str, Any]) -> S:
    """Make a settings dataclass of those of the command's `options` that are its own, and take them out."""
    return kind(**{field.name: options.pop(field.name) for field in options_of(kind) if field.name in options})


def refuse_extraction_options(what: str) -> None:
    """Refuse what the user typed for an extraction that there will not be: its features are there already.

    Those that decide how to compute, how many views are used, or what is random hold for what follows as well.

    Raises
    ------
    OptionError
    """
    from featx.extraction import ComputeOptions, Extract, ViewOptions

    later = {field.name for field in dataclasses.fields(ComputeOptions)} | {"val", "seed", "task"}
    later |= {field.name for field in dataclasses.fields(ViewOptions)}
    ours = {field.name for field in options_of(Extract)} - later
    for flag in typed_of(ours):
        raise OptionError(f"{flag} says how features are made, and {what} has its own. Leave it out, or name the DATA.")


def typed_of(names: Collection[str]) -> list[str]:
    """Return the flags of those options of the running command, among `names`, that the user has typed."""
    context = click.get_current_context()
    params = [param for param in context.command.params if param.name in names]
    return [p.opts[0] for p in params if context.get_parameter_source(p.name or "") is ParameterSource.COMMANDLINE]


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """Where fits that do not depend on each other are done."""

    jobs: int | None = option(
        None, "Fits side by side; −1: all cores, or all of the cluster.", metavar="N", least=-1, most=10_000
    )
    backend: str | None = option(
        None, "Of joblib, that does them: ray is a cluster (RAY_ADDRESS).", metavar="loky|threading|ray|…"
    )

    def context(self) -> contextlib.AbstractContextManager[Any]:
        """Return a context in which fits are done as the options say: one after another without any.

        Raises
        ------
        OptionError
            For a number of jobs, or a backend, that cannot be.
        MissingExtraError
            If Ray is asked for and not installed.
        """
        if self.jobs is None and self.backend is None:
            return contextlib.nullcontext()
        if self.jobs == 0:
            raise OptionError("--jobs takes a number of fits side by side, or -1 for all cores; got 0.")
        import joblib

        if self.backend == "ray":
            try:
                importlib.import_module("ray.util.joblib").register_ray()
            except ImportError as error:
                raise MissingExtraError.of("ray", "ray", "--backend ray") from error
        try:
            config: contextlib.AbstractContextManager[Any] = joblib.parallel_config(
                backend=self.backend or "loky", n_jobs=-1 if self.jobs is None else self.jobs
            )
        except ValueError as error:
            raise OptionError(
                f"joblib has no backend {self.backend!r}; it has loky, threading, multiprocessing, ray."
            ) from error
        return config
