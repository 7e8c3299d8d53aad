"""`Vote`: several fitted models as one head, each on the columns that it was fitted on, and how much each counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featx.model.model import Model

    Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Voter:
    """A model that votes.

    Attributes
    ----------
    model : Model
        Complete: its own scaling, head and calibration.
    weight : float
        Above 0; those of all voters together are 1.
    columns : ndarray of int, shape (d,), or None
        Which columns of the rows it takes, in its order; None for all of them as they are.
    """

    model: Model
    weight: float
    columns: NDArray[np.intp] | None = None

    def rows(self, X: NDArray[Any]) -> NDArray[Any]:
        """Return the part of rows (n, …) that the model takes."""
        return X if self.columns is None else X[:, self.columns]


class Vote:
    """What several models say of a row, averaged: probabilities of classes or labels, or numbers.

    Parameters
    ----------
    voters : sequence of Voter
        Of one task, with the same classes or targets in the same order.
    n_features : int
        Values of a row.

    Attributes
    ----------
    classes_ : ndarray of int, shape (k,)
        Indices of all classes.
    n_features_in_ : int
        Values of a row.
    """

    def __init__(self, voters: Sequence[Voter], n_features: int) -> None:
        self.voters = tuple(voters)
        self.n_features_in_ = n_features
        self.classes_ = np.arange(len(self.voters[0].model.columns))

    @property
    def row_shape_(self) -> tuple[int, ...]:
        """Shape of a row."""
        whole = [voter.model.head for voter in self.voters if voter.columns is None]
        shape: tuple[int, ...] = getattr(whole[0], "row_shape_", (self.n_features_in_,)) if whole else ()
        return shape or (self.n_features_in_,)

    def predict_proba(self, X: NDArray[Any]) -> Floats:
        """Return the mean of what the models say of rows (n, …), shape (n, k)."""
        return np.asarray(sum(voter.weight * voter.model.say(voter.rows(X)) for voter in self.voters))

    def predict(self, X: NDArray[Any]) -> Floats:
        """Return the mean of the numbers that the models say, shape (n, t)."""
        return self.predict_proba(X)

    @property
    def knows_familiarity(self) -> bool:
        """Whether all of the models tell how unlike their training rows others are."""
        return all(voter.model.ood is not None for voter in self.voters)

    def familiarity(self, X: NDArray[Any]) -> Floats:
        """Return the mean of the models' familiarity of rows (n, …), shape (n,)."""
        return np.asarray(sum(v.weight * v.model.familiarity(v.rows(X)) for v in self.voters))

    def get_params(self) -> dict[str, Any]:
        """Return nothing: a vote has no settings, its models have."""
        return {}
