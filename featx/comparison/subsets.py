"""Which images train, choose and judge in a comparison: validation rows for everyone, nested subsets of train."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from featx.datasets import UNLABELLED
from featx.datasets.splits import hold_out

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featx.datasets import Dataset, ImageData
    from featx.errors import ImageError

#: Share of train that chooses where the data have no validation rows of their own.
DEFAULT_VAL = "0.1"


def with_validation(dataset: Dataset, *, seed: int = 0) -> Dataset:
    """Return `dataset` with validation rows: its own, or a tenth of train, the same ones for every row of the board.

    Examples
    --------
    >>> from featx.datasets import open_dataset
    >>> sorted(set(with_validation(open_dataset("digits")).splits.tolist()))
    ['train', 'val']
    """
    if "val" in dataset.splits:
        return dataset
    return dataclasses.replace(dataset, splits=hold_out(dataset, DEFAULT_VAL, seed=seed))


def keep_shots(dataset: Dataset, shots: int | None, *, seed: int) -> Dataset:
    """Return `dataset` with `shots` training images a class, without the others.

    The images of fewer shots are among those of more, for the same seed. Classes with fewer images keep them all;
    validation and test rows stay whole.

    Parameters
    ----------
    dataset : Dataset
        With training rows.
    shots : int or None
        None keeps everything.
    seed : int
        Of the draw.

    Examples
    --------
    >>> from featx.datasets import open_dataset
    >>> few = keep_shots(with_validation(open_dataset("digits")), 5, seed=0)
    >>> int((few.splits == "train").sum()), int((few.splits == "val").sum())
    (50, 181)
    """
    if shots is None:
        return dataset
    rng, in_train = np.random.default_rng(seed), dataset.splits == "train"
    kept = ~in_train
    for label in range(len(dataset.classes)):
        members: NDArray[np.intp] = rng.permutation(np.flatnonzero(in_train & (dataset.labels == label)))
        kept[members[:shots]] = True
    return select(dataset, np.flatnonzero(kept))


def select(dataset: Dataset, rows: NDArray[np.intp]) -> Dataset:
    """Return some rows of a dataset, at ascending positions."""
    return dataclasses.replace(
        dataset,
        identity=lambda: f"{dataset.identity()} {rows.tolist()}",
        ids=[dataset.ids[i] for i in rows.tolist()],
        labels=dataset.labels[rows],
        splits=dataset.splits[rows],
        images=_Part(dataset, rows),
    )


@dataclass(frozen=True, eq=False)
class _Part:
    """Images of a dataset at ascending positions, counted from 0."""

    whole: Dataset
    rows: NDArray[np.intp]

    def iterate(self, indices: Iterable[int]) -> Iterator[tuple[int, ImageData | ImageError]]:
        """Read images at ascending places among `rows`."""
        wanted = list(indices)
        read = self.whole.iterate(self.rows[wanted].tolist())
        for place, (_, data) in zip(wanted, read, strict=True):
            yield place, data

    def stamps(self) -> NDArray[np.uint8] | None:
        """Return what changes when a file does, a row an image; None where the whole dataset has none."""
        stamps = self.whole.stamps()
        return None if stamps is None else stamps[self.rows]


def labelled(dataset: Dataset, split: str) -> NDArray[np.intp]:
    """Return the positions of the labelled rows of a split, ascending."""
    return np.flatnonzero((dataset.splits == split) & (dataset.labels != UNLABELLED))
