"""DATA that is a CSV file of labels, with a folder of images beside it."""

from __future__ import annotations

import csv
import posixpath
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from featx.datasets.dataset import Dataset, readable
from featx.datasets.folders import Files, list_folder
from featx.datasets.labels import IMAGE_NAMES, LABEL_NAMES, SPLIT_NAMES, Columns, encode_labels, find_column
from featx.datasets.splits import split_name
from featx.errors import DataError


def open_csv(path: Path, images: Path | None, columns: Columns, *, allow_outside: bool) -> Dataset:
    """Open a table of image ids and labels.

    Parameters
    ----------
    path : Path
        UTF-8 text, separated by comma, semicolon or tab, with a header line.
    images : Path or None
        Folder that the ids are relative to; the CSV's own by default. An id may lack its extension and,
        where that leaves no doubt, its folder.
    columns : Columns
        Those the user named; others are recognised by their names.
    allow_outside : bool
        Take paths that lead out of `images`.

    Raises
    ------
    DataError
        If the file is no such table, none of its images is there, or a split is none.
    """
    header, rows = _read_rows(path)
    image, label, split, unknown = _choose_columns(header, columns, path.name)
    cells = {name: [row[k].strip() for row in rows] for k, name in enumerate(header)}
    root = (path.parent if images is None else images).resolve()
    files, n_unused, n_missing = _find_files(cells[image], root, allow_outside=allow_outside, source=path.name)
    labels, classes = encode_labels(cells[label] if label else [None] * len(rows))
    splits = _read_splits(cells[split], split) if split else [""] * len(rows)
    identity = f"csv {path.resolve()} {root} {image} {label}"
    notes = [f"{path.name}: images from column {image!r}, {_label_note(label, unknown)}."]
    if n_missing:
        notes.append(f"{n_missing:,} images of {path.name} are not in {root}.")
    if n_unused:
        notes.append(f"{n_unused:,} images in {root} are not in {path.name} and were left out.")
    return Dataset(
        title=path.stem,
        identity=lambda: identity,
        ids=[readable(cell) for cell in cells[image]],
        classes=classes,
        labels=labels,
        given_splits=np.array(splits, dtype=str),
        images=Files(str(root), files),
        notes=tuple(notes),
    )


def _read_splits(cells: list[str], column: str) -> list[str]:
    names = {cell: split_name(cell) if cell else "" for cell in set(cells)}
    unknown = sorted(cell for cell, name in names.items() if name is None)
    if unknown:
        raise DataError(
            f"Column {column!r} has the split {unknown[0]!r} in {cells.count(unknown[0]):,} rows. Write train, val or "
            "test there, or nothing; or name another column: --split-column COLUMN"
        )
    return [names[cell] or "" for cell in cells]


def _read_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = max(",;\t", key=file.readline().count)
            file.seek(0)
            lines = csv.reader(file, delimiter=delimiter, strict=True)
            header = [name.strip() for name in next(lines, [])]
            rows = [row for row in lines if row]
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not UTF-8 text. Save it as UTF-8 (in Excel: 'CSV UTF-8').") from error
    except csv.Error as error:
        raise DataError(f"{path.name} is not a CSV file ({error}). Save it as CSV with a header: id,label") from error
    if not rows:
        raise DataError(f"{path.name} has no rows below its header. It needs one an image: id,label")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise DataError(
                f"{path.name}, row {number} has {len(row)} cells where the header has {len(header)}. "
                "Put cells that hold a comma in quotes."
            )
    return header, rows


def _choose_columns(header: list[str], columns: Columns, source: str) -> tuple[str, str | None, str | None, list[str]]:
    """Return the columns of image, label and split, and those that say nothing to us."""
    twice = [name for name in dict.fromkeys(header) if header.count(name) > 1]
    if twice:
        raise DataError(f"{source} has more than one column {twice[0]!r}. Give each a name of its own.")
    image = find_column(header, columns.image, IMAGE_NAMES, option="--image-column", source=source)
    if image is None:
        raise DataError(
            f"{source}: which column holds the images? It has: {', '.join(header)}. "
            "Name one with --image-column, or add a header line: id,label"
        )
    split = find_column(header, columns.split, SPLIT_NAMES, option="--split-column", source=source)
    label = find_column(header, columns.label, LABEL_NAMES, option="--label-column", source=source)
    rest = [name for name in header if name not in (image, split) and name.lower() not in IMAGE_NAMES]
    return image, label or (rest[0] if len(rest) == 1 else None), split, rest


def _label_note(label: str | None, unknown: list[str]) -> str:
    if label:
        return f"labels from {label!r}"
    return f"no labels; name their column: --label-column {'|'.join(unknown[:9])}" if unknown else "no labels"


def _find_files(cells: list[str], root: Path, *, allow_outside: bool, source: str) -> tuple[list[str], int, int]:
    """Return each cell's file, the number of images in `root` that no cell names, and of cells without a file."""
    _refuse_duplicates(cells, source)
    wanted = [_relative(cell, str(root)) for cell in cells]
    outside = [cell for cell, path in zip(cells, wanted, strict=True) if _is_outside(path)]
    if outside and not allow_outside:
        raise DataError(
            f"{source}: {len(outside):,} of its paths lead out of {root}, {outside[0]!r} first. "
            "If you trust the file, add --allow-outside."
        )
    inside = {path for path in wanted if not _is_outside(path)}
    images = list_folder(str(root)).images
    found = _match(inside, images, source)
    if inside and not found:
        raise DataError(
            f"None of the {len(inside):,} images of {source} is in {root}, {min(inside)!r} for one. "
            "Name their folder: --images DIR"
        )
    n_unused = len(images) - len(set(found.values()))
    return [found.get(path, path) for path in wanted], n_unused, len(inside) - len(found)


def _refuse_duplicates(cells: list[str], source: str) -> None:
    rows: dict[str, int] = {}
    for number, cell in enumerate(cells, start=2):
        if rows.setdefault(cell, number) != number:
            raise DataError(f"{source}: {cell!r} is in row {rows[cell]} and in row {number}. Keep one row an image.")


def _relative(cell: str, root: str) -> str:
    path = posixpath.normpath(readable(cell).replace("\\", "/"))
    return path.removeprefix(f"{root}/")


def _is_outside(path: str) -> bool:
    return path.startswith(("/", "../")) or path == ".."


def _match(wanted: set[str], images: Sequence[str], source: str) -> dict[str, str]:
    """Find wanted paths among the images as they are, then without extension, without folder, without both."""
    found: dict[str, str] = {}
    short_forms: tuple[Callable[[str], str], ...] = (
        str,
        _without_extension,
        posixpath.basename,
        lambda path: _without_extension(posixpath.basename(path)),
    )
    for shorten in short_forms:
        left = wanted - found.keys()
        if not left:
            break
        matches: dict[str, str] = {}
        for image in images:
            form = shorten(readable(image))
            if form in left and matches.setdefault(form, image) != image:
                raise DataError(
                    f"{source}: {form!r} may be {matches[form]} or {image}. Write its path in full, or name the folder "
                    "of its images: --images DIR"
                )
        found |= matches
    return found


def _without_extension(path: str) -> str:
    return posixpath.splitext(path)[0]
