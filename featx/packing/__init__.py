"""A whole model as one file for other runtimes, from an image to probabilities; predictions from it without PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx.importing import later

if TYPE_CHECKING:
    from featx.packing.reading import PackedModel
    from featx.packing.settings import Packing, is_packed
    from featx.packing.writing import Packed, pack

__all__ = ["Packed", "PackedModel", "Packing", "is_packed", "pack"]

if not TYPE_CHECKING:  # for a type checker a name that is not above is an error
    __getattr__ = later(
        __name__,
        {
            "featx.packing.reading": "PackedModel",
            "featx.packing.settings": "Packing is_packed",
            "featx.packing.writing": "Packed pack",
        },
    )
