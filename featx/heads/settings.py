"""Settings of heads: read from the command line, checked when a fit begins."""

from __future__ import annotations

import ast
from collections.abc import Collection
from typing import Any

from featx.errors import OptionError

_WORDS = {"true": True, "false": False, "none": None, "null": None, "inf": float("inf")}


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
        and (not whole or float(value).is_integer())
        and (above is None or value > above)
        and (least is None or value >= least)
        and (most is None or value <= most)
    )
    if not fits:
        bounds = [
            "a whole number" if whole else "a number",
            f"above {above}" if above is not None else "",
            f"at least {least}" if least is not None else "",
            f"at most {most}" if most is not None else "",
        ]
        raise OptionError(f"{name} must be {', '.join(filter(None, bounds))}; got {value!r}.")


def check_choice(name: str, value: Any, allowed: Collection[Any]) -> None:
    """Raise `OptionError` unless `value` is one of `allowed`."""
    if value not in allowed:
        raise OptionError(f"{name} must be one of {', '.join(map(str, allowed))}; got {value!r}.")
