"""DATA that is Parquet with the images inside, in the form of Hugging Face: ``image {bytes, path}``, ``label``."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from featx.datasets.dataset import Dataset, readable
from featx.datasets.folders import stamps_of_parts
from featx.datasets.labels import (
    IMAGE_NAMES,
    SPLIT_NAMES,
    Columns,
    beside_columns,
    encode_labels,
    find_column,
    numbered_labels,
    read_beside,
)
from featx.datasets.splits import split_in_path, split_name
from featx.datasets.targets import label_columns, read_targets, with_targets
from featx.errors import DataError, ImageError
from featx.images import ImageData

#: Rows that are in memory at a time.
_BATCH_ROWS = 32
#: So many rows a file may have; more of them only if each takes at least a byte.
_BOMB_ROWS = 1 << 20


class ParquetImages:
    """Images in a column of Parquet files.

    Parameters
    ----------
    paths : sequence of Path
        The files.
    group_rows : list of list of int
        Number of rows of each row group of each file.
    column : str
        Name of a binary column, or of a binary field of a struct (``image.bytes``).
    """

    def __init__(self, paths: Sequence[Path], group_rows: list[list[int]], column: str) -> None:
        self._paths = paths
        self._group_rows = group_rows
        self._column = column

    def iterate(self, indices: Iterable[int]) -> Iterator[tuple[int, ImageData | ImageError]]:
        """Read only the row groups that the rows are in, and hold only a page and a batch of them."""
        wanted = np.fromiter(indices, np.int64)
        start = 0
        for path, groups in zip(self._paths, self._group_rows, strict=True):
            for group, n in enumerate(groups):
                first, last = np.searchsorted(wanted, [start, start + n])
                if first < last:
                    yield from self._read_group(path, group, start, wanted[first:last])
                start += n

    def _read_group(
        self, path: Path, group: int, start: int, wanted: np.ndarray
    ) -> Iterator[tuple[int, ImageData | ImageError]]:
        done = 0
        try:
            for batch in self._batches(path, group):
                stop = int(np.searchsorted(wanted, start + len(batch)))
                for index in wanted[done:stop].tolist():
                    data = batch[index - start].as_py()
                    yield index, ImageError("the table holds no bytes for this image") if data is None else data
                done, start = stop, start + len(batch)
                if done == len(wanted):
                    return
        except (OSError, pa.ArrowException) as error:
            reason = ImageError(f"{path.name} cannot be read ({' '.join(str(error).split())[:200]})", transient=True)
            yield from ((index, reason) for index in wanted[done:].tolist())

    def _batches(self, path: Path, group: int) -> Iterator[pa.Array]:
        with pq.ParquetFile(path, buffer_size=2**20, pre_buffer=False) as file:
            for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[self._column], use_threads=False):
                column = batch.column(0)
                yield column.field(0) if pa.types.is_struct(column.type) else column

    def stamps(self) -> np.ndarray:
        """Digest the status of each file, and the row."""
        return stamps_of_parts([str(path) for path in self._paths], [sum(rows) for rows in self._group_rows])


@dataclass(frozen=True)
class _Roles:
    """What the columns are for.

    Attributes
    ----------
    image, bytes, path : str
        The image's column, the field of it with the bytes, and the one with the path.
    labels : tuple of str
    split : str or None
    beside : dict of str to str
        The columns of groups, items, slots and times, by what they are.
    classes : tuple of str or None
        Names of numbered labels.
    """

    image: str
    bytes: str
    path: str | None
    labels: tuple[str, ...]
    split: str | None
    beside: dict[str, str]
    classes: tuple[str, ...] | None


def open_parquet(root: Path, paths: Sequence[Path], columns: Columns) -> Dataset:
    """Open one Parquet file, or those of a folder, whose names tell their splits.

    Labels are class names, or numbers whose names the Hugging Face metadata gives. Ids are the images'
    own paths where every row of a file has one of its own, else row numbers.

    Parameters
    ----------
    root : Path
        The file, or the folder.
    paths : sequence of Path
        The files, sorted.
    columns : Columns
        Those the user named; others are recognised by type, metadata and name.

    Raises
    ------
    DataError
        If a file is damaged, or has no column of images.
    """
    roles = _find_roles(paths[0], columns)
    group_rows = [_group_rows(path, roles) for path in paths]
    ids: list[str] = []
    splits: list[str] = []
    cells: dict[str, list[Any]] = {name: [] for name in roles.labels}
    beside: dict[str, list[Any]] = {role: [] for role in roles.beside}
    for path, rows in zip(paths, map(sum, group_rows), strict=True):
        name = "" if path == root else path.relative_to(root).as_posix()
        ids += _ids(_column(path, roles.path, rows), name)
        for label in roles.labels:
            cells[label] += _column(path, label, rows)
        words = _column(path, roles.split, rows) if roles.split else [split_in_path(name)] * rows
        splits += [split_name(str(word)) or str(word) for word in words]
        for role, column in roles.beside.items():
            beside[role] += _column(path, column, rows)
    targets, notes = read_targets(_named_labels(cells, roles.classes), columns, root.name, first=0)
    values = next(iter(cells.values()), [None] * len(ids)) if targets is None else [None] * len(ids)
    if roles.classes is None or targets is not None:
        labels, classes = encode_labels(values)
    else:
        labels, classes = numbered_labels(values, roles.classes, root.name), roles.classes
    dataset = Dataset(
        title=root.stem,
        identity=lambda: f"parquet {root.resolve()} {roles.image} {','.join(roles.labels) or None}",
        ids=ids,
        classes=classes,
        labels=labels,
        given_splits=np.array(splits, dtype=str),
        images=ParquetImages([path.resolve() for path in paths], group_rows, roles.bytes),
        **read_beside(beside, root.name),
    )
    return with_targets(dataset, targets, notes)


def _named_labels(cells: dict[str, list[Any]], names: Sequence[str] | None) -> dict[str, list[Any]]:
    """Return columns of lists of numbered labels as lists of their names; other columns as they are."""
    if names is None:
        return cells
    return {
        column: [[names[k] for k in cell if 0 <= k < len(names)] if isinstance(cell, list) else cell for cell in of]
        for column, of in cells.items()
    }


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path.name} is no Parquet file, or a damaged one. Download or write it again.") from error


def _find_roles(path: Path, columns: Columns) -> _Roles:
    with _open(path) as file:
        schema = file.schema_arrow
    names, features = schema.names, _features(schema)
    kinds = {name: features.get(name, {}).get("_type") for name in names}
    with_bytes = [name for name in names if _is_binary(_bytes_type(schema.field(name).type))]
    image = find_column(with_bytes, columns.image, IMAGE_NAMES, option="--image-column", source=path.name)
    image = next((name for name in with_bytes if kinds[name] == "Image"), image) if columns.image is None else image
    if image is None and len(with_bytes) != 1:
        raise DataError(
            f"{path.name} has no column of images (image {{bytes, path}}). It has: {', '.join(names)}. "
            "If one of them holds the bytes of image files, name it with --image-column."
        )
    image = image or with_bytes[0]
    rest = [name for name in names if name != image]
    numbered = [name for name in rest if kinds[name] == "ClassLabel"]
    labels = label_columns(rest, columns, path.name) or (numbered if len(numbered) == 1 else [])
    feature = features.get(labels[0], {}) if len(labels) == 1 else {}
    of_list = feature.get("feature")
    class_names = (of_list if isinstance(of_list, dict) else feature).get("names")
    image_type = schema.field(image).type
    fields = [field.name for field in image_type] if pa.types.is_struct(image_type) else []
    return _Roles(
        image=image,
        bytes=f"{image}.bytes" if fields else image,
        path=f"{image}.path" if "path" in fields else None,
        labels=tuple(labels),
        split=find_column(rest, columns.split, SPLIT_NAMES, option="--split-column", source=path.name),
        beside=beside_columns(rest, columns, path.name),
        classes=tuple(map(readable, class_names)) if isinstance(class_names, list) else None,
    )


def _features(schema: pa.Schema) -> dict[str, Any]:
    """Return what Hugging Face's metadata says of each column."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _bytes_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        return kind.field("bytes").type
    return kind


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _group_rows(path: Path, roles: _Roles) -> list[int]:
    with _open(path) as file:
        for name in filter(None, (roles.image, *roles.labels, roles.split, *roles.beside.values())):
            if name not in file.schema_arrow.names:
                raise DataError(f"{path.name} has no column {name!r}, as the files before it have. Give it alone.")
        rows = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    n_bytes = path.stat().st_size
    if min(rows, default=0) < 0 or sum(rows) > max(_BOMB_ROWS, n_bytes):
        raise DataError(
            f"{path.name} is damaged, or a decompression bomb: {sum(rows):,} rows in {n_bytes:,} bytes. Images take "
            "more. Download or write it again."
        )
    return rows


def _column(path: Path, name: str | None, n: int) -> list[Any]:
    """Read a column, or the one field of a struct, whole; None in every row where there is no such column."""
    if name is None:
        return [None] * n
    try:
        column = pq.read_table(path, columns=[name], use_threads=False, partitioning=None).column(0).combine_chunks()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path.name} is damaged: {name} cannot be read. Download or write it again.") from error
    return list((column.field(0) if pa.types.is_struct(column.type) else column).to_pylist())


def _ids(paths: list[str | None], name: str) -> list[str]:
    """Return the images' paths below the file's name, or row numbers where a path is missing or not unique."""
    known = [readable(path) for path in paths if path]
    whole = known if len(set(known)) == len(paths) else [str(row) for row in range(len(paths))]
    stem = posixpath.splitext(name)[0]
    return [f"{stem}/{one}" for one in whole] if stem else whole
