"""What every loader of this package returns: a network with its weights and what belongs to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from featx.backbones.preprocessing import Preprocessing
    from featx.backbones.trace import Trace


class Tap(NamedTuple):
    """A place in a network: a module's path (empty for the whole network) and the pooling of its output."""

    layer: str
    pool: str = "auto"


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A network in evaluation mode, as its library or its author means it.

    Attributes
    ----------
    name : str
        Full name with the library: ``torchvision/vgg16``.
    weights : str
        ``random-SEED``, ``file``, or the library's tag.
    module : torch.nn.Module
    preprocessing : Preprocessing
        That of the weights.
    default : Tap or None
        What features are when no layer is named; None: the last feature map.
    files : tuple of Path
        Weight files that were read.
    traced : Trace or None
        One forward at the size of `preprocessing`, where finding the default took one.
    """

    name: str
    weights: str
    module: nn.Module
    preprocessing: Preprocessing
    default: Tap | None = None
    files: tuple[Path, ...] = ()
    traced: Trace | None = None
