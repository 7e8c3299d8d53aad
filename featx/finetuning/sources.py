"""Where batches come from: images that were decoded once for the whole run, or a table of activations."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from featx.augment import Augmentation, seed_of
from featx.errors import DataError, TooManyErrors
from featx.extraction.options import allowed_errors
from featx.images import DecodePool
from featx.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from featx.datasets import Dataset
    from featx.errors import ImageError
    from featx.extraction import Options
    from featx.features import Features
    from featx.progress import OnProgress
    from featx.recipe import Frame

#: Convolutions run channels last, but for maps with a side below this, which oneDNN does faster channel by channel:
#: blocks 4 and 5 of vgg16 at 32 pixels by an eighth (examples/bench_finetune.py).
FEWEST_CHANNELS_LAST = 7
#: Pixels beyond this many bytes go to a temporary file instead of memory.
MEMORY_BYTES = 4 << 30
#: Images that are decoded between two reports.
_BATCH = 64


class BatchSource(Protocol):
    """Labelled rows that a network, or the upper part of one, takes in batches."""

    y: NDArray[np.int64]
    classes: tuple[str, ...]
    splits: NDArray[np.str_]
    item_ids: NDArray[np.uint8]
    groups: NDArray[np.str_] | None
    errors: list[tuple[str, str]]
    memory_format: torch.memory_format

    def batch(self, positions: NDArray[np.intp], epoch: int | None) -> Tensor:
        """Return rows as the network takes them: as they are, or changed at random for training in `epoch`."""


@dataclass(eq=False)
class DecodedImages:
    """Labelled images at the network's size.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (m, height, width, 3)
        In memory or in a file without a name.
    places : ndarray of int, shape (n,)
        Where in `pixels` each image is; nothing is there of those that could not be read.
    y, splits, item_ids : ndarray
        Class, split and content hash of each image.
    groups : ndarray of str, shape (n,), or None
        Which images belong together.
    classes : tuple of str
    errors : list of (str, str)
        Id and reason of each image that could not be read; it is none of the n.
    augmentation : Augmentation
    seed : int
        Of the augmentation.
    memory_format : torch.memory_format
        That a network on them had better have.
    """

    pixels: NDArray[np.uint8]
    places: NDArray[np.intp]
    y: NDArray[np.int64]
    splits: NDArray[np.str_]
    item_ids: NDArray[np.uint8]
    classes: tuple[str, ...]
    errors: list[tuple[str, str]]
    groups: NDArray[np.str_] | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0
    memory_format: torch.memory_format = torch.channels_last

    def batch(self, positions: NDArray[np.intp], epoch: int | None) -> Tensor:
        """Return uint8 images (m, height, width, 3), augmented in training by image and epoch alone."""
        pixels = np.asarray(self.pixels[self.places[positions]])
        if epoch is not None and self.augmentation != Augmentation():
            seeds = [seed_of(self.item_ids[i].tobytes(), epoch + 1, self.seed) for i in positions]
            pixels = self.augmentation.apply(pixels, np.array(seeds, dtype=np.int64))
        return torch.from_numpy(pixels)


def decode(
    dataset: Dataset, frame: Frame, options: Options, folder: Path, *, test: bool, on_progress: OnProgress | None = None
) -> DecodedImages:
    """Decode the labelled images of `dataset` once, without its test split unless `test`.

    Parameters
    ----------
    dataset : Dataset
    frame : Frame
        What every image is fitted to.
    options : Options
        ``workers`` and ``max_errors``.
    folder : Path
        For pixels that do not fit in memory.
    test : bool
    on_progress : callable, optional

    Raises
    ------
    DataError
        If no image has a label.
    TooManyErrors
        If more images are bad than ``options.max_errors`` allows.
    """
    wanted = np.flatnonzero((dataset.labels >= 0) & (test | (dataset.given_splits != "test")))
    if not len(wanted):
        raise DataError("No image has a label to learn from. Give class folders, or name them: --label-column COLUMN")
    pixels = _allocate((len(wanted), frame.height, frame.width, 3), folder)
    hashes = np.zeros((len(wanted), 32), dtype=np.uint8)
    bad: dict[int, ImageError] = {}

    images = dataset.unread(wanted)
    batches = (islice(images, _BATCH) for _ in range(0, len(wanted), _BATCH))
    started, done = time.perf_counter(), 0
    with DecodePool(frame, n_workers=options.workers, n_images=len(wanted)) as pool:
        for slab in pool.batches(batches, _BATCH, dataset.ids):
            places = slice(done, done + slab.n)
            pixels[places], hashes[places] = slab.pixels, slab.item_ids
            bad |= {slab.indices[place]: error for place, error in slab.errors.items()}
            pool.release(slab)
            done += slab.n
            if on_progress is not None:
                on_progress(Progress("decode", done, len(wanted), time.perf_counter() - started))
    errors = [(dataset.ids[row], str(reason)) for row, reason in bad.items()]
    if len(errors) > allowed_errors(options.max_errors, len(wanted)):
        raise TooManyErrors(
            f"{len(errors):,} of {len(wanted):,} images cannot be read, more than --max-errors {options.max_errors}; "
            f"the first: {errors[0][0]}: {errors[0][1]}. Leave them out, or allow them: --max-errors {len(errors)}"
        )
    good = np.array([i for i, row in enumerate(wanted.tolist()) if row not in bad], dtype=np.intp)
    rows = wanted[good]
    item_ids = np.zeros((len(dataset), 32), dtype=np.uint8)
    item_ids[rows] = hashes[good]
    return DecodedImages(
        pixels,
        good,
        y=dataset.labels[rows],
        splits=dataset.split_by(item_ids)[rows],
        item_ids=hashes[good],
        groups=None if dataset.groups is None else dataset.groups[rows],
        classes=dataset.classes,
        errors=errors,
    )


def _allocate(shape: tuple[int, ...], folder: Path) -> NDArray[np.uint8]:
    if np.prod(shape, dtype=np.int64) <= MEMORY_BYTES:
        return np.empty(shape, dtype=np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, dtype=np.uint8, mode="w+", shape=shape)


class Activations:
    """Rows of a table: what the frozen part of a network makes of each image.

    Training rows that have augmented views show another one in each epoch, the plain one first.

    Parameters
    ----------
    table : Features
        Of the module whose output the trained part continues, unpooled.
    """

    def __init__(self, table: Features) -> None:
        self.y, self.splits, self.item_ids = table.y, table.splits, table.item_ids
        self.groups: NDArray[np.str_] | None = table.groups
        self.classes, self.errors = table.classes, table.errors
        small = min(table.shape[-2:]) < FEWEST_CHANNELS_LAST
        self.memory_format = torch.contiguous_format if small else torch.channels_last
        self._rows, origin = table.all_views()
        n, self._n_views = len(table), table.views
        sizes = [len(table.view(number)) for number in range(self._n_views)]
        # Where the row of each image is in each view; where a view lacks it, the plain one.
        self._places = np.tile(np.arange(n), (self._n_views, 1))
        for number, rows in enumerate(np.split(np.arange(len(self._rows)), np.cumsum(sizes)[:-1])):
            self._places[number, origin[rows]] = rows

    def batch(self, positions: NDArray[np.intp], epoch: int | None) -> Tensor:
        """Return float32 rows (m, …), read from the table."""
        view = 0 if epoch is None else epoch % self._n_views
        rows = torch.from_numpy(self._rows[self._places[view, positions]].astype(np.float32))
        return rows.contiguous(memory_format=self.memory_format) if rows.ndim == 4 else rows
