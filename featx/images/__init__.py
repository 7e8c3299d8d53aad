"""From the bytes of any image file to the pixels of a network's input, by one policy for everyone.

`decode` turns bytes into RGB, `fit` brings them to a `featx.recipe.Frame`, `prepare` does both, and
`DecodePool` does both in processes that may crash, hang or run out of memory without ending the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx.importing import later

if TYPE_CHECKING:
    from featx.images.decoder import Slab
    from featx.images.policy import POLICIES, File, ImageData, Unread, decode, item_id, pixels_of
    from featx.images.pool import DecodePool
    from featx.images.resizing import fit, prepare
    from featx.images.sniffing import READABLE, sniff

__all__ = [
    "POLICIES",
    "READABLE",
    "DecodePool",
    "File",
    "ImageData",
    "Slab",
    "Unread",
    "decode",
    "fit",
    "item_id",
    "pixels_of",
    "prepare",
    "sniff",
]

if not TYPE_CHECKING:  # for a type checker a name that is not above is an error
    __getattr__ = later(
        __name__,
        {
            "featx.images.decoder": "Slab",
            "featx.images.policy": "POLICIES File ImageData Unread decode item_id pixels_of",
            "featx.images.pool": "DecodePool",
            "featx.images.resizing": "fit prepare",
            "featx.images.sniffing": "READABLE sniff",
        },
    )
