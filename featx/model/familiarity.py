"""Whether a row is like those a model has learned from, by its distance to the nearest of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.heads.centroid import unit_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featx.features import Features
    from featx.model.scaling import FeatureScaler

#: Training rows that a model file carries, at most, and the bytes they may take.
MOST_ROWS, MOST_BYTES = 1000, 2 << 20
#: Fewer rows tell nothing about a distance.
FEWEST_ROWS = 50
#: Rows that the distances of new ones are compared with, at most.
MOST_REFERENCES = 2000
#: The distance is that to the so-manyth nearest row.
NEIGHBOUR = 5


@dataclass(frozen=True, eq=False)
class Familiarity:
    """A sample of training rows, and how far from them rows of the same kind lie.

    Attributes
    ----------
    units : ndarray of float16, shape (m, d)
        Scaled training rows of length 1.
    distances : ndarray of float32, shape (v,)
        Ascending distances of rows that are not in the sample.

    Notes
    -----
    The k-th nearest neighbour on rows of length 1 is the score of Y. Sun et al., "Out-of-distribution detection with
    deep nearest neighbors", ICML 2022. Here it is told as a share, so that it needs no unit.
    """

    units: NDArray[np.float16]
    distances: NDArray[np.float32]

    @classmethod
    def learn(
        cls, table: Features, scaler: FeatureScaler, train: NDArray[np.intp], val: NDArray[np.intp], seed: int
    ) -> Familiarity | None:
        """Sample training rows, and measure validation rows, or without any further training rows, against them.

        Returns None where too few rows are there, or a row is too long to carry enough of them.
        """
        width = int(np.prod(table.shape[1:]))
        shuffled = np.random.default_rng(seed).permutation(train)
        n_carried = min(MOST_ROWS, MOST_BYTES // (2 * width), len(train) if len(val) else len(train) // 2)
        carried, rest = shuffled[:n_carried], val if len(val) else shuffled[n_carried:]
        if n_carried < FEWEST_ROWS or len(rest) < FEWEST_ROWS:
            return None
        units = _units(scaler.transform(table[np.sort(carried)])).astype(np.float16)
        references = np.sort(np.random.default_rng(seed).permutation(rest)[:MOST_REFERENCES])
        distances = _distances(units, scaler.transform(table[references]))
        return cls(units, np.sort(distances))

    def share(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        """Return for scaled rows (n, …) which share of known rows is as far or farther, shape (n,).

        Rows like those learned from are spread evenly over 0–1; those unlike any are at 0.
        """
        nearer = np.searchsorted(self.distances, _distances(self.units, rows), side="left")
        return np.asarray(1 - nearer / len(self.distances))


def _units(rows: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(unit_rows(rows.reshape(len(rows), -1)), np.float32)


def _distances(units: NDArray[np.float16], rows: NDArray[Any]) -> NDArray[np.float32]:
    """Return 1 - cosine to the `NEIGHBOUR`-th nearest of `units`, shape (n,)."""
    similarities = _units(rows) @ units.astype(np.float32).T
    place = len(units) - NEIGHBOUR
    return np.asarray(1 - np.partition(similarities, place, axis=1)[:, place], np.float32)
