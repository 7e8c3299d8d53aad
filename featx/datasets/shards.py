"""DATA that is tar archives: class folders packed into one, or WebDataset shards. Streamed, never unpacked."""

from __future__ import annotations

import glob
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from featx.datasets.dataset import Dataset, readable
from featx.datasets.folders import is_image_name, stamps_of_parts
from featx.datasets.labels import LABEL_NAMES, Columns, encode_labels, find_column
from featx.datasets.splits import place, split_in_path, split_name
from featx.datasets.tar import DAMAGE, open_archive, read_member, walk
from featx.errors import DataError, ImageError, MissingDataError, OptionError
from featx.images import ImageData

#: Label files beyond this are no labels.
_MAX_LABEL_BYTES = 2**20

_BRACES = re.compile(r"\{([^{}]*)\}")


@dataclass
class _Rows:
    """The images of one archive, in its order.

    Attributes
    ----------
    ids : list of str
    labels : list
        Names or numbers, None for none.
    splits : list of str
    places : list of (int, int)
        Offset and length of each image in the uncompressed archive.
    refused : dict of int to str
        Why a row must not be read.
    n_others : int
        Number of members that are no images and no labels.
    notes : list of str
        About its folders.
    """

    ids: list[str] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    n_others: int = 0
    notes: list[str] = field(default_factory=list)


class TarImages:
    """Images in tar archives, compressed or not.

    Parameters
    ----------
    paths : sequence of Path
        The archives.
    places : list of list of (int, int)
        Offset and length of each archive's images.
    refused : dict of int to str
        Rows that must not be read, and why.
    """

    def __init__(self, paths: Sequence[Path], places: list[list[tuple[int, int]]], refused: dict[int, str]) -> None:
        self._paths = paths
        self._places = places
        self._starts = np.cumsum([0, *map(len, places)])
        self._refused = refused

    def iterate(self, indices: Iterable[int]) -> Iterator[tuple[int, ImageData | ImageError]]:
        """Read the archives in order, each in one pass."""
        wanted = np.fromiter(indices, np.int64)
        bounds = np.searchsorted(wanted, self._starts)
        for archive, (first, last) in enumerate(itertools.pairwise(bounds)):
            if first == last:
                continue
            rows = wanted[first:last].tolist()
            try:
                file = open_archive(self._paths[archive])
            except OSError as error:
                reason = f"{self._paths[archive].name} cannot be read ({error.strerror or error})"
                yield from ((row, ImageError(reason, transient=True)) for row in rows)
                continue
            with file:
                yield from ((row, self._read(file, row, archive)) for row in rows)

    def _read(self, file: Any, index: int, archive: int) -> ImageData | ImageError:
        if index in self._refused:
            return ImageError(self._refused[index])
        try:
            return read_member(file, *self._places[archive][index - self._starts[archive]])
        except DAMAGE as error:
            return ImageError(f"{self._paths[archive].name} is damaged here ({error})", transient=True)

    def stamps(self) -> np.ndarray:
        """Digest the status of each archive, and the place in it."""
        return stamps_of_parts([str(path) for path in self._paths], [len(places) for places in self._places])


def open_shards(paths: Sequence[Path], title: str, columns: Columns, *, root: Path | None = None) -> Dataset:
    """Open tar archives of images.

    In an archive where ``.cls`` or ``.json`` files have the key of an image (its path up to the first dot
    of its name), they are its label, as in WebDataset. In any other the folders are, as in a folder, below
    those that all its images share. Several archives are told apart by the start of their ids, and their
    paths tell the split where the folders in them do not.

    Parameters
    ----------
    paths : sequence of Path
        The archives, in the order of their rows.
    title : str
        What to call them.
    columns : Columns
        ``label`` names the label's key in ``.json`` files.
    root : Path, optional
        The folder whose archives they are; by default the last that all of them lie in.

    Raises
    ------
    DataError
        If there is no image in them, or no label under the key that was named.
    OptionError
        If other columns were named.
    """
    if columns.image is not None or columns.split is not None or columns.beside:
        raise OptionError(
            "An archive has no columns of images, splits, groups or items. "
            "Leave these options out; groups by name: --group-regex"
        )
    several = len(paths) > 1
    absolute = [path.resolve() for path in paths]
    root = root or Path(os.path.commonpath([path.parent for path in absolute]))
    names = [path.relative_to(root).as_posix() if several else "" for path in absolute]
    shards = [_list_archive(path, columns.label, split_in_path(name)) for path, name in zip(paths, names, strict=True)]
    labels, classes = encode_labels(itertools.chain.from_iterable(shard.labels for shard in shards))
    prefixes = [f"{_stem(name)}/" if several else "" for name in names]
    ids = [prefix + name for prefix, shard in zip(prefixes, shards, strict=True) for name in shard.ids]
    refused: dict[int, str] = {}
    start = 0
    for shard in shards:
        refused |= {start + row: reason for row, reason in shard.refused.items()}
        start += len(shard.ids)
    if len(ids) == len(refused):
        raise DataError(f"No image in {paths[0].name}{' and the others' if several else ''}.{_first(refused, ids)}")
    if columns.label is not None and not classes:
        raise DataError(f"No .json file of {paths[0].name} has a label under {columns.label!r}. Change --label-column.")
    n_others = sum(shard.n_others for shard in shards)
    return Dataset(
        title=title,
        identity=lambda: "\n".join(["tar", columns.label or "", *map(str, absolute)]),
        ids=ids,
        classes=classes,
        labels=labels,
        given_splits=np.array([split for shard in shards for split in shard.splits], dtype=str),
        images=TarImages(absolute, [shard.places for shard in shards], refused),
        notes=tuple(
            dict.fromkeys(
                [
                    *([f"Left out, as no images: {n_others:,} members."] if n_others else []),
                    *(note for shard in shards for note in shard.notes),
                ]
            )
        ),
    )


