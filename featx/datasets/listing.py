"""What lies in a folder: image files by name, everything else by number. A million files take seconds."""
# A million Path objects cost seconds:
# ruff: noqa: PTH116, PTH118, PTH123

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field

from featx.errors import DataError, ImageError
from featx.images import sniff

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
    """

    images: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    loops: list[str] = field(default_factory=list)

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

    Raises
    ------
    DataError
        If a folder cannot be listed.
    """
    listing = Listing()
    folders: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", (_identity(root),))]
    while folders:
        prefix, ancestors = folders.pop()
        try:
            with os.scandir(os.path.join(root, prefix)) as entries:
                for entry in entries:
                    stem, dot, suffix = entry.name.rpartition(".")
                    if dot and stem and suffix.lower() in IMAGE_SUFFIXES and stem[0] != "." and entry.is_file():
                        listing.images.append(prefix + entry.name)  # a million times; all else is rare
                    elif entry.name[0] == "." or entry.name == "__MACOSX":
                        continue
                    elif not entry.is_dir():
                        _sort_in(listing, entry, prefix)
                    elif (identity := _identity(entry.path)) in ancestors:
                        listing.loops.append(prefix + entry.name)
                    else:
                        folders.append((f"{prefix}{entry.name}/", (*ancestors, identity)))
        except OSError as error:
            raise DataError(f"Cannot list {os.path.join(root, prefix)!r}: {error.strerror}.") from error
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
    elif not suffix and entry.is_file() and _begins_like_an_image(entry.path):
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
