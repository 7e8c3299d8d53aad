"""How much better a head does on groups that it has learned from: what scores on both would be too good by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from featx.model.target_fitting import FittedTargets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featx.model.fitter import Fitted
    from featx.model.outputs import Outputs


def known_groups(
    fitted: Fitted, taught: NDArray[np.intp], parts: dict[str, NDArray[np.intp]], outputs: Outputs | None
) -> list[str]:
    """Say how a head does on rows whose group it has learned from, and on others, where there are such.

    Parameters
    ----------
    fitted : Fitted
    taught : ndarray of int
        Rows of its table that it was fitted on.
    parts : dict of str to ndarray of int
        Rows to be scored, by name.
    outputs : Outputs or None
        Of labels or numbers.
    """
    groups, said = fitted.table.groups, []
    for name, rows in parts.items():
        known = (groups[rows] != "") & np.isin(groups[rows], groups[taught])
        if not known.any():
            continue
        if known.all():
            said.append(
                f"Every {name} row is of a group that was trained on, so what a new group would give is not known. "
                "Leave out the given splits, and whole groups are drawn."
            )
            continue
        values = [_value(fitted, part, outputs) for part in (rows[known], rows[~known])]
        if None not in values:
            (a, told), (b, other) = (value for value in values if value is not None)
            said.append(
                f"{name}: {told} on {known.sum():,} rows of groups that were trained on, {other} on {(~known).sum():,} "
                f"of new ones, a gap of {a - b:.3g}. New groups will see the latter."
            )
    return said


def _value(fitted: Fitted, rows: NDArray[np.intp], outputs: Outputs | None) -> tuple[float, str] | None:
    """Return what is judged by on some rows, and in words; None where it is not defined."""
    if outputs is not None and isinstance(fitted, FittedTargets):
        score = fitted.score(rows, outputs)
        return None if score is None or np.isnan(score.value) else (score.value, f"{score.value:.3f}")
    accuracy = fitted.accuracy(rows)
    return None if accuracy is None else (100 * accuracy.value, f"{100 * accuracy.value:.1f} %")