def find_shards(pattern: str) -> list[Path]:
    """Return the archives that a brace pattern (``{000..012}``, ``{a,b}``) or a glob stands for.

    Raises
    ------
    MissingDataError
        If one of them, or all, are missing.

    Examples
    --------
    >>> find_shards("nowhere-{08..11}.tar")
    Traceback (most recent call last):
    featx.errors.MissingDataError: 4 of the 4 archives of 'nowhere-{08..11}.tar' are missing, nowhere-08.tar first.
    """
    names: list[str] = []
    for one in _expand(pattern):
        names += sorted(glob.glob(one)) if is_glob(one) else [one]  # noqa: PTH207 - the pattern may be absolute
    missing = [name for name in names if not Path(name).is_file()]
    if not names:
        raise MissingDataError(f"No file is named like {pattern!r}.")
    if missing:
        counts = f"{len(missing):,} of the {len(names):,} archives"
        raise MissingDataError(f"{counts} of {pattern!r} are missing, {missing[0]} first.")
    return [Path(name) for name in names]


def is_glob(text: str) -> bool:
    """Whether a path has wildcards in it."""
    return any(sign in text for sign in "*?[")


def _expand(pattern: str) -> list[str]:
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    start, dots, stop = match[1].partition("..")
    if dots and start.isdecimal() and stop.isdecimal():
        words = [f"{k:0{len(start)}d}" for k in range(int(start), int(stop) + 1)]
    else:
        words = match[1].split(",")
    return [one for word in words for one in _expand(pattern[: match.start()] + word + pattern[match.end() :])]


def _list_archive(path: Path, label_key: str | None, split: str) -> _Rows:
    rows = _Rows()
    names: Counter[str] = Counter()
    keyed: dict[str, Any] = {}
    try:
        with open_archive(path) as file:
            for member in walk(file):
                name = readable(member.name).removeprefix("./")
                names[name] += 1
                if not member.refused and _is_hidden(name):
                    continue
                if member.refused or is_image_name(name):
                    repeated = "refused: a second member of that name" if names[name] > 1 else ""
                    _add(rows, name, (member.offset, member.n_bytes), member.refused or repeated, names[name])
                elif name.endswith((".cls", ".json")) and member.n_bytes <= _MAX_LABEL_BYTES:
                    label = _label(name, read_member(file, member.offset, member.n_bytes), label_key)
                    keyed.setdefault(_key(name), label)
                else:
                    rows.n_others += 1
    except DAMAGE as error:
        what = f"it is damaged after {names.total():,} members" if names else "it is no tar archive, or a damaged one"
        _add(rows, path.name, (0, 0), f"{what} ({error})", 1)
    _label_rows(rows, keyed, split)
    return rows


def _add(rows: _Rows, name: str, place: tuple[int, int], refused: str, count: int) -> None:
    if refused:
        rows.refused[len(rows.ids)] = refused
    rows.ids.append(name if count == 1 else f"{name} ({count})")
    rows.places.append(place)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _key(name: str) -> str:
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _label(name: str, data: bytes, label_key: str | None) -> Any:
    """Read the label of a sample: a ``.cls`` file is one, a ``.json`` file has one under a known key."""
    text = data.decode("utf-8", "replace")
    if name.endswith(".cls"):
        return text
    try:
        record = json.loads(text)
    except ValueError:
        return None
    if not isinstance(record, dict):
        return None
    key = (
        label_key
        if label_key is not None
        else find_column(list(record), None, LABEL_NAMES, option="--label-column", source=name)
    )
    value = record.get(key) if key is not None else None
    return value if isinstance(value, str | int | float) else None


def _label_rows(rows: _Rows, keyed: dict[str, Any], split: str) -> None:
    if any(_key(name) in keyed for name in rows.ids):
        rows.labels = [keyed.get(_key(name)) for name in rows.ids]
        rows.splits = [split] * len(rows.ids)
        return
    good = [name for row, name in enumerate(rows.ids) if row not in rows.refused]
    depth = _shared_depth(good)
    labels, splits, rows.notes = place(["/".join(name.split("/")[depth:]) for name in good])
    found = dict(zip(good, zip(labels, splits, strict=True), strict=True))
    rows.labels = [found.get(name, (None, ""))[0] for name in rows.ids]
    rows.splits = [found.get(name, (None, ""))[1] or split for name in rows.ids]


def _shared_depth(names: Sequence[str]) -> int:
    """Return how many folders lie around all images without saying anything about one of them."""
    if not names:
        return 0
    shared = names[0].split("/")[:-1]
    for name in names:
        while shared and not name.startswith("/".join([*shared, ""])):
            shared.pop()
    return next((depth for depth, folder in enumerate(shared) if split_name(folder)), len(shared))


def _stem(name: str) -> str:
    return re.sub(r"\.(tar|tgz)(\.\w+)?$", "", name, flags=re.IGNORECASE)


def _first(refused: dict[int, str], ids: Sequence[str]) -> str:
    return "".join(f" {ids[row]}: {reason}." for row, reason in list(refused.items())[:1])
