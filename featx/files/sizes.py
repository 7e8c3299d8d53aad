"""Sizes as people write them."""

from __future__ import annotations

from featx.errors import OptionError


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
