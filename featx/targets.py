"""What is predicted where that is not one class an image: several labels, or numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from featx.errors import DataError, OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

#: One class an image, several labels an image, or numbers.
TASKS = ("classify", "multilabel", "regress")

#: What the numbers are called that classes are called by.
AS_NUMBERS = "target"


@dataclass(frozen=True, eq=False)
class Targets:
    """Several labels an image, or several numbers.

    Attributes
    ----------
    task : {"multilabel", "regress"}
    names : tuple of str, length t
        Of the labels, or of what was measured.
    array : ndarray of float32, shape (n, t)
        1 for a label that an image has and 0 for one it has not, or numbers; NaN where nobody said.

    Examples
    --------
    >>> found = Targets("multilabel", ("cat", "dog"), np.float32([[1, 1], [0, 0], [0, np.nan]]))
    >>> found.known.tolist(), found.strata.tolist()
    ([True, True, False], [0, 2, -1])
    """

    task: str
    names: tuple[str, ...]
    array: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.task not in TASKS[1:]:
            raise DataError(f"Targets are of the task {' or '.join(TASKS[1:])}, got {self.task!r}.")
        if self.array.ndim != 2 or self.array.shape[1] != len(self.names) or not self.names:
            raise DataError(f"Targets have a column for each of {len(self.names)} names, got {self.array.shape}.")
        if len(set(self.names)) != len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise DataError(f"Two targets are called {twice!r}. Give each a name of its own.")

    def __len__(self) -> int:
        return len(self.array)

    @classmethod
    def from_array(cls, values: ArrayLike, names: Sequence[str] | None = None, task: str = "auto") -> Self:
        """Make targets of an array (n, t) or (n,); ``auto`` takes those that are all 0, 1 or NaN for labels.

        Raises
        ------
        DataError
            If they are no numbers, or labels are not 0 and 1.
        """
        array = np.asarray(values)
        if array.dtype.kind not in "fiub" or array.ndim not in (1, 2):
            raise DataError(f"Targets are numbers of shape (n, t), got {array.dtype} of shape {array.shape}.")
        array = array.reshape(len(array), -1).astype(np.float32)
        are_labels = bool(np.isin(array[~np.isnan(array)], (0, 1)).all())
        if task == "multilabel" and not are_labels:
            raise DataError("Labels are 0 and 1, or NaN where nobody said. For other numbers: task='regress'")
        task = ("multilabel" if are_labels else "regress") if task == "auto" else task
        return cls(task, tuple(map(str, range(array.shape[1]) if names is None else names)), array)

    def select(self, rows: NDArray[np.intp]) -> Targets:
        """Return those of some rows."""
        return Targets(self.task, self.names, self.array[rows])

    def columns(self, which: NDArray[np.intp]) -> Targets:
        """Return some of them."""
        return Targets(self.task, tuple(self.names[k] for k in which.tolist()), self.array[:, which])

    @property
    def y(self) -> NDArray[np.float32]:
        """The values as scikit-learn takes them: (n,) for a single column, else (n, t)."""
        return self.array[:, 0] if len(self.names) == 1 else self.array

    @property
    def known(self) -> NDArray[np.bool_]:
        """Rows of which every target is given, shape (n,): those that can be learned from."""
        return np.asarray(~np.isnan(self.array).any(axis=1))

    @property
    def strata(self) -> NDArray[np.int64]:
        """What each row counts as when rows are drawn, shape (n,); -1 for a row that is not `known`.

        That is the rarest of its labels, or `len(names)` for none of them, so that a draw has its share of each: K.
        Sechidis, G. Tsoumakas, I. Vlahavas, "On the stratification of multi-label data", 2011, begin with the rarest
        too. Of numbers all are alike.
        """
        if self.task == "regress":
            return np.where(self.known, 0, -1)
        has = self.array == 1
        order = np.argsort(has.sum(axis=0), kind="stable")
        rarest = np.where(has.any(axis=1), order[has[:, order].argmax(axis=1)], len(self.names))
        return np.where(self.known, rarest, -1)

    @property
    def strata_names(self) -> tuple[str, ...]:
        """Names of the `strata`."""
        return (*self.names, "") if self.task == "multilabel" else ("",)


def classes_as_numbers(y: NDArray[np.int64], classes: Sequence[str], source: str) -> Targets:
    """Return the numbers that classes are called by, as targets of a regression.

    Parameters
    ----------
    y : ndarray of int64, shape (n,)
        Positions in `classes`, -1 for none.
    classes : sequence of str
    source : str
        What to call them in messages.

    Raises
    ------
    DataError
        If a class is no number.

    Examples
    --------
    >>> classes_as_numbers(np.array([1, -1, 0]), ("9", "10"), "The table").array.ravel().tolist()
    [10.0, nan, 9.0]
    """
    numbers = []
    for name in classes:
        try:
            numbers.append(float(name))
        except ValueError:
            raise DataError(
                f"{source} has the class {name!r}, which is no number: --task regress takes numbers. Leave it out, or "
                "name a column of numbers: --label-column COLUMN"
            ) from None
    values = np.array([*numbers, np.nan], np.float32)[y]  # -1 is the last
    return Targets("regress", (AS_NUMBERS,), values[:, None])


def check_classes(task: str, what: str) -> None:
    """Refuse rows with targets for `what`, which is about classes.

    Raises
    ------
    DataError
    """
    if task != "classify":
        have = "several labels" if task == "multilabel" else "numbers"
        raise DataError(
            f"{what} takes one class an image, and these have {have} to be predicted, which featx fit does. "
            "Or name a column of classes: --label-column COLUMN"
        )


def check_images(items: Any, what: str) -> None:
    """Refuse items for `what`, which is about single images.

    Raises
    ------
    OptionError
    """
    if items is not None:
        raise OptionError(
            f"{what} is about single images, and featx fit about items. To keep images of one item together: "
            "--group-column in place of --item-column"
        )
