"""Whether two classifiers differ on the same rows by more than chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(frozen=True)
class McNemar:
    """Outcome of McNemar's test.

    Attributes
    ----------
    only_a, only_b : int
        Rows that only the first, or only the second classifier has right. Rows on which both are right
        or both are wrong say nothing about their difference.
    p_value : float
        Two-sided, exact: how often a fair coin would split those rows at least as unevenly.
    """

    only_a: int
    only_b: int
    p_value: float


def mcnemar(y_true: ArrayLike, a: ArrayLike, b: ArrayLike) -> McNemar:
    """Test whether predictions `a` and `b` of the same rows are right equally often.

    Parameters
    ----------
    y_true, a, b : array_like, shape (n,)
        True labels and two vectors of predicted ones.

    Notes
    -----
    The exact binomial form: Q. McNemar, "Note on the sampling error of the difference between correlated
    proportions", Psychometrika 1947.

    Examples
    --------
    >>> mcnemar([0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1])
    McNemar(only_a=6, only_b=0, p_value=0.03125)
    """
    from scipy.stats import binomtest

    truth, first, second = (np.asarray(labels) for labels in (y_true, a, b))
    if not truth.shape == first.shape == second.shape or truth.ndim != 1:
        raise ValueError(f"need three vectors of one length, got {truth.shape}, {first.shape} and {second.shape}")
    a_right, b_right = first == truth, second == truth
    only_a, only_b = int((a_right & ~b_right).sum()), int((b_right & ~a_right).sum())
    p_value = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return McNemar(only_a, only_b, p_value)
