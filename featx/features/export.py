"""Tables in other people's formats, written a block at a time, and in notebooks."""

from __future__ import annotations

import html
import json
import math
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.errors import MissingExtraError, OptionError
from featx.features.rows import ArrayTable
from featx.files import Disk, whole_file
from featx.files.disk import explained
from featx.settings import option
from featx.store import TableContent, is_cache
from featx.store.container import RowStream
from featx.store.tables import write_table

_BLOCK_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True)
class Export:
    """How a table is written for others."""

    columns: bool = option(False, "In Parquet a column for each feature (f0, f1, …), instead of one of lists.")


def export(table: ArrayTable, path: Path, *, columns: bool) -> Path:
    """Write `table` in the format that the ending of `path` names; see `Features.export`."""
    write = _FORMATS.get(path.suffix.lower())
    if write is None:
        raise OptionError(f"Cannot export to {path.name!r}. The name must end with {', '.join(_FORMATS)}.")
    if columns and write is _to_parquet:
        write = _to_parquet_columns
    elif columns and write is not _to_csv:  # which has nothing else
        raise OptionError(f"Columns are for .parquet, got {path.name!r}. Drop --columns (columns=True).")
    if any(is_cache(folder) for folder in path.resolve().parents):
        raise OptionError(f"{path} is in a cache, whose files are its own. Name another folder: -o OUT{path.suffix}")
    with explained("write", path):
        write(table, path)
    return path


def to_pandas(table: ArrayTable) -> Any:
    """Return a `pandas.DataFrame` of `table`; see `Features.to_pandas`."""
    try:
        import pandas as pd
    except ImportError:
        raise MissingExtraError("to_pandas needs the package 'pandas'. Install it: pip install pandas") from None
    n, width = len(table.y), math.prod(table.shape[1:])
    named = {name: column.to_pylist() for name, column in _named_columns(table, slice(None)).items()}
    X = pd.DataFrame(table.rows.read(0, n).reshape(n, width), columns=_feature_names(width), copy=False)
    return pd.concat([pd.DataFrame(named, columns=list(named)), X], axis=1)


