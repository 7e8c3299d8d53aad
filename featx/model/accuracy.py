"""How often predictions are right, and how sure one can be of that number."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

#: Two-sided 95 % quantile of the standard normal distribution.
_Z = 1.959963984540054


@dataclass(frozen=True)
class Accuracy:
    """A share of right answers with its 95 % interval.

    Attributes
    ----------
    n : int
        Number of answers, at least 1.
    n_correct : int
        Number of right ones, 0–`n`.

    Examples
    --------
    >>> print(Accuracy(n=200, n_correct=180))
    90.0 % (85.1–93.4 %, n = 200)
    """

    n: int
    n_correct: int

    def __post_init__(self) -> None:
        if not 0 <= self.n_correct <= self.n or self.n < 1:
            raise ValueError(f"need 0 ≤ n_correct ≤ n and n ≥ 1, got {self.n_correct} of {self.n}")

    @property
    def value(self) -> float:
        """Share of right answers, 0–1."""
        return self.n_correct / self.n

    @property
    def ci95(self) -> tuple[float, float]:
        """Wilson score interval at 95 %.

        Unlike the textbook ``p ± 1.96·√(p(1-p)/n)`` it stays within 0–1 and has its coverage at small `n`
        and near 0 and 1, where good classifiers live.

        Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.

        Examples
        --------
        >>> low, high = Accuracy(n=10, n_correct=10).ci95
        >>> round(low, 3), high
        (0.722, 1.0)
        """
        # The p₀ for which |p - p₀| = z·√(p₀(1 - p₀)/n), a quadratic in p₀.
        p, shrink = self.value, _Z**2 / self.n
        centre = (p + shrink / 2) / (1 + shrink)
        half = math.sqrt(shrink * p * (1 - p) + shrink**2 / 4) / (1 + shrink)
        return (0.0 if self.n_correct == 0 else centre - half, 1.0 if self.n_correct == self.n else centre + half)

    def to_dict(self) -> dict[str, Any]:
        """Return ``{"n", "accuracy", "ci95"}``, ready for JSON."""
        return {"n": self.n, "accuracy": self.value, "ci95": list(self.ci95)}

    def __str__(self) -> str:
        low, high = self.ci95
        return f"{self.value:.1%} ({100 * low:.1f}–{high:.1%}, n = {self.n:,})".replace("%", " %")
