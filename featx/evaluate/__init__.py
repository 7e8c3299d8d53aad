"""How good a classifier is, and how sure one can be of that.

`evaluate` takes plain arrays, `evaluate_model` a model and a table; both give an `Evaluation`.
"""

from __future__ import annotations

from featx.evaluate.evaluation import Evaluation, evaluate
from featx.evaluate.metrics import ClassScores, Confusion, McNemar, ReliabilityBin, mcnemar
from featx.evaluate.on_table import HeldOut, evaluate_model, held_out

__all__ = [
    "ClassScores",
    "Confusion",
    "Evaluation",
    "HeldOut",
    "McNemar",
    "ReliabilityBin",
    "evaluate",
    "evaluate_model",
    "held_out",
    "mcnemar",
]
