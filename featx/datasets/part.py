"""Part of a dataset: some of its rows, read from where the whole is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featx.datasets.dataset import Dataset, ImageData
    from featx.errors import ImageError


def select(dataset: Dataset, rows: NDArray[np.intp]) -> Dataset:
    """Return some rows of a dataset.

    Parameters
    ----------
    dataset : Dataset
    rows : ndarray of int, shape (m,)
        Ascending positions.

    Examples
    --------
    >>> from featx.datasets import open_dataset
    >>> select(open_dataset("digits"), np.array([3, 5])).ids
    ['3', '5']
    """
    return dataclasses.replace(
        dataset,
        identity=lambda: f"{dataset.identity()} {rows.tolist()}",
        ids=[dataset.ids[i] for i in rows.tolist()],
        labels=dataset.labels[rows],
        given_splits=dataset.splits[rows],
        validation=None,
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
