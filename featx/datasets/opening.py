"""From DATA as a user types it to a `Dataset`."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featx.datasets.dataset import UNLABELLED, Dataset
from featx.datasets.folders import IMAGE_SUFFIXES, Files, list_folder, open_folder, open_paths
from featx.datasets.grouping import with_groups, with_items
from featx.datasets.hub import is_map_style, open_hf, open_hf_object, open_map_style, open_torchvision
from featx.datasets.labelled_csv import open_csv, open_frame
from featx.datasets.labels import Columns
from featx.datasets.memory import (
    Foreign,
    channels_last,
    open_array,
    open_digits,
    open_foreign,
    open_npz,
    open_objects,
)
from featx.datasets.settings import Source
from featx.datasets.shards import TarImages, find_shards, is_glob, open_shards
from featx.datasets.splits import ValidationShare
from featx.datasets.targets import array_targets, in_task, with_targets
from featx.errors import DataError, MissingDataError, OptionError
from featx.settings import check_choice, keywords
from featx.targets import TASKS

FORMS = (
    "a folder of images, labels.csv with --images, .npz, .parquet, .tar, torchvision:CIFAR10, hf:owner/name, or digits"
)
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
#: What a dataset's source says beside where its data are.
_ABOUT = ("images", "image_column", "label_column", "split_column", "label_separator", "task")


@keywords(Source)
def open_dataset(data: Any, settings: Source) -> Dataset:
    """List the images of any source; none of them is decoded.

    Parameters
    ----------
    data : str, Path, sequence, ndarray or dataset
        A path or name:

        - a folder: the first folder below it is the class; train, val (valid, validation) and test folders
          over them are splits; images in no folder are unlabelled;
        - ``labels.csv``: columns recognised by name, images in `images` or beside it;
        - ``.npz``: ``X, y`` or ``x_train, y_train, x_test, y_test``;
        - ``.parquet``, or a folder of them: the form of Hugging Face;
        - ``.tar``, ``.tar.gz``, ``.tgz``, a folder, glob or brace pattern of them: class folders, or WebDataset;
        - ``torchvision:NAME``, ``hf:owner/name``, ``digits``;
        - an image file.

        Or a list of paths, Pillow images, uint8 arrays or encoded images; an array (n, h, w[, 1|3|4]) or a tensor
        (n, c, h, w) of uint8 or of floats in 0–1; a DataFrame with a column of images; a dataset of torch,
        torchvision or Hugging Face; anything with `ids`, `labels` and `read(i)`.
    labels : sequence, optional
        Labels of a list or an array: one an image, lists of several, or an array or DataFrame (n, t) of 0 and 1 or of
        numbers, NaN for none.
    groups, items, slots, times : sequence, optional
        The group of each image; what it is one of several of; as what; and when it was taken. None for none.
    {options}

    Returns
    -------
    Dataset
        Rows in an order that depends on the source alone.

    Raises
    ------
    MissingDataError
        If there is nothing at that path.
    DataError
        If what is there has no images, or is damaged.
    OptionError
        If an option does not go with the source.

    Examples
    --------
    >>> digits = open_dataset("digits", val="0.2")
    >>> len(digits), digits.read(0).shape, digits.classes[:3]
    (1797, (8, 8), ('0', '1', '2'))
    """
    check_choice("--task", settings.task, ("auto", *TASKS))
    columns = Columns(
        settings.image_column,
        settings.label_column,
        settings.split_column,
        settings.group_column,
        settings.item_column,
        settings.slot_column,
        settings.time_column,
        settings.task,
        settings.label_separator,
    )
    folder = None if settings.images is None else Path(settings.images).expanduser()
    if folder is not None and not folder.is_dir():
        raise _missing(folder, "--images")
    if isinstance(data, str | Path):
        _refuse(settings.labels is not None, "labels=", "a list or an array of images")
        dataset = _open_named(str(data), folder, columns, allow_outside=settings.allow_outside)
        dataset = dataclasses.replace(dataset, source=_where(str(data), folder, columns))
    else:
        _refuse(folder is not None, "--images", "a CSV file")
        targets = None
        if settings.labels is not None and hasattr(data, "__len__"):
            targets = array_targets(settings.labels, settings.task, len(data))
        dataset = _open_object(data, None if targets else settings.labels, columns)
        dataset = with_targets(dataset, targets, in_memory=True)
    dataset = dataset if dataset is data else _check_classes(in_task(dataset, settings.task))
    dataset = with_items(with_groups(dataset, settings), settings)
    if settings.name is not None:
        dataset = dataclasses.replace(dataset, title=settings.name)
    if settings.val is not None:
        share = ValidationShare.parse(settings.val, settings.seed)
        if not share.fraction:
            raise OptionError(f"--val must be a part between 0 and 1, as 0.1 or last:0.1; got {str(settings.val)!r}.")
        dataset = dataclasses.replace(dataset, validation=share)
    return dataset


def reopen(source: Mapping[str, str]) -> Dataset:
    """Open the images of `Dataset.source` again; a file that says more than that is not listened to."""
    about: dict[str, Any] = {name: str(source[name]) for name in _ABOUT if name in source}
    return open_dataset(str(source["data"]), **about)


def _where(source: str, images: Path | None, columns: Columns) -> dict[str, str]:
    """Return what finds this source again from any folder."""
    path = Path(source).expanduser()
    told = {
        "data": str(path.absolute()) if path.exists() else source,
        "images": None if images is None else str(images.absolute()),
        "image_column": columns.image,
        "label_column": columns.label,
        "split_column": columns.split,
        "item_column": columns.item,
        "slot_column": columns.slot,
        "label_separator": columns.separator,
        "task": None if columns.task == "auto" else columns.task,
    }
    return {name: value for name, value in told.items() if value is not None}


def _check_classes(dataset: Dataset) -> Dataset:
    """Name classes that are spelled alike, or that no training row has.

    Where folders or a table of labels make the classes, rows of the latter lose their label: no model could know it.
    """
    notes, labels, classes = list(dataset.notes), dataset.labels, dataset.classes
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault(re.sub(r"[\s_-]+", "", name.casefold()), []).append(name)
    for names in alike.values():
        if len(names) > 1:
            spelled = " and ".join(map(repr, names))
            notes.append(f"Classes that differ in case or spaces only: {spelled}. If they are one, spell them alike.")
    trains = dataset.given_splits == ("train" if "train" in dataset.given_splits else "")
    n_train = np.bincount(labels[trains & (labels >= 0)], minlength=len(classes))
    n_rows = np.bincount(labels[labels >= 0], minlength=len(classes))
    unknown = (n_train == 0) & (n_rows > 0)
    if n_train.any() and unknown.any():
        strange = [f"{classes[k]!r} ({n_rows[k]:,} images)" for k in np.flatnonzero(unknown)]
        several = ", ".join(strange[:5]) + (f" and {len(strange) - 5:,} others" if len(strange) > 5 else "")
        if isinstance(dataset.images, Files | TarImages):
            place = np.append(np.where(unknown, UNLABELLED, np.cumsum(~unknown) - 1), UNLABELLED)
            labels, classes = place[labels], tuple(np.array(classes, dtype=object)[~unknown])
            several += ", which are taken as unlabelled and left out of every score"
        notes.append(f"Not among the training images: {several}.")
    return dataclasses.replace(dataset, labels=labels, classes=classes, notes=tuple(notes))


def _open_object(source: Any, labels: Sequence[Any] | np.ndarray | None, columns: Columns) -> Dataset:
    if isinstance(source, Dataset):
        return source
    library = type(source).__module__.partition(".")[0]
    if library == "datasets" and (hasattr(source, "features") or isinstance(source, dict)):
        _refuse(labels is not None, "labels=", "a list or an array of images")
        return open_hf_object(source, columns)
    if hasattr(source, "columns") and hasattr(source, "iloc"):
        _refuse(labels is not None, "labels=", "a list or an array of images")
        return open_frame(source, columns)
    _refuse(columns.named is not None, columns.named or "", "a table")
    if library == "torch" and hasattr(source, "numpy"):
        source = channels_last(source, 4)
    if isinstance(source, np.ndarray) and source.dtype.kind not in "OUS":
        return open_array(source, labels)
    if isinstance(source, Foreign):
        return open_foreign(source)
    if labels is None and is_map_style(source):
        return open_map_style(source)
    try:
        elements = [channels_last(one) for one in source]
    except TypeError as error:
        raise DataError(f"An object of type {type(source).__name__} is no dataset. DATA is {FORMS}.") from error
    if not elements:
        raise DataError("The list of images is empty.")
    if all(isinstance(element, str | Path) for element in elements):
        return open_paths([os.fspath(element) for element in elements], labels)
    return open_objects(elements, labels)


def _open_named(source: str, images: Path | None, columns: Columns, *, allow_outside: bool) -> Dataset:
    kind, colon, rest = source.partition(":")
    path = Path(source).expanduser()
    suffix = path.suffix.lower()
    is_csv = suffix in (".csv", ".tsv")
    is_archive = source.lower().endswith(_ARCHIVES)
    takes_columns = is_csv or is_archive or suffix == ".parquet" or kind == "hf" or path.is_dir()
    _refuse(columns.named is not None and not takes_columns, columns.named or "", "a CSV or Parquet file")
    _refuse(images is not None and not is_csv and kind != "torchvision", "--images", "a CSV file")
    _refuse(allow_outside and not is_csv, "--allow-outside", "a CSV file")
    if source == "digits":
        return open_digits()
    if colon and kind == "torchvision":
        return open_torchvision(rest, images)
    if colon and kind == "hf":
        return open_hf(rest, columns)
    if is_archive and not path.exists() and ("{" in source or is_glob(source)):
        return open_shards(find_shards(str(path)), path.parent.resolve().name, columns)
    if not path.exists():
        raise _missing(path, "DATA")
    if path.is_dir():
        return _open_folder(path, columns)
    if is_csv:
        return open_csv(path, images, columns, allow_outside=allow_outside)
    if is_archive:
        return open_shards([path], path.name.partition(".")[0], columns)
    if suffix == ".npz":
        return open_npz(path, columns.task)
    if suffix == ".parquet":
        from featx.datasets.parquet import open_parquet

        return open_parquet(path, [path], columns)
    if suffix.removeprefix(".") in IMAGE_SUFFIXES:
        return open_paths([str(path)])
    raise DataError(f"{source} is not of a kind that holds images{_advice(suffix)}. DATA is {FORMS}.")


def _open_folder(path: Path, columns: Columns) -> Dataset:
    root = path.resolve()
    listing = list_folder(str(root))
    tables = [root / name for name in listing.tables]
    parquet = [file for file in tables if file.suffix.lower() == ".parquet"]
    archives = [file for file in tables if file.name.lower().endswith(_ARCHIVES)]
    if listing.images:
        _refuse(columns.named is not None, columns.named or "", "a CSV or Parquet file")
        return open_folder(root, listing)
    if parquet:
        from featx.datasets.parquet import open_parquet

        return open_parquet(root, parquet, columns)
    if archives:
        return open_shards(archives, root.name, columns, root=root)
    hint = f" There is {tables[0].name}: give that file as DATA." if tables else ""
    there = f" ({listing.notes[0]})" if listing.others else ""
    raise DataError(f"No images in {path}{there}.{hint or f' DATA is {FORMS}.'}")


def _refuse(wrong: bool, option: str, fitting: str) -> None:
    if wrong:
        raise OptionError(f"{option} goes with {fitting}, not with this DATA. Leave it out.")


def _missing(path: Path, what: str) -> MissingDataError:
    try:
        near = difflib.get_close_matches(path.name, [other.name for other in path.parent.iterdir()], n=1, cutoff=0.6)
    except OSError:
        near = []
    hint = f" Did you mean {str(path.parent / near[0])!r}?" if near else ""
    forms = f" DATA is {FORMS}." if what == "DATA" and not near else ""
    return MissingDataError(
        f"{what}: no such {'folder' if what == '--images' else 'file or folder'}: {str(path)!r}.{hint}{forms}"
    )


def _advice(suffix: str) -> str:
    if suffix in (".zip", ".7z", ".rar"):
        return ": unpack it, and give the folder"
    if suffix == ".h5":
        return "; a table of features goes to featx fit"
    return ""
