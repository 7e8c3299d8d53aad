"""From the bytes of any image file to the pixels of a network's input, by one policy for everyone.

`decode` turns bytes into RGB, `fit` brings them to a `featx.recipe.Frame`, `prepare` does both, and
`DecodePool` does both in processes that may crash, hang or run out of memory without ending the run.
"""

from __future__ import annotations

from featx.images.geometry import fit, prepare
from featx.images.policy import POLICIES, decode, pixels_of
from featx.images.pool import DecodePool
from featx.images.signatures import READABLE, sniff

__all__ = ["POLICIES", "READABLE", "DecodePool", "decode", "fit", "pixels_of", "prepare", "sniff"]
