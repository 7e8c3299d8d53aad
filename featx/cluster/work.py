"""What travels between the driver and its workers: names, keys and hashes; never pixels or features."""

from __future__ import annotations

import dataclasses
import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from featx import __version__
from featx.errors import OptionError

if TYPE_CHECKING:
    from featx.extraction import Options
    from featx.extraction.lookup import Lookup, Part
    from featx.recipe import Recipe, Request


@dataclass(frozen=True)
class Work:
    """All that a worker must know of a part of an extraction before it gets segments.

    Attributes
    ----------
    request : Request
        How to get the backbone.
    keys : list of str
        What its recipes must come to, one a layer.
    recipes : list of Recipe
        Of the rows to compute: of plain images or of views.
    source : mapping of str to str
        Where the images are, as `Dataset.source` tells it.
    ids : str
        Digest of their ids: every node must list the same images in the same order.
    n_images : int
        That lack rows.
    options : Options
    """

    request: Request
    keys: list[str]
    recipes: list[Recipe]
    source: Mapping[str, str]
    ids: str
    n_images: int
    options: Options

    @classmethod
    def of(cls, lookup: Lookup, part: Part, options: Options) -> Work:
        """Describe `part`.

        Raises
        ------
        OptionError
            If the images are in this process's memory only.
        """
        if not lookup.dataset.source:
            raise OptionError(
                "On a cluster every node reads the images itself, and these are in memory or a list. Put them in a "
                "folder or a file (.npz, .parquet, .tar, labels.csv) that all nodes see, and give its path."
            )
        request = lookup.resolved.request
        if Path(request.weights).is_file():
            request = dataclasses.replace(request, weights=str(Path(request.weights).absolute()))
        keys = [recipe.key for recipe in lookup.recipes]
        ids = digest_of(lookup.dataset.ids)
        return cls(request, keys, part.recipes, lookup.dataset.source, ids, len(part.positions), options)


@dataclass(frozen=True)
class Done:
    """What comes back of a segment.

    Attributes
    ----------
    k : int
        Its number.
    rows : int
        Images that gave features.
    errors : list of (int, str, bool)
        Position, reason and transience of those that did not.
    sha : str
        SHA-256 of the features: equal when a segment is computed twice, on equal machines.
    node, pid : str and int
        Ray's id of the node, and the process on it, that did the work.
    waiting : float
        Seconds in which the network waited for pixels.
    """

    k: int
    rows: int
    errors: list[tuple[int, str, bool]]
    sha: str
    node: str
    pid: int
    waiting: float


def digest_of(ids: Sequence[str]) -> str:
    """Return a digest of the ids of a dataset, in their order.

    Examples
    --------
    >>> digest_of(["a", "b"]) == digest_of(["b", "a"])
    False
    """
    digest = hashlib.sha256()
    for image in ids:
        digest.update(image.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Return the versions that must be equal on all nodes: a build for other hardware (``+cu128``) is no other one."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"featx": __version__, "torch": metadata.version("torch").partition("+")[0], "python": python}
