"""What packing can be told, in Python and on the command line, and how its files are named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featx.errors import OptionError
from featx.settings import check, option

#: How the files of each format end.
FORMATS = {"onnx": ".onnx", "openvino": ".xml", "exported": ".pt2"}


@dataclass(frozen=True, kw_only=True)
class Packing:
    """What a packed model is like, and what it is checked on."""

    precision: str = option(
        "fp32",
        "fp16 halves the file; int8 also computes the network in whole numbers.",
        choices=("fp32", "fp16", "int8"),
    )
    format: str = option(
        "auto",
        "onnx (.onnx), OpenVINO's (.xml, .bin) or PyTorch's (.pt2). auto: by the name.",
        choices=("auto", *FORMATS),
    )
    check: Any = option(None, "Images to check it on. Default: some that it was fitted on.", metavar="DATA")

    def __post_init__(self) -> None:
        check(self)

    def format_of(self, path: Path) -> str:
        """Return the format of a file that is to be written.

        Raises
        ------
        OptionError
            If its name is not one of that format, or that format has no such precision.
        """
        by_name = {suffix: name for name, suffix in FORMATS.items()}
        chosen = by_name.get(path.suffix.lower()) if self.format == "auto" else self.format
        if chosen is None:
            raise OptionError(f"{path} is named like none of the forms of a packed model: -o {path.stem}.onnx")
        if path.suffix.lower() != FORMATS[chosen]:
            ending = FORMATS[chosen]
            raise OptionError(f"--format {chosen} makes a file named {ending}: -o {path.stem}{ending}")
        if chosen == "exported" and self.precision != "fp32":
            raise OptionError(
                f"--precision {self.precision} is of ONNX and OpenVINO. Leave it out, or -o {path.stem}.onnx"
            )
        return chosen


def is_packed(path: str | Path) -> bool:
    """Whether a file is a packed model that predicts here, by its name."""
    return Path(path).suffix.lower() == FORMATS["onnx"]
