"""What a model says about some rows: a label or a reason for each, in order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from featx.errors import DataError, OptionError
from featx.model.settings import Thresholds
from featx.settings import check_choice

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from featx.model.outputs import Outputs
    from featx.model.target_predictions import TargetPredictions

Found = TypeVar("Found", bound="NDArray[Any]")

#: Fewer rows tell nothing about a distance.
FEWEST_ROWS = 50


@dataclass(frozen=True, eq=False, kw_only=True)
class Predictions(Thresholds):
    """Class probabilities of n rows.

    Attributes
    ----------
    ids : tuple of str, length n
        What each row is called.
    classes : tuple of str, length k
        Names of the columns of `probabilities`.
    probabilities : ndarray of float64, shape (n, k)
        Each row sums to 1; a row that could not be read is NaN.
    errors : mapping of int to str
        Why, by position, for exactly the rows that could not be read.
    familiarity : ndarray of float64, shape (n,), or None
        Share of known rows that lie as far from the training rows as this one; NaN for a row that could not
        be read, None where the model does not tell.
    images : tuple of tuple of str, or None
        Ids of the images that each row is of, for a model of items.
    min_probability, min_familiarity : float
        Below either the model abstains: the row has probabilities but no label.
    unknown : str, optional
        The label of such rows, which is no class, instead of none.

    Examples
    --------
    >>> p = Predictions(ids=("a.jpg", "b.jpg"), classes=("cat", "dog"),
    ...                 probabilities=np.array([[0.9, 0.1], [np.nan, np.nan]]), errors={1: "not an image"})
    >>> p.labels
    ('cat', None)
    >>> p.top(2)
    [[('cat', 0.9), ('dog', 0.1)], []]
    """

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: NDArray[np.float64]
    errors: Mapping[int, str] = field(default_factory=dict)
    familiarity: NDArray[np.float64] | None = None
    images: tuple[tuple[str, ...], ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_thresholds(self, self.classes, None, known=self.familiarity is not None)
        assert self.probabilities.shape == (len(self.ids), len(self.classes))
        assert set(np.flatnonzero(np.isnan(self.probabilities).any(axis=1)).tolist()) == set(self.errors)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def best(self) -> NDArray[np.int64]:
        """Index of the most probable class, int64 of shape (n,); -1 for a row that could not be read."""
        best = np.full(len(self), -1, dtype=np.int64)
        readable = [i for i in range(len(self)) if i not in self.errors]
        best[readable] = self.probabilities[readable].argmax(axis=1)
        return best

    @property
    def confidence(self) -> NDArray[np.float64]:
        """Probability of the most probable class, float64 of shape (n,); NaN for a row that could not be read."""
        return np.asarray(self.probabilities.max(axis=1))

    @property
    def sure(self) -> NDArray[np.bool_]:
        """Rows that could be read and on which the model does not abstain, shape (n,)."""
        sure = self.confidence >= self.min_probability  # False for NaN
        if self.familiarity is not None:
            sure &= self.familiarity >= self.min_familiarity
        return np.asarray(sure)

    @property
    def labels(self) -> tuple[str | None, ...]:
        """Name of the most probable class; `unknown` where the model abstains, None where the row could not be read."""
        return tuple(
            self.classes[j] if sure else None if i in self.errors else self.unknown
            for i, (j, sure) in enumerate(zip(self.best, self.sure.tolist(), strict=True))
        )

    def top(self, k: int = 5) -> list[list[tuple[str, float]]]:
        """Return the `k` most probable classes of each row, best first; nothing for a row that could not be read."""
        if k < 1:
            raise OptionError(f"--top must be at least 1, got {k}.")
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :k]
        return [
            [] if i in self.errors else [(self.classes[j], float(self.probabilities[i, j])) for j in columns]
            for i, columns in enumerate(order)
        ]

    def to_dict(self, k: int = 5) -> dict[str, Any]:
        """Return the JSON form of ``featx predict`` with the `k` best classes of each row.

        An abstained row has label `unknown`, by default null, and keeps its probability; an unreadable one has neither,
        and its reason.
        """
        familiarity = [None] * len(self) if self.familiarity is None else self.familiarity.tolist()
        rows = zip(self.ids, self.labels, self.confidence.tolist(), familiarity, self.top(k), strict=True)
        return {
            "classes": list(self.classes),
            "predictions": [
                {
                    "id": name,
                    "label": label,
                    "probability": None if i in self.errors else probability,
                    "familiarity": None if i in self.errors else familiar,
                    "top": [list(pair) for pair in top],
                    "error": self.errors.get(i),
                    **told_images(self.images, i),
                }
                for i, (name, label, probability, familiar, top) in enumerate(rows)
            ],
        }


def told_images(images: tuple[tuple[str, ...], ...] | None, i: int) -> dict[str, list[str]]:
    """Return the JSON form of the images of an item; nothing where rows are images."""
    return {} if images is None else {"images": list(images[i])}


def check_thresholds(asked: Thresholds, names: Sequence[str], outputs: Outputs | None, *, known: bool) -> None:
    """Raise OptionError where a model cannot abstain as it is asked to.

    Parameters
    ----------
    asked : Thresholds
    names : sequence of str
        The classes, labels or numbers that it tells.
    outputs : Outputs or None
        None of a model of classes.
    known : bool
        Whether it knows how familiar rows are.
    """
    task = None if outputs is None else outputs.task
    if task == "regress" and (asked.min_probability or asked.unknown is not None):
        flag = "--min-probability" if asked.min_probability else "--unknown"
        raise OptionError(f"{flag} is of labels, and this model predicts numbers. Leave it out.")
    if asked.unknown is not None:
        if not asked.unknown.strip() or asked.unknown in names:
            what = "is a label of the model" if asked.unknown in names else "is no word"
            raise OptionError(f"--unknown {asked.unknown!r} {what}. Name what is none of its labels: --unknown unknown")
        if not asked.min_familiarity and (task == "multilabel" or not asked.min_probability):
            which = "--min-familiarity" if task == "multilabel" else "--min-probability or --min-familiarity"
            raise OptionError(f"--unknown is the label of rows below {which}. Say that as well.")
    if asked.min_familiarity and not known:
        raise OptionError(
            f"This model cannot tell how familiar images are: it had fewer than {FEWEST_ROWS} rows of train or of "
            "validation, or its rows are too long. Fit it with more validation rows (--val 0.2), or a layer of shorter "
            "rows (--pool avg), or leave out --min-familiarity."
        )


def readable(found: Predictions | TargetPredictions, values: Found, errors: str) -> Found:
    """Return `values` of the rows of `found`, masked or with complaint where an image could not be read."""
    check_choice("errors", errors, ("raise", "mask"))
    if errors == "mask":
        mask = np.zeros(values.shape, dtype=bool)
        mask[list(found.errors)] = True
        return np.ma.MaskedArray(values, mask)  # type: ignore[return-value]
    if found.errors:
        place = min(found.errors)
        raise DataError(
            f"{len(found.errors):,} of {len(found):,} images cannot be read, the first at position {place} "
            f"({found.ids[place]}): {found.errors[place]}. Leave them out, or get a masked array: errors='mask'"
        )
    return values
