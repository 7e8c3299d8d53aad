"""Text in HDF5: fixed-width UTF-8, which has a place and a size and needs no heap."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.errors import DataError


def to_utf8(texts: Iterable[str]) -> npt.NDArray[np.bytes_]:
    r"""Encode texts as an array of byte strings, as wide as the longest (at least 1 byte).

    File names that are no UTF-8 keep their bytes.

    Raises
    ------
    DataError
        If a text ends with a NUL character, or cannot be encoded.

    Examples
    --------
    >>> to_utf8(["a", "ä"])
    array([b'a', b'\xc3\xa4'], dtype='|S2')
    """
    try:
        encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
    except UnicodeEncodeError as error:
        raise DataError(f"{error.object!r} cannot be written as UTF-8. Rename it.") from error
    for text in encoded:
        if text.endswith(b"\0"):
            raise DataError(f"{text!r} ends with a NUL character. Rename it.")
    return np.array(encoded, dtype=f"S{max(map(len, encoded), default=1) or 1}")


def from_utf8(texts: npt.NDArray[Any]) -> npt.NDArray[np.str_]:
    """Decode what `to_utf8` made.

    Examples
    --------
    >>> from_utf8(to_utf8(["a", "ä"])).tolist()
    ['a', 'ä']
    """
    decoded = [text.decode("utf-8", "surrogateescape") for text in texts.tolist()]
    return np.array(decoded, dtype=str) if decoded else np.empty(0, "U1")
