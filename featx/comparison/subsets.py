"""Which images train, choose and report in a comparison: validation rows for everyone, nested subsets of train."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from featx.datasets import UNLABELLED
from featx.datasets.dataset import select
from featx.datasets.splits import DEFAULT_VAL, ValidationShare

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featx.datasets import Dataset


def with_validation(dataset: Dataset, item_ids: NDArray[np.uint8] | None = None, *, seed: int = 0) -> Dataset:
    """Return `dataset` with validation rows: its own, or a tenth of train, the same ones for every row of the board.

    Parameters
    ----------
    dataset : Dataset
    item_ids : ndarray of uint8, shape (n, 32), optional
        Content hashes, which the draw goes by; the images are read where they are not known.
    seed : int
        Of the draw.

    Examples
    --------
    >>> from featx.datasets import open_dataset
    >>> sorted(set(with_validation(open_dataset("digits")).splits.tolist()))
    ['train', 'val']
    """
    if dataset.validation is None and "val" not in dataset.given_splits:
        dataset = dataclasses.replace(dataset, validation=ValidationShare.parse(DEFAULT_VAL, seed))
    splits = dataset.split_by(item_ids)
    if "train" not in splits:  # as everywhere, what has no split trains then
        splits = np.where(splits == "", "train", splits)
    return dataclasses.replace(dataset, given_splits=splits, validation=None)


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
    (50, 179)
    """
    if shots is None:
        return dataset
    rng, in_train = np.random.default_rng(seed), dataset.splits == "train"
    kept = ~in_train
    for label in range(len(dataset.classes)):
        members: NDArray[np.intp] = rng.permutation(np.flatnonzero(in_train & (dataset.labels == label)))
        kept[members[:shots]] = True
    return select(dataset, np.flatnonzero(kept))


def labelled(dataset: Dataset, split: str) -> NDArray[np.intp]:
    """Return the positions of the labelled rows of a split, ascending."""
    return np.flatnonzero((dataset.splits == split) & (dataset.labels != UNLABELLED))
