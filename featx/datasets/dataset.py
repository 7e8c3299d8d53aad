"""The rows of a dataset: an id, an image, a label or none, a split or none. Lists images, decodes none."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from featx.datasets.splits import ValidationShare, draw_validation
from featx.errors import DataError, ImageError
from featx.images import ImageData, Unread, item_id

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featx.targets import Targets


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
    given_splits : ndarray of str, shape (n,)
        ``train``, ``val``, ``test`` or the source's own words; empty for none.
    images : Images
        Where the images are read from.
    notes : tuple of str
        What a user should be told about how the source was understood, a sentence each.
    source : mapping of str to str
        What `open_dataset` was given to find it again: ``data`` and, where they were given, ``images`` and the
        columns. Empty for objects in memory.
    validation : ValidationShare, optional
        Validation rows that are still to be drawn from the training rows. That takes the content of the images:
        `split_by` draws from known hashes, and `splits`, when it is asked for, hashes them.
    groups : ndarray of str, shape (n,), optional
        The group of each row, empty for a row by itself. A group is never drawn apart.
    targets : Targets, optional
        Several labels or numbers a row, in place of one class: `labels` are then -1, and `classes` empty.
    items : ndarray of str, shape (n,), optional
        Of what each image is one of several; images of one item are in one group.
    slots : ndarray of str, shape (n,), optional
        What each image shows of its item, empty for nothing in particular.
    times : ndarray of float64, shape (n,), optional
        When each was taken, in any unit, NaN for unknown: validation rows are then the latest.
    """

    title: str
    identity: Callable[[], str]
    ids: Sequence[str]
    classes: tuple[str, ...]
    labels: np.ndarray
    given_splits: np.ndarray
    images: Images
    notes: tuple[str, ...] = ()
    source: Mapping[str, str] = field(default_factory=dict)
    validation: ValidationShare | None = None
    groups: np.ndarray | None = None
    targets: Targets | None = None
    items: np.ndarray | None = None
    slots: np.ndarray | None = None
    times: np.ndarray | None = None

    def __post_init__(self) -> None:
        assert len(self.ids) == len(self.labels) == len(self.given_splits)
        beside = (self.targets, self.groups, self.items, self.slots, self.times)
        assert all(values is None or len(values) == len(self.ids) for values in beside)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def task(self) -> str:
        """What its labels are for, one of `featx.targets.TASKS`."""
        return "classify" if self.targets is None else self.targets.task

    @cached_property
    def name(self) -> str:
        """The dataset's folder in a cache: its cleaned title and eight hexadecimal digits of its identity."""
        return dataset_name(self.title, self.identity())

    @cached_property
    def splits(self) -> np.ndarray:
        """Split of each row, shape (n,): as given, or with the validation rows drawn, which reads every image once."""
        return self.split_by(None)

    def split_by(self, item_ids: np.ndarray | None, usable: np.ndarray | None = None) -> np.ndarray:
        """Return the split of each row, with validation rows drawn by content where they are still to be drawn.

        Parameters
        ----------
        item_ids : ndarray of uint8, shape (n, 32), or None
            Content hashes; zeros for images that could not be read. None reads the images.
        usable : ndarray of bool, shape (n,), optional
            The rows to draw from; by default those with a hash. With damaged images left out, the draw is that
            from a table of features, which has no rows of them.

        Returns
        -------
        ndarray of str, shape (n,)

        Raises
        ------
        DataError
            If there are too few rows to draw any.
        """
        if self.validation is None:
            return self.given_splits
        if item_ids is None and not self.validation.last:
            item_ids = self._hash_all()
        if usable is not None:
            rows = np.flatnonzero(usable)
        else:
            rows = np.arange(len(self)) if item_ids is None else np.flatnonzero(item_ids.any(axis=1))
        drawn = draw_validation(
            self.validation,
            splits=self.given_splits[rows],
            labels=(self.labels if self.targets is None else self.targets.strata)[rows],
            classes=self.classes if self.targets is None else self.targets.strata_names,
            item_ids=None if item_ids is None else item_ids[rows],
            groups=None if self.groups is None else self.groups[rows],
            times=None if self.times is None else self.times[rows],
        )
        splits = self.given_splits.astype(np.promote_types(self.given_splits.dtype, drawn.dtype))
        splits[rows] = drawn
        if (drawn == self.given_splits[rows])[drawn == "val"].all():
            n = int((drawn == "train").sum())
            raise DataError(f"--val {self.validation} of {n:,} training images is none. Take a larger part: --val 0.5")
        return splits

    def _hash_all(self) -> np.ndarray:
        item_ids = np.zeros((len(self), 32), np.uint8)
        for i, data in self.iterate(range(len(self))):
            if not isinstance(data, ImageError):
                item_ids[i] = np.frombuffer(item_id(data), np.uint8)
        return item_ids

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

    def unread(self, indices: Iterable[int]) -> Iterator[tuple[int, Unread | ImageError]]:
        """Iterate as `iterate` does, but name images that are files of their own, for their decoder to read."""
        unread: Callable[[Iterable[int]], Iterator[tuple[int, Unread | ImageError]]]
        unread = getattr(self.images, "unread", self.images.iterate)
        return unread(indices)

    def stamps(self) -> np.ndarray | None:
        """Return what changes when an image's file does: a hint under which its hash may be remembered.

        Returns
        -------
        ndarray of uint8, shape (n, 16), or None
            Digest of path, size, modification time, inode and place in the file; None where the images are
            not in files.
        """
        return self.images.stamps()


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


