"""The transfer comparison: frozen features, fine-tuning and training from scratch side by side, on the same rows.

From the bottom up: `subsets` (who trains on which images), `runs` (one fit, and one row of several seeds), `ledger`
(finished runs, kept), `bench` (what all rows have in common), `frozen` and `trained` (the two ways to a run),
`board` and `comparison` (what came of it), `api` (`compare`).
"""

from __future__ import annotations

from featx.comparison.api import compare, parse_shots
from featx.comparison.outcome import Comparison

__all__ = ["Comparison", "compare", "parse_shots"]
