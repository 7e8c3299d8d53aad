"""Names of files and folders in the cache."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import numpy.typing as npt

#: Longest name made here, in bytes; file systems take 255, and temporary files add to it.
_LONGEST = 150
#: Digits of a key in the name of a table.
KEY_DIGITS = 8


def clean_name(text: str) -> str:
    """Return `text` as the name of a file: lower case, everything outside ``a-z0-9._-`` becomes ``-``.

    A name that had to be cut ends with a hash of the whole.

    Examples
    --------
    >>> clean_name("My Photos/2"), clean_name("../x"), clean_name("")
    ('my-photos-2', 'x', 'unnamed')
    """
    name = re.sub(r"[^a-z0-9._-]", "-", text.lower()).lstrip(".-") or "unnamed"
    if len(name) > _LONGEST:
        name = f"{name[: _LONGEST - 9]}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
    return name


def segment_name(item_ids: npt.NDArray[np.uint8]) -> str:
    """Return the name of the segment that holds these items (uint8, shape (n, 32)), in whatever order.

    Examples
    --------
    >>> items = np.arange(64, dtype=np.uint8).reshape(2, 32)
    >>> segment_name(items) == segment_name(items[::-1])
    True
    """
    ordered = np.unique(np.ascontiguousarray(item_ids).reshape(-1, 32).view("V32"))
    return hashlib.sha256(ordered.tobytes()).hexdigest()[:40]
