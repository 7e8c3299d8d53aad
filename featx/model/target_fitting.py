"""Fitting labels or numbers, in place of one class a row: the way of `featx.model.fitting` with other scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import DataError
from featx.model.fitter import Fitted, HeadFitter
from featx.model.outputs import Outputs
from featx.model.rows import given_groups

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featx.model.outputs import TargetScore
    from featx.model.rows import Parts
    from featx.model.scaling import FeatureScaler
    from featx.targets import Targets

    Positions = NDArray[np.intp]
    Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class FittedTargets(Fitted):
    """A fitted head of labels or numbers."""

    targets: Targets

    def outputs(self, positions: Positions) -> tuple[Floats, Floats]:
        """Return the truth and what the head says, both (n, t), of some rows."""
        truth = self.targets.array[positions].astype(np.float64)
        found, says = np.empty(truth.shape), Outputs(self.targets.task, self.targets.names)
        for where, X in self.table.select(positions).blocks(self.block_bytes):
            found[where] = says.of(self.head, self.scaler.transform(X))
        return truth, found

    def learned(self, positions: Positions) -> Outputs:
        """Return what validation rows tell of the outputs."""
        return Outputs.learn(self.targets.task, self.targets.names, *self.outputs(positions))

    def score(self, positions: Positions, says: Outputs) -> TargetScore | None:
        """Return how near the head comes on some rows; None for no rows."""
        return says.score(*self.outputs(positions), given_groups(self.table, positions)) if len(positions) else None


@dataclass(frozen=True, kw_only=True)
class TargetFitter(HeadFitter):
    """How heads of labels or numbers are fitted on a table."""

    targets: Targets

    @property
    def task(self) -> str:
        """What heads tell of a row."""
        return self.targets.task

    def labels(self, positions: Positions) -> NDArray[Any]:
        """Return what heads learn of rows: labels as 0 and 1, or numbers."""
        y = self.targets.y[positions]
        return y.astype(np.int64) if self.targets.task == "multilabel" else y

    def strata(self, positions: Positions) -> NDArray[np.int64]:
        """Return what rows count as when they are cut into folds; what too few rows count as is one."""
        strata = self.targets.strata[positions]
        return np.where(np.bincount(strata)[strata] < 2, len(self.targets.strata_names), strata)

    def guiding(self, val: Positions, taught: Positions) -> Positions:  # noqa: ARG002 - of classes it takes both
        """Return all rows `val`: there is no label that train does not have."""
        return val

    def fitted(self, scaler: FeatureScaler, head: Any) -> FittedTargets:
        """Return a fitted head behind its scaling."""
        return FittedTargets(self.table, scaler, head, self.block_bytes, self.origin, targets=self.targets)


def learnable(targets: Targets, rows: Parts) -> tuple[NDArray[np.intp], list[str]]:
    """Return which targets the training rows can teach, and what to say of the others.

    Raises
    ------
    DataError
        If there are none.
    """
    taught, said = targets.array[rows.train], []
    varies = np.array([len(np.unique(column)) > 1 for column in taught.T])
    for k in np.flatnonzero(~varies).tolist():
        name, only = targets.names[k], taught[0, k]
        if targets.task == "regress":
            said.append(f"{name!r} is {only:g} in every training row: it is left out of the model.")
            continue
        elsewhere = int((targets.array[np.concatenate([rows.val, rows.test]), k] != only).sum())
        which = "every training row has" if only else "no training row has"
        also = f" (and {elsewhere:,} of validation and test)" if elsewhere and not only else ""
        said.append(f"The label {name!r} is one that {which}{also}: it is left out of the model.")
    if not varies.any():
        raise DataError(f"There is nothing to learn. {said[0]} Give rows that differ, or name other columns.")
    lacking = int((~targets.known & ~np.isnan(targets.array).all(axis=1)).sum())
    if lacking:
        said.append(
            f"Rows that lack some of their {len(targets.names):,} targets are left out of the fit: {lacking:,}."
        )
    return np.flatnonzero(varies), said
