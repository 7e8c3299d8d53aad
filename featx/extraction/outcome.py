"""What an extraction came to, or would come to."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featx.features import Features


@dataclass
class Extraction:
    """What one extraction came to.

    Attributes
    ----------
    tables : list of Features
        One a layer, in the order asked for.
    layers : list of str
        Their layers, by the names that were asked for.
    n_images, computed, reused : int
        Rows of the dataset; images that went through the backbone now, each augmented view for one; rows that
        were found.
    errors : list of (str, str)
        Images that could not be read: id and reason.
    seconds : float
        Wall-clock time of everything.
    images_per_second : float or None
        Of those that were computed, while they were.
    waiting : float or None
        Share of that time, 0–1, in which the network waited for images to be read and decoded.
    engine, precision : str
        ``none`` where nothing had to be computed.
    views : int
        Views of each image for training, the plain one included.
    notes : list of str
        What was decided, a sentence each.
    """

    tables: list[Features]
    layers: list[str]
    n_images: int
    computed: int
    reused: int
    errors: list[tuple[str, str]]
    seconds: float
    images_per_second: float | None
    waiting: float | None
    engine: str
    precision: str
    views: int = 1
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form of ``featx extract --json``."""
        tables = [
            {
                "path": str(table.path),
                "layer": layer,
                "pool": table.recipe.pool,
                "shape": list(table.shape),
                "key": table.key,
            }
            for table, layer in zip(self.tables, self.layers, strict=True)
            if table.recipe is not None
        ]
        return {
            "tables": tables,
            "images": self.n_images,
            "views": self.views,
            "computed": self.computed,
            "reused": self.reused,
            "errors": len(self.errors),
            "seconds": round(self.seconds, 3),
            "images_per_second": None if self.images_per_second is None else round(self.images_per_second, 2),
            "waiting": None if self.waiting is None else round(self.waiting, 3),
            "engine": self.engine,
            "precision": self.precision,
        }


@dataclass(frozen=True)
class Estimate:
    """What an extraction would do: the answer of ``--dry-run``.

    `to_compute` counts each augmented view as one. `seconds` is measured on one batch where something is to
    compute, 0 otherwise.
    """

    n_images: int
    views: int
    to_compute: int
    n_bytes: int
    seconds: float
    paths: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form of ``featx extract --dry-run --json``."""
        return asdict(self)
