"""What packing can be told, in Python and on the command line, and how its files are named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featx.settings import check, option


@dataclass(frozen=True, kw_only=True)
class Packing:
    """What a packed model is like, and what it is checked on."""

    precision: str = option("fp32", "Of the weights in the file; fp16 halves its size.", choices=("fp32", "fp16"))
    check: Any = option(None, "Images to check it on. Default: some that it was fitted on.", metavar="DATA")

    def __post_init__(self) -> None:
        check(self)


def is_packed(path: str | Path) -> bool:
    """Whether a file is a packed model, by its name."""
    return Path(path).suffix.lower() == ".onnx"
