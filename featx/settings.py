"""Settings as data: an option is a field of a dataclass, with its help, and every face derives from it.

The command line builds its options from the fields (`options_of`), a Python function takes their names as keywords
(`keywords`), an estimator inherits them as parameters. So each option is named, defaulted and explained once.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from featx.errors import OptionError

if TYPE_CHECKING:
    from dataclasses import Field

P = ParamSpec("P")
S = TypeVar("S")
D = TypeVar("D")
R = TypeVar("R")


def option(
    default: Any,
    help: str,  # noqa: A002 - as click and argparse call it
    *,
    metavar: str | None = None,
    flags: tuple[str, ...] = (),
    kind: Any = None,
) -> Any:
    """Return a dataclass field that knows how it is explained and typed.

    Parameters
    ----------
    default : Any
        What it is when nobody says anything.
    help : str
        One sentence for the command line and for the docstrings of functions that take it.
    metavar : str, optional
        The form of its values, such as ``N|N%``.
    flags : tuple of str, optional
        How it is typed, where that is not ``--`` and the field's name: ``("--layer",)``.
    kind : type, optional
        What the command line turns its text into, where that does not follow from `default`: ``int`` for one whose
        default is None.
    """
    return dataclasses.field(default=default, metadata={"help": help, "metavar": metavar, "flags": flags, "kind": kind})


def options_of(*settings: type) -> Iterator[Field[Any]]:
    """Yield the fields of settings dataclasses that are options, in order, each name once."""
    seen = set()
    for kind in settings:
        for field in dataclasses.fields(kind):
            if "help" in field.metadata and field.name not in seen:
                seen.add(field.name)
                yield field


def flag_of(field: Field[Any]) -> str:
    """Return what is typed for `field`: ``--batch-size``."""
    flags: tuple[str, ...] = field.metadata["flags"]
    return flags[0] if flags else f"--{field.name.replace('_', '-')}"


def keywords(settings: Callable[P, S]) -> Callable[[Callable[[D, S], R]], Callable[Concatenate[D, P], R]]:
    """Give a function the fields of a settings dataclass as its keyword arguments.

    The function is written with two parameters, what it works on and one settings object. Its callers pass the fields
    by name; editors, type checkers and ``help`` see them, and an unknown name is answered with the nearest right one.

    Parameters
    ----------
    settings : type
        A keyword-only dataclass whose fields are made with `option`.

    Raises
    ------
    TypeError
        From the decorated function, for a keyword that is no field.
    """

    def decorate(function: Callable[[D, S], R]) -> Callable[Concatenate[D, P], R]:
        first, _ = inspect.signature(function).parameters.values()
        fields = inspect.signature(settings).parameters

        @functools.wraps(function)
        def called(*args: Any, **given: Any) -> R:
            if first.name in given:
                args = (*args, given.pop(first.name))
            if not args and first.default is not inspect.Parameter.empty:
                args = (first.default,)
            check_names(f"featx.{function.__name__}", given, fields)
            return function(*args, settings(**given))  # type: ignore[call-arg]

        called.__signature__ = inspect.signature(function).replace(  # type: ignore[attr-defined]
            parameters=[first, *(p.replace(kind=p.KEYWORD_ONLY) for p in fields.values())]
        )
        called.__doc__ = _documented(function.__doc__ or "", settings)
        return called

    return decorate


def check_names(function: str, given: Any, known: Any) -> None:
    """Refuse a keyword that `function` does not know, naming the nearest that it does.

    Raises
    ------
    TypeError
    """
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, list(known), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" It takes {', '.join(known)}."
            raise TypeError(f"{function}() has no argument {name!r}.{hint}")


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse a value that is none of `allowed`.

    Raises
    ------
    OptionError
    """
    if value not in allowed:
        raise OptionError(f"{name} must be one of {', '.join(allowed)}; got {value!r}.")


def _documented(doc: str, settings: Any) -> str:
    """Put the help of each option where the docstring says ``{options}``."""
    lines = []
    for field in options_of(settings):
        annotation = field.type.__name__ if isinstance(field.type, type) else field.type
        lines += [f"{field.name} : {annotation}, default={field.default!r}", f"    {field.metadata['help']}"]
    indent = next((line[: len(line) - len(line.lstrip())] for line in doc.splitlines() if "{options}" in line), "")
    return doc.replace("{options}", f"\n{indent}".join(lines))
