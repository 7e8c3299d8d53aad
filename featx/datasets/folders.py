"""DATA that is a folder of images: class folders, split folders over them, or a flat one; or a list of files."""
# A million Path objects cost seconds:
# ruff: noqa: PTH116, PTH118, PTH123

from __future__ import annotations

import hashlib
import os
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from featx.datasets.dataset import UNLABELLED, Dataset, readable
from featx.datasets.labels import encode_labels, flat_labels
from featx.datasets.splits import no_splits, place
from featx.errors import DataError, ImageError
from featx.images import File, sniff


def open_folder(root: Path, listing: Listing) -> Dataset:
    """Open a listed folder of image files; its class and split folders are read by `splits.place`."""
    ids = unique_ids(listing.images)
    names, splits, placed = place(ids)
    labels, classes = encode_labels(names)
    refused = {i: listing.unlisted[path] for i, path in enumerate(listing.images) if path in listing.unlisted}
    return Dataset(
        title=root.name,
        identity=lambda: f"folder {root}",
        ids=ids,
        classes=classes,
        labels=labels,
        given_splits=np.array(splits, dtype=str),
        images=Files(str(root), listing.images, refused),
        notes=(*listing.notes, *placed, *_hints(root, listing, labels, classes)),
    )


def open_paths(paths: Sequence[str], labels: Sequence[Any] | np.ndarray | None = None) -> Dataset:
    """Open image files one by one, in the order given; ids are the paths as given."""
    for path in paths:
        if Path(path).is_dir():
            raise DataError(f"A list of images holds the folder {path!r}. Give the folder alone, or list its files.")
    root = str(Path.cwd())
    values = flat_labels(labels, len(paths), "The labels")
    numbers, classes = encode_labels(values)
    return Dataset(
        title=Path(paths[0]).stem if len(paths) == 1 else "images",
        identity=lambda: "\0".join([root, *paths, *map(str, values)]),
        ids=[readable(Path(path).as_posix()) for path in paths],
        classes=classes,
        labels=numbers,
        given_splits=no_splits(len(paths)),
        images=Files(root, paths),
    )


def unique_ids(paths: Sequence[str]) -> list[str]:
    """Return paths as ids that all systems spell alike; as they are where two of them would become one."""
    ids = [path if path.isascii() else readable(path) for path in paths]
    return ids if len(set(ids)) == len(ids) else list(paths)


def _hints(root: Path, listing: Listing, labels: np.ndarray, classes: tuple[str, ...]) -> list[str]:
    hints = []
    n_without = int((labels == UNLABELLED).sum())
    tables = [path for path in listing.tables if path.lower().endswith((".csv", ".tsv"))]
    if classes and n_without:
        hints.append(f"Images in no class folder, and so without a label: {n_without:,}.")
    if not classes and tables:
        hints.append(f"No class folders, so no labels. If they are in {tables[0]}: {root / tables[0]} --images {root}")
    if len(classes) == 1:
        deeper = {path.split("/")[-2] for path in listing.images} - {classes[0]}
        if len(deeper) > 1:
            hints.append(
                f"There is one class only, {classes[0]!r}. If the folders in it are the classes, give that folder."
            )
    return hints


#: Names of files that are images, or that people take for images and should be told about when they are not.
IMAGE_SUFFIXES = frozenset(
    {"bmp", "dib", "gif", "jpg", "jpeg", "jpe", "jfif", "mpo", "jp2", "j2k", "jpf", "jpx", "png", "apng"}
    | {"pbm", "pgm", "ppm", "pnm", "tif", "tiff", "webp", "avif", "heic", "heif"}
)
#: Names of files that hold images or labels.
TABLE_SUFFIXES = frozenset({"csv", "tsv", "npz", "parquet", "tar", "tgz", "gz", "bz2", "xz"})

_HEAD_BYTES = 64


