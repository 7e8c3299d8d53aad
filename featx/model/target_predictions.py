"""What a model of labels or numbers says about some rows: in order, with a reason for each that cannot be predicted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.model.predictions import check_thresholds, readable, told_images
from featx.model.settings import Thresholds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from featx.model.outputs import Outputs
    from featx.model.predictions import Predictions

    Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class TargetPredictions(Thresholds):
    """Outputs of n rows.

    Attributes
    ----------
    ids : tuple of str, length n
        What each row is called.
    outputs : Outputs
        What the columns are.
    array : ndarray of float64, shape (n, t)
        A row that could not be read is NaN.
    errors : mapping of int to str
        Why, by position, for exactly the rows that could not be read.
    familiarity : ndarray of float64, shape (n,), or None
        As of `featx.model.Predictions`.
    images : tuple of tuple of str, or None
        As of `featx.model.Predictions`.
    min_probability, min_familiarity : float
        Labels less probable than the former are not given; rows less familiar than the latter have none.
    unknown : str, optional
        The one label of rows less familiar than that, instead of none.
    """

    ids: tuple[str, ...]
    outputs: Outputs
    array: Floats
    errors: Mapping[int, str] = field(default_factory=dict)
    familiarity: Floats | None = None
    images: tuple[tuple[str, ...], ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_thresholds(self, self.outputs.names, self.outputs, known=self.familiarity is not None)
        assert self.array.shape == (len(self.ids), len(self.outputs.names))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def answered(self) -> NDArray[np.bool_]:
        """Rows that could be read and are familiar enough, shape (n,)."""
        familiar = np.ones(len(self)) if self.familiarity is None else self.familiarity
        return np.asarray(~np.isnan(self.array).any(axis=1) & ~(familiar < self.min_familiarity))


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelPredictions(TargetPredictions):
    """Probabilities of labels, each there or not.

    Examples
    --------
    >>> from featx.model.outputs import Outputs
    >>> p = LabelPredictions(ids=("a.jpg",), outputs=Outputs("multilabel", ("cat", "dog"), (0.4, 0.5)),
    ...                      array=np.array([[0.45, 0.45]]))
    >>> p.labels
    (('cat',),)
    """

    @property
    def labels(self) -> tuple[tuple[str, ...] | None, ...]:
        """Names of the labels from their thresholds on; None where the row could not be read.

        Where the model abstains it is `unknown` alone, by default None as well.
        """
        cuts, names = np.maximum(self.outputs.thresholds, self.min_probability), self.outputs.names
        unknown = None if self.unknown is None else (self.unknown,)
        return tuple(
            tuple(name for name, there in zip(names, row >= cuts, strict=True) if there)
            if known
            else None
            if i in self.errors
            else unknown
            for i, (row, known) in enumerate(zip(self.array, self.answered.tolist(), strict=True))
        )

    def top(self, k: int = 5) -> list[list[tuple[str, float]]]:
        """Return the `k` most probable labels of each row, best first; nothing for a row that could not be read."""
        order, names = np.argsort(-self.array, axis=1, kind="stable")[:, :k], self.outputs.names
        return [
            [] if i in self.errors else [(names[j], float(self.array[i, j])) for j in columns]
            for i, columns in enumerate(order)
        ]

    def to_dict(self, k: int = 5) -> dict[str, Any]:
        """Return the JSON form of ``featx predict`` with the `k` most probable labels of each row."""
        rows = zip(self.ids, self.labels, self.top(k), strict=True)
        return {
            "task": "multilabel",
            "labels": list(self.outputs.names),
            "thresholds": list(self.outputs.thresholds),
            "predictions": [
                {
                    "id": name,
                    "labels": None if labels is None else list(labels),
                    "familiarity": _familiarity(self, i),
                    "top": [list(pair) for pair in top],
                    "error": self.errors.get(i),
                    **told_images(self.images, i),
                }
                for i, (name, labels, top) in enumerate(rows)
            ],
        }

    def columns(self) -> tuple[list[str], list[list[Any]]]:
        """Return header and cells for a spreadsheet: the labels, then a probability for each."""
        rows = zip(self.labels, self.array.tolist(), strict=True)
        cells = [["" if labels is None else ";".join(labels), *_cells(row)] for labels, row in rows]
        return ["labels", *self.outputs.names], cells


@dataclass(frozen=True, eq=False, kw_only=True)
class NumberPredictions(TargetPredictions):
    """Numbers, with the margins within which the truth of nine in ten lies.

    Examples
    --------
    >>> from featx.model.outputs import Outputs
    >>> p = NumberPredictions(ids=("a.jpg",), outputs=Outputs("regress", ("price",), margins=(2.0,)),
    ...                       array=np.array([[5.0]]))
    >>> p.to_dict()["predictions"][0]["values"], p.intervals.tolist()
    ({'price': 5.0}, [[[3.0, 7.0]]])
    """

    @property
    def intervals(self) -> Floats:
        """Ends between which the truth of nine in ten new rows lies, (n, t, 2); NaN where that is not known."""
        margins = np.array([np.nan if margin is None else margin for margin in self.outputs.margins])
        return np.stack([self.array - margins, self.array + margins], axis=2)

    @property
    def numbers(self) -> Floats:
        """The numbers, NaN where the model abstains too."""
        return np.where(self.answered[:, None], self.array, np.nan)

    def to_dict(self, k: int = 5) -> dict[str, Any]:  # noqa: ARG002 - all kinds of predictions take it
        """Return the JSON form of ``featx predict``."""
        names = self.outputs.names
        rows = zip(self.ids, self.numbers.tolist(), self.intervals.tolist(), self.answered.tolist(), strict=True)
        return {
            "task": "regress",
            "targets": list(names),
            "predictions": [
                {
                    "id": name,
                    "values": dict(zip(names, row, strict=True)) if known else None,
                    "intervals90": {
                        target: [None if np.isnan(end) else end for end in ends]
                        for target, ends in zip(names, of, strict=True)
                    }
                    if known
                    else None,
                    "familiarity": _familiarity(self, i),
                    "error": self.errors.get(i),
                    **told_images(self.images, i),
                }
                for i, (name, row, of, known) in enumerate(rows)
            ],
        }

    def columns(self) -> tuple[list[str], list[list[Any]]]:
        """Return header and cells for a spreadsheet: a column for each number."""
        return list(self.outputs.names), [_cells(row) for row in self.numbers.tolist()]


def answers(found: Predictions | TargetPredictions, errors: str) -> NDArray[Any]:
    """Return what `featx.Model.predict` does of predictions: labels, tuples of labels, or numbers.

    Parameters
    ----------
    found : Predictions or TargetPredictions
    errors : {"raise", "mask"}
        What to do about images that could not be read, see `featx.model.predictions.readable`.
    """
    if isinstance(found, NumberPredictions):
        numbers = found.numbers
        return readable(found, numbers[:, 0] if numbers.shape[1] == 1 else numbers, errors)
    labels = np.empty(len(found), dtype=object)
    labels[:] = found.labels  # type: ignore[union-attr]
    return readable(found, labels, errors)


def _familiarity(predictions: TargetPredictions, i: int) -> float | None:
    return None if predictions.familiarity is None or i in predictions.errors else float(predictions.familiarity[i])


def _cells(numbers: list[float]) -> list[Any]:
    return ["" if np.isnan(number) else number for number in numbers]
