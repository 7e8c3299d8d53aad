"""What a dataset is called in a cache."""

from __future__ import annotations

import hashlib
import re
import unicodedata

_MAX_LENGTH = 60


def dataset_name(title: str, identity: str) -> str:
    """Return the cleaned title and eight hexadecimal digits of what tells the source from its namesakes.

    Examples
    --------
    >>> dataset_name("My Photos", "/home/eva/My Photos")
    'my-photos-fda4481a'
    >>> dataset_name("My Photos", "/home/adam/My Photos")
    'my-photos-021f6429'
    """
    digest = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    cleaned = re.sub(r"[^a-z0-9._-]", "-", title.lower()).strip("-.")[:_MAX_LENGTH]
    return f"{cleaned or 'dataset'}-{digest}"


def readable(text: str) -> str:
    r"""Return a file name or label as Unicode that every table can hold and every system composes alike (NFC).

    Examples
    --------
    >>> readable("cafe\u0301.jpg") == "caf\u00e9.jpg"
    True
    >>> readable("broken\udcff.jpg")
    'broken\\xff.jpg'
    """
    if text.isascii():
        return text
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", text)
