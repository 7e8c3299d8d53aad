"""DATA that is a table of image names and labels: a CSV file with a folder of images beside it, or a DataFrame."""

from __future__ import annotations

import csv
import dataclasses
import difflib
import posixpath
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featx.datasets.dataset import Dataset, readable
from featx.datasets.folders import Files, list_folder, open_paths
from featx.datasets.labels import (
    IMAGE_NAMES,
    SPLIT_NAMES,
    Columns,
    beside_columns,
    encode_labels,
    find_column,
    numbers_as_classes,
    one_hot_labels,
    read_beside,
    read_label_cells,
)
from featx.datasets.memory import channels_last, open_objects
from featx.datasets.splits import split_name
from featx.datasets.targets import label_columns, read_targets, with_targets
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
    image, named, split, beside, unknown = _choose_columns(header, columns, path.name)
    cells = {name: [row[k].strip() for row in rows] for k, name in enumerate(header)}
    root = (path.parent if images is None else images).resolve()
    ids = [readable(cell) or f"row {number}" for number, cell in enumerate(cells[image], start=2)]
    nameless = {i: f"row {i + 2} of {path.name} has no image name" for i, cell in enumerate(cells[image]) if not cell}
    files, file_notes = _find_files(cells[image], root, allow_outside=allow_outside, source=path.name)
    switches = unknown if not named else named if columns.task in ("auto", "classify") else []
    one_hot = one_hot_labels({name: cells[name] for name in switches})
    label = None if one_hot or len(named) != 1 else named[0]
    targets, notes = (None, []) if one_hot else read_targets({n: cells[n] for n in named}, columns, path.name, first=2)
    values: Sequence[str | None] = [None] * len(rows)
    if targets is not None:
        source = f"labels from {', '.join(map(repr, named))}"
    elif one_hot:
        values = one_hot[0]
        source = f"labels from the columns of 0 and 1 {', '.join(one_hot[1])}"
    elif label:
        values, more = read_label_cells(cells[label], label, path.name)
        notes += more
        source = f"labels from {label!r}"
    else:
        known = f"; name their column: --label-column {'|'.join(unknown[:9])}" if unknown else ""
        source = f"no labels{known}"
    labels, classes = encode_labels(values)
    splits = _read_splits(cells[split], split) if split else [""] * len(rows)
    identity = f"csv {path.resolve()} {root} {image} {','.join(named) if targets else label}"
    identity += f" {targets.task}" if targets else ""
    notes = [f"{path.name}: images from column {image!r}, {source}.", *file_notes, *notes]
    notes += numbers_as_classes(label, classes) if label and targets is None else []
    return Dataset(
        title=path.stem,
        identity=lambda: identity,
        ids=ids,
        classes=classes,
        labels=labels,
        given_splits=np.array(splits, dtype=str),
        images=Files(str(root), files, nameless),
        notes=tuple(notes),
        **read_beside({role: cells[column] for role, column in beside.items()}, path.name),
        targets=targets,
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


def _choose_columns(
    header: list[str], columns: Columns, source: str
) -> tuple[str, list[str], str | None, dict[str, str], list[str]]:
    """Return the column of images, those of labels, of split, what others are beside, and those that say nothing."""
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
    labels = label_columns(header, columns, source)
    beside = beside_columns(header, columns, source)
    taken = (image, split, *beside.values())
    rest = [name for name in header if name not in taken and name.lower() not in IMAGE_NAMES]
    return image, labels or (rest if len(rest) == 1 else []), split, beside, rest


def _find_files(cells: list[str], root: Path, *, allow_outside: bool, source: str) -> tuple[list[str], list[str]]:
    """Return each cell's file, and notes on images that no cell names, and cells without a file of their very name."""
    _refuse_duplicates(cells, source)
    wanted = [_relative(cell, str(root)) if cell else "" for cell in cells]
    images = list_folder(str(root)).images
    foreign = {path for path in wanted if _is_outside(path) and not (root / path).exists()}
    inside = {path for path in wanted if path and not _is_outside(path)}
    found, loosely = _match(inside | foreign, images, source)
    outside = [cell for cell, path in zip(cells, wanted, strict=True) if _is_outside(path) and path not in found]
    if outside and not allow_outside:
        raise DataError(
            f"{source}: {len(outside):,} of its paths lead out of {root}, {outside[0]!r} first. "
            "If you trust the file, add --allow-outside."
        )
    missing = sorted(inside - found.keys())
    nearest = _nearest(missing[0], images) if missing else ""
    if inside and len(missing) == len(inside):
        raise DataError(
            f"None of the {len(inside):,} images of {source} is in {root}, {missing[0]!r} for one.{nearest} "
            "Name their folder: --images DIR"
        )
    notes = []
    if missing:
        notes.append(f"{len(missing):,} images of {source} are not in {root}.{nearest}")
    if loosely:
        cell = min(loosely)
        notes.append(
            f"{len(loosely):,} images were found under another folder or extension, as {found[cell]!r} for {cell!r}."
        )
    n_unused = len(images) - len(set(found.values()))
    if n_unused:
        notes.append(f"{n_unused:,} images in {root} are not in {source} and were left out.")
    return [found.get(path, path) for path in wanted], notes


def _nearest(path: str, images: Sequence[str]) -> str:
    """Say which image is named most like a path that is not there."""
    names = {posixpath.basename(image): image for image in images[:20_000]}
    name = posixpath.basename(path)
    number = _without_extension(name).lstrip("0")
    near = [image for image in names if number and _without_extension(image).lstrip("0") == number]
    near = near or difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f" The nearest to {name!r} is {names[near[0]]!r}." if near else ""


def _refuse_duplicates(cells: list[str], source: str) -> None:
    rows: dict[str, int] = {}
    for number, cell in enumerate(cells, start=2):
        if cell and rows.setdefault(cell, number) != number:
            raise DataError(f"{source}: {cell!r} is in row {rows[cell]} and in row {number}. Keep one row an image.")


def _relative(cell: str, root: str) -> str:
    path = posixpath.normpath(readable(cell).replace("\\", "/"))
    return path.removeprefix(f"{root}/")


def _is_outside(path: str) -> bool:
    return path.startswith(("/", "../")) or path == ".."


def _match(wanted: set[str], images: Sequence[str], source: str) -> tuple[dict[str, str], set[str]]:
    """Find wanted paths among the images: as they are, then without extension, folder or both, at last in any case.

    Returns
    -------
    found : dict of str to str
    loosely : set of str
        Those found under another folder, extension or case than they name.
    """
    found: dict[str, str] = {}
    loosely: set[str] = set()
    for of_path, of_image, loose in _FORMS:
        paths: dict[str, list[str]] = {}
        for path in wanted - found.keys():
            paths.setdefault(of_path(path), []).append(path)
        if not paths:
            break
        taken = set(found.values()) if loose else set()
        matches: dict[str, str] = {}
        for image in images:
            form = of_image(readable(image))
            if form in paths and image not in taken and matches.setdefault(form, image) != image:
                raise DataError(
                    f"{source}: {form!r} may be {matches[form]} or {image}. Write its path in full, or name the folder "
                    "of its images: --images DIR"
                )
        for form, image in matches.items():
            if len(paths[form]) == 1:
                found[paths[form][0]] = image
                loosely |= set(paths[form]) if loose else set()
    return found, loosely


def open_frame(frame: Any, columns: Columns) -> Dataset:
    """Open a pandas DataFrame with a column of images, and columns of labels and splits where it has them.

    Parameters
    ----------
    frame : pandas.DataFrame
        The images are paths, Pillow images, arrays or the bytes of files. A single column is that of the images.
    columns : Columns
        Those the user named; others are recognised by their names.

    Raises
    ------
    DataError
        If it has no rows, or no column of images.
    """
    header = [str(name) for name in frame.columns]
    alone = Columns(header[0]) if len(header) == 1 and not columns.image else columns
    image, named, split, beside, _ = _choose_columns(header, alone, "The DataFrame")
    if not len(frame):
        raise DataError("The DataFrame has no rows.")
    values = {name: frame.iloc[:, header.index(name)] for name in (image, *named, split, *beside.values()) if name}
    cells = {
        name: [None if gone else one for one, gone in zip(part, part.isna(), strict=True)]
        for name, part in values.items()
    }
    targets, more = read_targets({name: cells[name] for name in named}, columns, "The DataFrame", first=0)
    label = named[0] if named and targets is None else None
    labels = cells[label] if label else [None] * len(frame)
    images = cells[image]
    if all(isinstance(one, str | Path) for one in images):
        dataset = open_paths([str(one) for one in images], labels)
    else:
        dataset = open_objects([channels_last(one) for one in images], labels)
    source = f"labels from {', '.join(map(repr, named))}" if named else "no labels"
    notes = [f"The DataFrame: images from column {image!r}, {source}.", *more]
    notes += numbers_as_classes(label, dataset.classes) if label else []
    splits = _read_splits([str(one or "") for one in cells[split]], split) if split else [""] * len(frame)
    told: dict[str, Any] = read_beside({role: cells[column] for role, column in beside.items()}, "The DataFrame")
    dataset = dataclasses.replace(dataset, given_splits=np.array(splits, dtype=str), notes=tuple(notes), **told)
    return with_targets(dataset, targets, in_memory=True)


def _without_extension(path: str) -> str:
    return posixpath.splitext(path)[0]


def _base_stem(path: str) -> str:
    return _without_extension(posixpath.basename(path))


#: How a path of a table and that of an image are made comparable, and whether a match is worth telling.
_FORMS: tuple[tuple[Callable[[str], str], Callable[[str], str], bool], ...] = (
    (str, str, False),
    (str, _without_extension, False),
    (str, posixpath.basename, False),
    (str, _base_stem, False),
    (posixpath.basename, posixpath.basename, True),
    (posixpath.basename, _base_stem, True),
    (lambda path: _without_extension(path).casefold(), lambda image: _without_extension(image).casefold(), True),
    (lambda path: _base_stem(path).casefold(), lambda image: _base_stem(image).casefold(), True),
)
