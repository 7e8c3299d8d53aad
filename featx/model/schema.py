"""What a value out of somebody's file must be, said once and checked before anything is made of it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from featx.errors import ModelFileError

#: The largest whole number that numpy and HDF5 take.
_MOST = 2**63 - 1
#: Deeper nesting than any model has, and far from where a recursive parser would end.
_MAX_DEPTH = 32
#: A string (closed or not, so that the scan stays linear) or a bracket.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


@dataclass(frozen=True)
class Kind:
    """A kind of value: what it is called, and the check."""

    words: str
    holds: Callable[[Any], bool]


def whole(low: int = -_MOST, high: int = _MOST) -> Kind:
    """Whole numbers within bounds; booleans are none."""
    return Kind(f"a whole number in {low}…{high}", lambda x: type(x) is int and low <= x <= high)


def number(low: float = -math.inf, high: float = math.inf) -> Kind:
    """Finite numbers within bounds."""

    def holds(value: Any) -> bool:
        if type(value) is int:
            value = float(value) if abs(value) <= _MOST else math.inf
        return type(value) is float and math.isfinite(value) and low <= value <= high

    return Kind(f"a number in {low}…{high}".replace("-inf", "").replace("inf", ""), holds)


def text(pattern: str = r"(?s).*", most: int = 100_000) -> Kind:
    """Texts, all of which match a pattern."""
    return Kind("a text of its form", lambda x: type(x) is str and len(x) <= most and bool(re.fullmatch(pattern, x)))


def among(*values: str) -> Kind:
    """One of some words."""
    return Kind(f"one of {', '.join(values)}", lambda x: type(x) is str and x in values)


def optional(kind: Kind) -> Kind:
    """Take nothing, which is null in JSON, as well."""
    return Kind(f"{kind.words}, or nothing", lambda x: x is None or kind.holds(x))


def either(*kinds: Kind) -> Kind:
    """Values of any of some kinds."""
    return Kind(" or ".join(kind.words for kind in kinds), lambda x: any(kind.holds(x) for kind in kinds))


def list_of(kind: Kind, *lengths: int) -> Kind:
    """Take lists, of one of some lengths if any are named."""
    return Kind(
        f"a list, each of it {kind.words}",
        lambda x: type(x) is list and (not lengths or len(x) in lengths) and all(map(kind.holds, x)),
    )


def dict_of(kind: Kind) -> Kind:
    """Objects whose names are free and whose values are of a kind."""
    return Kind(f"an object, each value {kind.words}", lambda x: type(x) is dict and all(map(kind.holds, x.values())))


def record(kinds: Mapping[str, Kind], *optional_names: str) -> Kind:
    """Objects of exactly these names, of which some may be missing."""
    return Kind(
        f"an object of {', '.join(kinds)}",
        lambda x: (
            type(x) is dict
            and x.keys() <= kinds.keys() <= x.keys() | set(optional_names)
            and all(kinds[name].holds(value) for name, value in x.items())
        ),
    )


TEXT, FLAG = text(), Kind("true or false", lambda x: type(x) is bool)


def _plain(value: Any, depth: int = 8) -> bool:
    if isinstance(value, list | dict):
        return depth > 0 and all(_plain(v, depth - 1) for v in (value.values() if isinstance(value, dict) else value))
    return any(kind.holds(value) for kind in (TEXT, FLAG, number())) or value is None


#: Any JSON whose numbers Python's and numpy's own types hold.
PLAIN = Kind("plain data", _plain)


def check(fields: Any, kinds: Mapping[str, Kind], what: str, *optional_names: str) -> dict[str, Any]:
    """Hold an object against the kinds of its fields, and return it.

    Parameters
    ----------
    fields : Any
        Out of a file.
    kinds : mapping of str to Kind
        By name.
    what : str
        What it is called in messages: ``"its report"``.
    *optional_names : str
        Fields that may be missing.

    Raises
    ------
    ModelFileError
        Naming the first field that is missing, unknown or of another kind.

    Examples
    --------
    >>> check({"n": 3}, {"n": whole(1)}, "its report")
    {'n': 3}
    """
    if type(fields) is not dict:
        raise ModelFileError(f"{what} is {type(fields).__name__}, not dict")
    if strange := [name for name in fields if name not in kinds]:
        raise ModelFileError(f"{what} has {str(strange[0])[:80]!r}, which this featx does not know")
    if missing := [name for name in kinds if name not in fields and name not in optional_names]:
        raise ModelFileError(f"{what} has no {missing[0]!r}")
    for name, value in fields.items():
        if not kinds[name].holds(value):
            raise ModelFileError(f"the {name!r} of {what} is not {kinds[name].words}")
    return fields


def parse_json(data: bytes) -> dict[str, Any]:
    """Parse a JSON object without trusting it: bounded depth, no name twice, no NaN.

    Raises
    ------
    ModelFileError
        If it is something else.
    """
    depth = 0
    for token in _TOKEN.finditer(data):
        depth += {b"{": 1, b"[": 1, b"}": -1, b"]": -1}.get(token[0], 0)
        if depth > _MAX_DEPTH:
            raise ModelFileError("its JSON is nested too deeply")
    try:
        fields = json.loads(data, object_pairs_hook=_without_doubles, parse_constant=_no_constant)
    except ValueError as error:
        raise ModelFileError(f"its JSON does not parse: {error}") from error
    if not isinstance(fields, dict):
        raise ModelFileError("its JSON is not an object")
    return fields


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("one name twice in an object")
    return fields


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")
