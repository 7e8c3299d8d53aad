"""Tables in other people's formats, written a block at a time."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from featx.errors import OptionError
from featx.files import Disk, whole_file
from featx.files.disk import explained
from featx.store.container import Rows
from featx.store.content import TableContent
from featx.store.store import is_cache
from featx.store.tables import write_table

if TYPE_CHECKING:
    from featx.features.features import Features


def export(features: Features, path: Path) -> Path:
    """Write `features` in the format that the ending of `path` names. An existing file is replaced whole."""
    write = _FORMATS.get(path.suffix.lower())
    if write is None:
        raise OptionError(f"Cannot export to {path.name!r}. The name must end with {', '.join(_FORMATS)}.")
    if any(is_cache(folder) for folder in path.resolve().parents):
        raise OptionError(f"{path} is in a cache, whose files are its own. Name another folder: -o OUT{path.suffix}")
    with explained("write", path):
        write(features, path)
    return path


def _to_npz(features: Features, path: Path) -> None:
    """As `numpy.savez` does, but without holding ``X``."""
    small = {
        "y": features.y,
        "ids": features.ids,
        "classes": np.array(features.classes, dtype=str),
        "splits": features.splits,
    }
    with whole_file(path) as temporary, zipfile.ZipFile(temporary, "w", allowZip64=True) as archive:
        with archive.open("X.npy", "w", force_zip64=True) as member:
            header = {"descr": features.dtype.str, "fortran_order": False, "shape": features.shape}
            np.lib.format.write_array_header_1_0(member, header)
            for _, X in features.blocks():
                member.write(X.reshape(-1).view(np.uint8).data)
        for name, array in small.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _to_parquet(features: Features, path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    width = math.prod(features.shape[1:])
    values = pa.list_(pa.from_numpy_dtype(features.dtype), width)
    schema = pa.schema(
        [("id", pa.string()), ("label", pa.string()), ("y", pa.int64()), ("split", pa.string()), ("features", values)],
        metadata={"shape": json.dumps(features.shape[1:]), "classes": json.dumps(features.classes)},
    )
    with whole_file(path) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        for indices, X in features.blocks():
            rows = pa.FixedSizeListArray.from_arrays(pa.array(X.reshape(-1)), width)
            writer.write_table(pa.table([*_named_columns(features, indices), rows], schema=schema))


def _to_csv(features: Features, path: Path) -> None:
    import pyarrow as pa
    from pyarrow import csv

    width = math.prod(features.shape[1:])
    kind = pa.float32()  # CSV has no half precision; float32 holds it exactly
    schema = pa.schema(
        [("id", pa.string()), ("label", pa.string()), ("y", pa.int64()), ("split", pa.string())]
        + [(f"f{column}", kind) for column in range(width)]
    )
    with whole_file(path) as temporary, csv.CSVWriter(temporary, schema) as writer:
        for indices, X in features.blocks(8 << 20):
            columns = X.reshape(len(X), width).astype(np.float32).T
            writer.write_table(pa.table([*_named_columns(features, indices), *map(pa.array, columns)], schema=schema))


def _named_columns(features: Features, indices: npt.NDArray[np.int64]) -> list[Any]:
    import pyarrow as pa

    y = features.y[indices]
    labels = [features.classes[number] if number >= 0 else None for number in y.tolist()]
    split = [name or None for name in features.splits[indices].tolist()]
    ids = pa.array(features.ids[indices].tolist(), pa.string())
    return [ids, pa.array(labels, pa.string()), pa.array(y), pa.array(split, pa.string())]


def _to_h5(features: Features, path: Path) -> None:
    """Write a table file of our own, which `Features.open` reads."""
    content = TableContent(
        key=features.key,
        recipe=features.recipe.to_json() if features.recipe else "",
        request=features.request.to_json() if features.request else "",
        ids=features.ids.tolist(),
        item_ids=features.item_ids,
        y=features.y,
        classes=features.classes,
        splits=features.splits.tolist(),
        errors=features.errors,
        error_item_ids=np.zeros((len(features.errors), 32), np.uint8),
        probe=features.probe,
        provenance=features.provenance,
    )
    rows = Rows(features.dtype, features.shape, lambda start, stop: features[start:stop])
    write_table(Disk(), path, content, rows)


_FORMATS: dict[str, Callable[[Features, Path], None]] = {
    ".npz": _to_npz,
    ".parquet": _to_parquet,
    ".csv": _to_csv,
    ".h5": _to_h5,
}
