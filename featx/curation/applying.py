"""`apply_labels`: labels become a new table of labels, or folders of a class each. The data stay as they are."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featx.curation.listing import Listing
from featx.datasets import item_id
from featx.errors import DataError, FeatxError, ImageError
from featx.files.atomic import whole_folder
from featx.model.tabulate import check_destination, write_rows

if TYPE_CHECKING:
    from featx.datasets import Dataset
    from featx.features import Features

#: What no folder's name may hold, on any system.
_UNSAFE = re.compile(r'[\x00-\x1f<>:"/\\|?*]|^\.+|[. ]+$')


def apply_labels(table: Features, output: str | Path, images: Dataset | None = None) -> int:
    """Write the labelled rows of a table, and return how many they are.

    Parameters
    ----------
    table : Features
        With the labels to be written, see `featx.features.relabelled`.
    output : path
        A ``.csv``, ``.xlsx`` or ``.parquet`` with the columns file, label and, where there are any, split; or a folder
        that does not exist yet: in it a folder a split, where there are any, in it a folder a class, in it links to the
        images, or copies where they are not files.
    images : Dataset, optional
        Needed for a folder.

    Raises
    ------
    DataError
        If the folder exists, or an image is gone or another than the row was made of.
    """
    rows, output = np.flatnonzero(table.y >= 0), Path(output)
    if output.suffix.lower() in (".csv", ".xlsx", ".parquet"):
        check_destination(output)
        write_rows(output, *Listing(table, rows, {}).records())
        return len(rows)
    if output.suffix:
        raise DataError(f"{output} is neither a .csv, .xlsx or .parquet nor a folder: folders here have no ending.")
    if output.exists():
        raise DataError(f"{output} is there already, and nothing is overwritten. Name a new folder.")
    if images is None:
        raise DataError("The table does not say where its images are; write a table of labels: -o labels.csv")
    _write_folder(table, rows.tolist(), output, images)
    return len(rows)


def _write_folder(table: Features, rows: list[int], output: Path, images: Dataset) -> None:
    place = {name: i for i, name in enumerate(images.ids)}
    ids, splits, items = table.ids.tolist(), table.splits.tolist(), table.item_ids
    wanted = {place[ids[row]]: row for row in rows if ids[row] in place}
    if len(wanted) < len(rows):
        raise DataError(f"{len(rows) - len(wanted):,} of {len(rows):,} labelled images are gone. Extract again.")
    root = Path(str(images.source.get("data", ""))).absolute()
    names = _folder_names(table.classes)
    with whole_folder(output.absolute()) as folder:
        for index, data in images.iterate(sorted(wanted)):
            row = wanted[index]
            if isinstance(data, ImageError) or item_id(data) != items[row].tobytes():
                raise DataError(f"{ids[row]} is not the image any more that the table was made of. Extract again.")
            home = folder / splits[row] / names[int(table.y[row])]
            home.mkdir(parents=True, exist_ok=True)
            target = home / _UNSAFE.sub("_", ids[row].replace("/", "__"))
            original = root / ids[row]
            if original.is_file():
                target.symlink_to(original)
            elif isinstance(data, bytes):
                target.write_bytes(data)
            else:
                target.with_name(f"{target.name}.png").write_bytes(_png(data))


def _folder_names(classes: tuple[str, ...]) -> list[str]:
    names = [_UNSAFE.sub("_", name) or "_" for name in classes]
    if len({name.lower() for name in names}) < len(names):
        raise FeatxError("Two classes would share a folder; write a table of labels: -o labels.csv")
    return names


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, "PNG")
    return file.getvalue()