@dataclass
class Listing:
    """The files below a folder, hidden ones left out.

    Attributes
    ----------
    images : list of str
        Relative POSIX paths of image files, sorted.
    tables : list of str
        Relative paths of archives, tables and CSV files, sorted.
    others : Counter of str
        Number of all other files by suffix.
    loops : list of str
        Links to a folder that contains them. They are not followed.
    unlisted : dict of str to str
        Folders that cannot be listed, among the images as well, and why.
    """

    images: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    loops: list[str] = field(default_factory=list)
    unlisted: dict[str, str] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about what was left out."""
        notes = []
        if self.others:
            commonest = sorted(self.others.items(), key=lambda item: (-item[1], item[0]))
            kinds = [f"{n:,} {suffix or 'without a suffix'}" for suffix, n in commonest[:4]]
            kinds += ["…"] if len(self.others) > 4 else []
            notes.append(f"Left out, as no images: {', '.join(kinds)}.")
        if self.loops:
            notes.append(f"Links to a folder around them were not followed: {', '.join(self.loops[:3])}.")
        return tuple(notes)


def list_folder(root: str) -> Listing:
    """List a folder and all folders below it.

    Links to files and folders are followed, except to folders that the link itself lies in. Names that
    begin with a dot, and ``__MACOSX``, are left out. Files without a suffix are images if they begin like one.
    A link that leads nowhere or in a circle is an image that cannot be read, and so is a folder that cannot be listed.

    Raises
    ------
    DataError
        If `root` itself cannot be listed.
    """
    listing = Listing()
    folders: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", (_identity(root),))]
    while folders:
        prefix, ancestors = folders.pop()
        try:
            with os.scandir(os.path.join(root, prefix)) as entries:
                for entry in entries:
                    stem, dot, suffix = entry.name.rpartition(".")
                    if dot and stem and suffix.lower() in IMAGE_SUFFIXES and stem[0] != "." and _is_file(entry):
                        listing.images.append(prefix + entry.name)  # a million times; all else is rare
                    elif entry.name[0] == "." or entry.name == "__MACOSX":
                        continue
                    elif not _is_folder(entry):
                        _sort_in(listing, entry, prefix)
                    elif (identity := _identity(entry.path)) in ancestors:
                        listing.loops.append(prefix + entry.name)
                    else:
                        folders.append((f"{prefix}{entry.name}/", (*ancestors, identity)))
        except OSError as error:
            if not prefix:
                raise DataError(f"Cannot list {root!r}: {error.strerror}.") from error
            listing.images.append(prefix[:-1])
            listing.unlisted[prefix[:-1]] = f"folder cannot be listed ({error.strerror})"
    listing.images.sort()
    listing.tables.sort()
    listing.loops.sort()
    return listing


def is_image_name(name: str) -> bool:
    """Whether a file's suffix is one of an image format.

    Examples
    --------
    >>> is_image_name("a/b.JPG"), is_image_name("a.b/c")
    (True, False)
    """
    return _suffix(name) in IMAGE_SUFFIXES


def _suffix(name: str) -> str:
    stem, dot, suffix = name[name.rfind("/") + 1 :].rpartition(".")
    return suffix.lower() if dot and stem else ""


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link in a circle
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _sort_in(listing: Listing, entry: os.DirEntry[str], prefix: str) -> None:
    """Sort in what is neither a folder nor plainly an image file."""
    suffix = _suffix(entry.name)
    if suffix in IMAGE_SUFFIXES and entry.is_symlink():  # a link to nowhere: an image that is missing
        listing.images.append(prefix + entry.name)
    elif suffix in TABLE_SUFFIXES:
        listing.tables.append(prefix + entry.name)
    elif not suffix and _is_file(entry) and _begins_like_an_image(entry.path):
        listing.images.append(prefix + entry.name)
    else:
        listing.others[f".{suffix}" if suffix else ""] += 1


def _begins_like_an_image(path: str) -> bool:
    try:
        with open(path, "rb", buffering=0) as file:
            sniff(file.read(_HEAD_BYTES))
    except (OSError, ImageError):
        return False
    return True


#: Bytes of a stamp.
STAMP_BYTES = 16


class Files:
    """Image files below a folder.

    Parameters
    ----------
    root : str
        The folder, absolute.
    paths : sequence of str
        Paths relative to it, or absolute, as the file system spells them.
    refused : dict of int to str, optional
        Rows that are no files, and why.
    """

    def __init__(self, root: str, paths: Sequence[str], refused: Mapping[int, str] | None = None) -> None:
        self._root = root
        self._paths = paths
        self._refused = refused or {}

    def iterate(self, indices: Iterable[int]) -> Iterator[tuple[int, bytes | ImageError]]:
        """Read files whole."""
        for index, image in self.unread(indices):
            try:
                yield index, image.read() if isinstance(image, File) else image
            except ImageError as error:
                yield index, error

    def unread(self, indices: Iterable[int]) -> Iterator[tuple[int, File | ImageError]]:
        """Name files, for others to read."""
        for i in map(int, indices):
            if i in self._refused:
                yield i, ImageError(self._refused[i], transient=True)
            else:
                yield i, File(os.path.join(self._root, self._paths[i]))

    def stamps(self) -> np.ndarray:
        """Digest the absolute path, size, modification time and inode of every file."""
        root = self._root.encode("utf-8", "surrogateescape") + b"\0"
        stamps = bytearray()
        folder = os.open(self._root, os.O_RDONLY)  # short paths are looked up nearly twice as fast
        try:
            for path in self._paths:
                text = root + path.encode("utf-8", "surrogateescape") + _status(path, folder)
                stamps += hashlib.blake2b(text, digest_size=STAMP_BYTES).digest()
        finally:
            os.close(folder)
        return np.frombuffer(stamps, np.uint8).reshape(-1, STAMP_BYTES)


def stamps_of_parts(paths: Sequence[str], n_parts: Sequence[int]) -> np.ndarray:
    """Stamp the images inside larger files: a digest of the file in front, the place in it behind.

    Parameters
    ----------
    paths : sequence of str
        Absolute paths of the files.
    n_parts : sequence of int
        Number of images in each.

    Returns
    -------
    ndarray of uint8, shape (sum(n_parts), 16)
    """
    stamps = np.empty((sum(n_parts), 2), np.uint64)
    start = 0
    for path, n in zip(paths, n_parts, strict=True):
        text = path.encode("utf-8", "surrogateescape") + _status(path)
        stamps[start : start + n, 0] = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())
        stamps[start : start + n, 1] = np.arange(n)
        start += n
    return stamps.view(np.uint8)


def _status(path: str, folder: int | None = None) -> bytes:
    try:
        status = os.stat(path, dir_fd=folder)
    except OSError:
        return b"missing"  # nothing was read from it, so nothing will be remembered of it
    return struct.pack("<qqQ", status.st_size, status.st_mtime_ns, status.st_ino)
