"""Settings as data: an option is a field of a dataclass, with its help, and every face derives from it.

The command line builds its options from the fields (`options_of`), a Python function takes their names as keywords
(`keywords`), an estimator has them as parameters (`parameters`). So each option is named, defaulted, explained and
bounded once.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import inspect
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, overload

from featx.errors import OptionError

if TYPE_CHECKING:
    from dataclasses import Field

#: What words on the command line stand for.
_WORDS = {"true": True, "false": False, "none": None, "null": None, "inf": float("inf")}

P = ParamSpec("P")
S = TypeVar("S")
M = TypeVar("M")
S_co = TypeVar("S_co", covariant=True)
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

#: The largest seed that numpy, torch and scikit-learn all take.
LARGEST_SEED = 2**32 - 1


def option(
    default: Any,
    help: str,  # noqa: A002 - as click and argparse call it
    *,
    metavar: str | None = None,
    flags: tuple[str, ...] = (),
    choices: tuple[str, ...] = (),
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    positional: bool = False,
    together: bool = False,
) -> Any:
    """Return a dataclass field that knows how it is explained, typed and bounded.

    Parameters
    ----------
    default : Any
        What it is when nobody says anything.
    help : str
        One sentence for the command line and for the docstrings of functions that take it.
    metavar : str, optional
        The form of its values, such as ``N|N%``; by default the `choices`.
    flags : tuple of str, optional
        How it is typed, where that is not ``--`` and the field's name: ``("--layer",)``.
    choices : tuple of str, optional
        The values that there are.
    least, most, above : float, optional
        Bounds of a number. None always stands for a default of None.
    positional : bool
        Whether Python takes it by place as well.
    together : bool
        Whether several choices may be taken at once, with ``+`` between them.
    """
    told = {"help": help, "metavar": metavar or "|".join(choices) or None, "flags": flags, "choices": choices}
    bounds = {"least": least, "most": most, "above": above, "together": together}
    return dataclasses.field(default=default, kw_only=not positional, metadata=told | bounds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seeded:
    """What is drawn at random is drawn from a seed."""

    seed: int = option(
        0,
        "Of all that is drawn at random: weights, splits, folds, views, heads, order.",
        metavar="N",
        least=0,
        most=LARGEST_SEED,
    )


def options_of(*settings: type) -> Iterator[Field[Any]]:
    """Yield the fields of settings dataclasses that are options, each name once, in order, but the seed last."""
    fields = {field.name: field for kind in settings for field in dataclasses.fields(kind) if "help" in field.metadata}
    yield from sorted(fields.values(), key=lambda field: field.name == "seed")


def flag_of(field: Field[Any]) -> str:
    """Return what is typed for `field`: ``--batch-size``."""
    flags: tuple[str, ...] = field.metadata["flags"]
    return flags[0] if flags else f"--{field.name.replace('_', '-')}"


def types_of(field: Field[Any]) -> set[str]:
    """Return the names of the types of `field` but None: ``{"int"}``. Annotations are texts here."""
    return {word.strip() for word in str(field.type).split("|")} - {"None"}


def part_of(kind: Callable[..., S], settings: Any) -> S:
    """Make a dataclass of the attributes of `settings` that are its fields."""
    return kind(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(kind)})  # type: ignore[arg-type]


def check(settings: Any) -> None:
    """Refuse values of a settings dataclass that are none of their field's choices, or out of its bounds.

    Raises
    ------
    OptionError
    """
    for field in options_of(type(settings)):
        check_value(field, getattr(settings, field.name), flag_of(field))


def check_value(field: Field[Any], value: Any, flag: str) -> None:
    """Refuse a value of one field; the error calls it `flag`.

    Raises
    ------
    OptionError
    """
    if value is None and field.default is None:
        return
    if field.metadata["choices"]:
        for part in str(value).split("+") if field.metadata["together"] else [value]:
            check_choice(flag, part, field.metadata["choices"])
    bounds = {name: field.metadata[name] for name in ("above", "least", "most") if field.metadata[name] is not None}
    if bounds:
        if value in (math.inf, -math.inf):
            raise OptionError(f"{flag} must be finite; got {value!r}.")
        check_number(flag, value, whole=types_of(field) == {"int"}, **bounds)


class _WithKeywords(Protocol[P, R_co]):
    """A function of some data, or of what it works on and data among its keywords."""

    __name__: str

    @overload
    def __call__(self, data: Any = ..., *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, subject: Any, /, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


class _Decorator(Protocol[P, S_co]):
    """What makes a function, or a method, one of keywords."""

    @overload
    def __call__(self, function: Callable[[Any, S_co], R]) -> _WithKeywords[P, R]: ...
    @overload
    def __call__(self, function: Callable[[M, Any, S_co], R]) -> Callable[Concatenate[M, Any, P], R]: ...


def keywords(settings: Callable[P, S], hint: str = "") -> _Decorator[P, S]:
    """Give a function, or a method, the fields of a settings dataclass as its keyword arguments.

    The function is written with two parameters, what it works on and one settings object. Its callers pass the fields
    by name; editors, type checkers and ``help`` see them, and an unknown name is answered with the nearest right one.

    Parameters
    ----------
    settings : type
        A dataclass whose fields are made with `option`. Others of its fields are keywords, but no options.
    hint : str
        What else to say about a name that is no field, in which ``{name}`` and ``{value!r}`` are what was given.

    Raises
    ------
    TypeError
        From the decorated function, for a keyword that is no field.
    """

    def decorate(function: Any) -> Any:
        *own, _ = inspect.signature(function).parameters.values()  # what it works on; of a method, self before
        fields = inspect.signature(settings).parameters
        name = function.__qualname__ if len(own) > 1 else f"featx.{function.__name__}"

        @functools.wraps(function)
        def called(*args: Any, **given: Any) -> Any:
            if len(args) < len(own):
                subject = own[-1]
                if subject.name not in given and subject.default is inspect.Parameter.empty:
                    raise TypeError(f"{name}() needs {subject.name}, what it works on.")
                args = (*args, given.pop(subject.name, subject.default))
            check_names(name, given, fields, hint)
            return function(*args[: len(own)], settings(*args[len(own) :], **given))

        called.__signature__ = inspect.signature(function).replace(parameters=[*own, *fields.values()])  # type: ignore[attr-defined]
        called.__doc__ = _documented(function.__doc__ or "", settings)
        return called

    return cast("_Decorator[P, S]", decorate)


def parameters(settings: Callable[P, Any]) -> Callable[[Callable[[S], None]], Callable[Concatenate[S, P], None]]:
    """Give an estimator's ``__init__`` the fields of a settings dataclass as parameters; it stores them.

    Parameters
    ----------
    settings : type
        A dataclass whose fields are made with `option`. It is not made, and checks nothing, before `part_of` does.
    """

    def decorate(init: Callable[[S], None]) -> Callable[Concatenate[S, P], None]:
        self = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        signature = inspect.Signature([self, *inspect.signature(settings).parameters.values()])

        @functools.wraps(init)
        def stored(*args: Any, **given: Any) -> None:
            check_names(type(args[0]).__name__, given, signature.parameters)
            bound = signature.bind(*args, **given)
            bound.apply_defaults()
            me, *_ = bound.arguments.values()
            vars(me).update({name: value for name, value in bound.arguments.items() if name != "self"})

        stored.__signature__ = signature  # type: ignore[attr-defined]
        return stored

    return decorate


def check_names(function: str, given: Mapping[str, Any], known: Collection[str], hint: str = "") -> None:
    """Refuse a keyword that a function does not know, naming the nearest that it does.

    Parameters
    ----------
    function : str
        Its name.
    given : mapping
        Its keyword arguments.
    known : collection of str
        Those that it has.
    hint : str
        As `keywords` takes it.

    Raises
    ------
    TypeError
    """
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(name, list(known), n=1)
            right = f"Did you mean {near[0]!r}?" if near else f"It takes {', '.join(known)}."
            told = f"{function}() has no argument {name!r}. {right} {hint.format(name=name, value=value)}"
            raise TypeError(told.rstrip())


def check_choice(name: str, value: Any, allowed: Collection[Any]) -> None:
    """Refuse a value that is none of `allowed`.

    Raises
    ------
    OptionError
    """
    if value not in allowed:
        raise OptionError(f"{name} must be one of {', '.join(map(str, allowed))}; got {value!r}.")


def parse_setting(text: str, default: Any = None) -> Any:
    """Return the value that a text on the command line means.

    Numbers, ``true``, ``false``, ``none`` and Python literals are taken as such, commas make tuples,
    and everything else stays text. Where the `default` is a word, ``none`` is one too, as in ``schedule=none``.

    Examples
    --------
    >>> [parse_setting(text) for text in ("256,128,64", "1e-3", "none", "256 relu", "{0: 1, 1: 3}")]
    [(256, 128, 64), 0.001, None, '256 relu', {0: 1, 1: 3}]
    """
    text = text.strip()
    if text.lower() in _WORDS:
        value = _WORDS[text.lower()]
        return text if value is None and isinstance(default, str) else value
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        parts = [part.strip() for part in text.split(",")]
        return tuple(map(parse_setting, parts)) if len(parts) > 1 and all(parts) else text


def parse_bytes(size: int | str, *, least: int = 1) -> int:
    """Return a size in bytes from a number or a text such as ``2GiB``.

    Raises
    ------
    OptionError
        If it is no size, or less than `least`.

    Examples
    --------
    >>> parse_bytes("2GiB"), parse_bytes("500 MB"), parse_bytes(4096)
    (2147483648, 500000000, 4096)
    """
    units = {"": 1, "b": 1}
    for power, letter in enumerate("kmgt", start=1):
        units |= {letter: 1024**power, letter + "ib": 1024**power, letter + "b": 1000**power}
    text = str(size).strip().lower()
    number = text.rstrip("bikmgt ")
    try:
        n_bytes = int(float(number) * units[text[len(number) :].strip()])
    except (KeyError, ValueError, OverflowError):
        n_bytes = -1
    if n_bytes < least:
        raise OptionError(f"A size is a number of bytes such as 2GiB or 500MB, got {size!r}.")
    return n_bytes


def parse_seconds(time: float | str) -> float:
    """Return a time in seconds from a number or a text such as ``30s`` or ``2m``.

    Raises
    ------
    OptionError
        If it is no time above 0.

    Examples
    --------
    >>> parse_seconds("30s"), parse_seconds("2m"), parse_seconds(1.5)
    (30.0, 120.0, 1.5)
    """
    text = str(time).strip().lower()
    number = text.rstrip("smh ")
    try:
        seconds = float(number) * {"": 1, "s": 1, "m": 60, "h": 3600}[text[len(number) :].strip()]
    except (KeyError, ValueError):
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise OptionError(f"A time is a number of seconds above 0, such as 30s or 2m; got {time!r}.")
    return seconds


def check_number(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
    whole: bool = False,
) -> None:
    """Raise `OptionError` unless `value` is a number within the bounds.

    Examples
    --------
    >>> check_number("dropout", 1.5, least=0, most=1)
    Traceback (most recent call last):
    featx.errors.OptionError: dropout must be a number, at least 0, at most 1; got 1.5.
    """
    # numpy's integers and floats are numbers too; bool is an int that nobody means as one.
    number = not isinstance(value, bool | str) and hasattr(value, "__float__")
    fits = (
        number
        and (not whole or isinstance(value, int) or float(value).is_integer())
        and (above is None or value > above)
        and (least is None or value >= least)
        and (most is None or value <= most)
    )
    if not fits:
        bounds = [
            "a whole number" if whole else "a number",
            f"above {above:,}" if above is not None else "",
            f"at least {least:,}" if least is not None else "",
            f"at most {most:,}" if most is not None else "",
        ]
        raise OptionError(f"{name} must be {', '.join(filter(None, bounds))}; got {value!r}.")


def _documented(doc: str, settings: Any) -> str:
    """Put the help of each option where the docstring says ``{options}``."""
    lines = []
    for field in options_of(settings):
        annotation = field.type.__name__ if isinstance(field.type, type) else field.type
        told = "{" + ", ".join(field.metadata["choices"]) + "}" if field.metadata["choices"] else annotation
        lines += [f"{field.name} : {told}, default={field.default!r}", f"    {field.metadata['help']}"]
    indent = next((line[: len(line) - len(line.lstrip())] for line in doc.splitlines() if "{options}" in line), "")
    return doc.replace("{options}", f"\n{indent}".join(lines))