def _blocks(table: ArrayTable) -> Iterator[tuple[slice, npt.NDArray[Any]]]:
    """Yield which rows, and these as shape (m, d)."""
    n, width = len(table.y), math.prod(table.shape[1:])
    step = max(1, _BLOCK_BYTES // max(1, width * table.dtype.itemsize))
    for start in range(0, n, step):
        stop = min(start + step, n)
        yield slice(start, stop), table.rows.read(start, stop).reshape(stop - start, width)


def _to_npz(table: ArrayTable, path: Path) -> None:
    """As `numpy.savez` does, but without holding ``X``."""
    small = {
        "y": table.y,
        "ids": table.ids,
        "classes": np.array(table.classes, dtype=str),
        "splits": table.splits,
        **{name: values for name in ("groups", "items", "slots") if ((values := getattr(table, name)) != "").any()},
        **({} if table.times is None else {"times": table.times}),
    }
    if table.targets is not None:
        small |= {"targets": table.targets.array, "target_names": np.array(table.targets.names, dtype=str)}
    with whole_file(path) as temporary, zipfile.ZipFile(temporary, "w", allowZip64=True) as archive:
        with archive.open("X.npy", "w", force_zip64=True) as member:
            header = {"descr": table.dtype.str, "fortran_order": False, "shape": table.shape}
            np.lib.format.write_array_header_1_0(member, header)
            for _, X in _blocks(table):
                member.write(X.reshape(-1).view(np.uint8).data)
        for name, array in small.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _to_parquet(table: ArrayTable, path: Path) -> None:
    import pyarrow as pa

    width = math.prod(table.shape[1:])
    values = pa.list_(pa.from_numpy_dtype(table.dtype), width)

    def lists(X: npt.NDArray[Any]) -> list[Any]:
        return [pa.FixedSizeListArray.from_arrays(pa.array(X.reshape(-1)), width)]

    _write_parquet(table, path, [("features", values)], lists)


def _to_parquet_columns(table: ArrayTable, path: Path) -> None:
    import pyarrow as pa

    kind = pa.from_numpy_dtype(table.dtype)
    fields = [(name, kind) for name in _feature_names(math.prod(table.shape[1:]))]
    _write_parquet(table, path, fields, lambda X: list(map(pa.array, np.ascontiguousarray(X.T))))


def _write_parquet(
    table: ArrayTable, path: Path, fields: list[tuple[str, Any]], values: Callable[[npt.NDArray[Any]], list[Any]]
) -> None:
    from pyarrow import parquet

    schema = _schema(table, fields, {"shape": json.dumps(table.shape[1:]), "classes": json.dumps(table.classes)})
    with whole_file(path) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        for here, X in _blocks(table):
            writer.write_table(_arrow(table, here, values(X), schema))


def _to_csv(table: ArrayTable, path: Path) -> None:
    import pyarrow as pa
    from pyarrow import csv

    # CSV has no half precision; float32 holds it exactly
    schema = _schema(table, [(name, pa.float32()) for name in _feature_names(math.prod(table.shape[1:]))])
    with whole_file(path) as temporary, csv.CSVWriter(temporary, schema) as writer:
        for here, X in _blocks(table):
            writer.write_table(_arrow(table, here, list(map(pa.array, X.astype(np.float32).T)), schema))


def _feature_names(width: int) -> list[str]:
    return [f"f{column}" for column in range(width)]


def _schema(table: ArrayTable, fields: list[tuple[str, Any]], metadata: dict[str, str] | None = None) -> Any:
    import pyarrow as pa

    named = [(name, column.type) for name, column in _named_columns(table, slice(0)).items()]
    return pa.schema([*named, *fields], metadata=metadata)


def _arrow(table: ArrayTable, here: slice, values: list[Any], schema: Any) -> Any:
    import pyarrow as pa

    return pa.table([*_named_columns(table, here).values(), *values], schema=schema)


def _named_columns(table: ArrayTable, here: slice) -> dict[str, Any]:
    import pyarrow as pa

    y = table.y[here]
    labels = [table.classes[number] if number >= 0 else None for number in y.tolist()]
    split = [name or None for name in table.splits[here].tolist()]
    columns = {"id": table.ids[here].tolist(), "label": labels, "split": split}
    texts = {name: pa.array(map(_as_unicode, texts), pa.string()) for name, texts in columns.items()}
    found = {"id": texts["id"], "label": texts["label"], "y": pa.array(y), "split": texts["split"]}
    targets = table.targets
    values = {} if targets is None else dict(zip(targets.names, targets.array[here].T, strict=True))
    return found | {f"target_{name}": pa.array(column, from_pandas=True) for name, column in values.items()}


def _as_unicode(text: str | None) -> str | None:
    r"""Write what is no UTF-8 in the name of a file as ``\udc80``, which other formats can hold."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode()


def _to_h5(table: ArrayTable, path: Path) -> None:
    """Write a table file of our own, which `Features.open` reads."""
    content = TableContent(
        key=table.key,
        recipe=table.recipe,
        request=table.request,
        groups=table.groups.tolist(),
        items=table.items.tolist(),
        slots=table.slots.tolist(),
        times=table.times,
        targets=table.targets,
        ids=table.ids.tolist(),
        item_ids=table.item_ids,
        y=table.y,
        classes=table.classes,
        splits=table.splits.tolist(),
        errors=table.errors,
        probe=table.probe,
        provenance=table.provenance,
    )
    write_table(Disk(), path, content, RowStream(table.dtype, table.shape, table.rows.read))


_FORMATS: dict[str, Callable[[ArrayTable, Path], None]] = {
    ".npz": _to_npz,
    ".parquet": _to_parquet,
    ".csv": _to_csv,
    ".h5": _to_h5,
}


def facts_html(title: str, facts: Iterable[tuple[str, object]]) -> str:
    """Return names and values as an HTML table; whatever they hold is only text, and empty values are left out.

    Examples
    --------
    >>> facts_html("Features", [("class", "<b>"), ("errors", "")])
    '<table><caption>Features</caption><tbody><tr><th>class</th><td>&lt;b&gt;</td></tr></tbody></table>'
    """
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in facts
        if str(value)
    )
    return f"<table><caption>{html.escape(title)}</caption><tbody>{rows}</tbody></table>"