def select(dataset: Dataset, rows: NDArray[np.intp]) -> Dataset:
    """Return some rows of a dataset.

    Parameters
    ----------
    dataset : Dataset
    rows : ndarray of int, shape (m,)
        Positions, in any order; ascending ones are read fastest.

    Examples
    --------
    >>> from featx.datasets import open_dataset
    >>> select(open_dataset("digits"), np.array([3, 5])).ids
    ['3', '5']
    """
    beside: dict[str, Any] = {
        name: None if (values := getattr(dataset, name)) is None else values[rows]
        for name in ("groups", "items", "slots", "times")
    }
    return dataclasses.replace(
        dataset,
        identity=lambda: f"{dataset.identity()} {rows.tolist()}",
        ids=[dataset.ids[i] for i in rows.tolist()],
        labels=dataset.labels[rows],
        given_splits=dataset.splits[rows],
        **beside,
        targets=None if dataset.targets is None else dataset.targets.select(rows),
        validation=None,
        images=_Part(dataset, rows),
    )


_Image = TypeVar("_Image")


@dataclass(frozen=True, eq=False)
class _Part:
    """Images of a dataset at some positions, counted from 0."""

    whole: Dataset
    rows: NDArray[np.intp]

    def iterate(self, indices: Iterable[int]) -> Iterator[tuple[int, ImageData | ImageError]]:
        """Read images at ascending places among `rows`."""
        return self._in_order(indices, self.whole.iterate)

    def unread(self, indices: Iterable[int]) -> Iterator[tuple[int, Unread | ImageError]]:
        """Name them, where they are files of their own."""
        return self._in_order(indices, self.whole.unread)

    def _in_order(
        self, indices: Iterable[int], read: Callable[[Iterable[int]], Iterator[tuple[int, _Image]]]
    ) -> Iterator[tuple[int, _Image]]:
        wanted = np.fromiter(indices, np.intp)
        rows = self.rows[wanted]
        if (np.diff(rows) > 0).all():
            images = read(rows.tolist())
            yield from ((place, image) for place, (_, image) in zip(wanted.tolist(), images, strict=True))
        else:
            for place, row in zip(wanted.tolist(), rows.tolist(), strict=True):
                ((_, image),) = read([row])
                yield place, image

    def stamps(self) -> NDArray[np.uint8] | None:
        """Return what changes when a file does, a row an image; None where the whole dataset has none."""
        stamps = self.whole.stamps()
        return None if stamps is None else stamps[self.rows]


_MAX_LENGTH = 60


def dataset_name(title: str, identity: str) -> str:
    """Return the cleaned title and eight hexadecimal digits of what tells the source from its namesakes.

    Examples
    --------
    >>> dataset_name("My Photos", "/home/eva/My Photos")
    'my-photos-fda4481a'
    >>> dataset_name("My Photos", "/home/adam/My Photos")
    'my-photos-021f6429'
    """
    digest = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    cleaned = re.sub(r"[^a-z0-9._-]", "-", title.lower()).strip("-.")[:_MAX_LENGTH]
    return f"{cleaned or 'dataset'}-{digest}"


def readable(text: str) -> str:
    r"""Return a file name or label as Unicode that every table can hold and every system composes alike (NFC).

    Examples
    --------
    >>> readable("cafe\u0301.jpg") == "caf\u00e9.jpg"
    True
    >>> readable("broken\udcff.jpg")
    'broken\\xff.jpg'
    """
    if text.isascii():
        return text
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", text)
