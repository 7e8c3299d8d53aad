"""Small pictures of rows: read from where the images are, believed only if their content is the row's."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageOps

from featx.datasets import item_id, open_dataset, reopen
from featx.errors import FeatxError, ImageError
from featx.images import decode
from featx.model.items import first_images

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from featx.datasets import Dataset
    from featx.features import Features

#: Longest side of a thumbnail, and the most of them and of their bytes in one report.
SIDE = 72
MAX_THUMBNAILS = 3000
MAX_BYTES = 3_400_000
_QUALITY = 78

#: Row → JPEG.
Thumbnails = dict[int, bytes]


def open_images(table: Features, data: Any = None) -> tuple[Dataset | None, str]:
    """Open the images of a table: `data`, or the place that the table remembers.

    Returns
    -------
    dataset : Dataset or None
    note : str
        Where there is none: why, and what to type.
    """
    source: Mapping[str, str] = table.provenance.get("source") or {}
    if data is None and not source:
        return None, "Images are not shown: the table does not say where they are. Name them: --data DATA"
    try:
        if data is not None:
            return (data, "") if not isinstance(data, str) else (open_dataset(data), "")
        return reopen(source), ""
    except FeatxError as error:
        return None, f"Images are not shown: {error} Name them: --data DATA"


def make_thumbnails(dataset: Dataset, table: Features, rows: Sequence[int]) -> Thumbnails:
    """Make thumbnails of rows of a table, the first of them first, until there are enough.

    An image that is gone, cannot be read, or has other content than the row has none.

    Parameters
    ----------
    dataset : Dataset
        Has images under the ids of the table.
    table : Features
        Knows what they must be.
    rows : sequence of int
        Positions in the table, by importance; each counts once.
    """
    images = first_images(table)
    if images is not None:
        return _of_items(dataset, *images, rows)
    place = {name: i for i, name in enumerate(dataset.ids)}
    item_ids, ids = table.item_ids, table.ids
    wanted = {place[ids[row]]: row for row in list(dict.fromkeys(rows))[:MAX_THUMBNAILS] if ids[row] in place}
    made: Thumbnails = {}
    for index, data in dataset.iterate(sorted(wanted)):
        row = wanted[index]
        if isinstance(data, ImageError) or item_id(data) != item_ids[row].tobytes():
            continue
        try:
            made[row] = thumbnail(data)
        except ImageError:
            continue
    return _within_budget(made, rows)


def _of_items(
    dataset: Dataset, table: Features, members: Sequence[NDArray[np.intp]], rows: Sequence[int]
) -> Thumbnails:
    """Make thumbnails of items: up to four of their images in a square."""
    wanted = list(dict.fromkeys(rows))[: MAX_THUMBNAILS // 4]
    shown = {row: members[row][:4].tolist() for row in wanted}
    singles = make_thumbnails(dataset, table, [image for of in shown.values() for image in of])
    made: Thumbnails = {}
    for row, of in shown.items():
        tiles = [Image.open(io.BytesIO(singles[image])) for image in of if image in singles]
        if tiles:
            side = SIDE if len(tiles) == 1 else SIDE * 3 // 4
            square = Image.new(
                "RGB", (side, side) if len(tiles) == 1 else (2 * side, side * (1 + (len(tiles) > 2))), "white"
            )
            for k, tile in enumerate(tiles):
                square.paste(ImageOps.fit(tile, (side, side)), (k % 2 * side, k // 2 * side))
            file = io.BytesIO()
            square.save(file, "JPEG", quality=_QUALITY, optimize=True)
            made[row] = file.getvalue()
    return _within_budget(made, rows)


def thumbnail(data: Any) -> bytes:
    """Return an image, encoded or an array, as a small JPEG.

    Raises
    ------
    ImageError
        If it cannot be read.
    """
    image = decode(data, draft=2 * SIDE)
    image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return file.getvalue()


def _within_budget(made: Thumbnails, rows: Sequence[int]) -> Thumbnails:
    kept: Thumbnails = {}
    n_bytes = 0
    for row in dict.fromkeys(rows):
        if row in made and n_bytes + len(made[row]) <= MAX_BYTES:
            kept[row] = made[row]
            n_bytes += len(made[row])
    return kept
