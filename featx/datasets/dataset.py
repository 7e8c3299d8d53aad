"""The rows of a dataset: an id, an image, a label or none, a split or none. Lists images, decodes none."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, TypeAlias

import numpy as np

from featx.datasets.naming import dataset_name
from featx.errors import ImageError

#: An image as `featx.images.decode` takes it: a whole file, or uint8 pixels (h, w), (h, w, 1), (h, w, 3), (h, w, 4).
ImageData: TypeAlias = bytes | np.ndarray

#: Larger files are not read into memory: more than an uncompressed 16-bit image of the most pixels that are decoded.
MAX_FILE_BYTES = 2**30

#: The label of a row that has none.
UNLABELLED = -1


class Images(Protocol):
    """Where the images of a dataset are read from."""

    def iterate(self, indices: Iterable[int]) -> Iterator[tuple[int, ImageData | ImageError]]:
        """Read the images of ascending rows, in one pass; an unreadable one is yielded as its `ImageError`."""

    def stamps(self) -> np.ndarray | None:
        """Return what changes when an image's file does, uint8 of shape (n, 16); None where nothing does."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """An ordered list of images with their labels and splits.

    Parameters
    ----------
    title : str
        What the source is called.
    identity : callable
        Returns what tells this source from all others of that title. Called when `name` is asked for.
    ids : sequence of str, length n
        Relative POSIX paths, ids of a table, or row numbers.
    classes : tuple of str
        Class names.
    labels : ndarray of int64, shape (n,)
        Positions in `classes`; -1 for rows without a label.
    splits : ndarray of str, shape (n,)
        ``train``, ``val``, ``test`` or the source's own words; empty for none.
    images : Images
        Where the images are read from.
    notes : tuple of str
        What a user should be told about how the source was understood, a sentence each.
    source : mapping of str to str
        What `open_dataset` was given to find it again: ``data`` and, where they were given, ``images`` and the
        columns. Empty for objects in memory.
    """

    title: str
    identity: Callable[[], str]
    ids: Sequence[str]
    classes: tuple[str, ...]
    labels: np.ndarray
    splits: np.ndarray
    images: Images
    notes: tuple[str, ...] = ()
    source: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert len(self.ids) == len(self.labels) == len(self.splits)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def name(self) -> str:
        """The dataset's folder in a cache: its cleaned title and eight hexadecimal digits of its identity."""
        return dataset_name(self.title, self.identity())

    def read(self, i: int) -> ImageData:
        """Read the image of row `i`.

        Raises
        ------
        ImageError
            If it cannot be read.
        """
        ((_, data),) = self.images.iterate([i])
        if isinstance(data, ImageError):
            raise data
        return data

    def iterate(self, indices: Iterable[int]) -> Iterator[tuple[int, ImageData | ImageError]]:
        """Read the images of ascending rows, archives and tables in one pass.

        Parameters
        ----------
        indices : iterable of int
            Rows, ascending.

        Yields
        ------
        index : int
        data : bytes, ndarray of uint8, or ImageError
            An image that cannot be read does not end the iteration: its error takes its place.
        """
        return self.images.iterate(indices)

    def stamps(self) -> np.ndarray | None:
        """Return what changes when an image's file does: a hint under which its hash may be remembered.

        Returns
        -------
        ndarray of uint8, shape (n, 16), or None
            Digest of path, size, modification time, inode and place in the file; None where the images are
            not in files.
        """
        return self.images.stamps()


def item_id(data: ImageData) -> bytes:
    """Return the 32 bytes by which an image is known everywhere: SHA-256 of its content.

    Parameters
    ----------
    data : bytes or ndarray
        An encoded image is known by its bytes, an array by dtype, shape and data.

    Examples
    --------
    >>> item_id(b"abc").hex()[:8]
    'ba7816bf'
    >>> item_id(np.zeros((2, 3), np.uint8)) == item_id(np.zeros((3, 2), np.uint8))
    False
    """
    if isinstance(data, bytes):
        return hashlib.sha256(data).digest()
    digest = hashlib.sha256(f"{data.dtype.str}{data.shape}".encode())
    digest.update(np.ascontiguousarray(data).reshape(-1).data)
    return digest.digest()


def one_by_one(
    read: Callable[[int], ImageData], indices: Iterable[int]
) -> Iterator[tuple[int, ImageData | ImageError]]:
    """Iterate over images that can be read in any order."""
    for index in indices:
        result: ImageData | ImageError
        try:
            result = read(int(index))
        except ImageError as error:
            result = error
        except OSError as error:  # of the disk, the network, the folder: not of the image
            result = ImageError(f"cannot be read ({error.strerror or error})", transient=True)
        yield int(index), result
