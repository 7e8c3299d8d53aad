"""How good a classifier is, and how sure one can be of that.

`evaluate` takes plain arrays, `evaluate_model` a model and a table; both give an `Evaluation`.
"""

from __future__ import annotations

from featx.evaluate.evaluation import Evaluation, evaluate
from featx.evaluate.metrics import ClassScores, Confusion, McNemar, ReliabilityBin, mcnemar
from featx.evaluate.mislabelled import Mislabelled, Suspect, find_mislabelled, label_errors, out_of_fold
from featx.evaluate.on_table import HeldOut, evaluate_model, held_out

__all__ = [
    "ClassScores",
    "Confusion",
    "Evaluation",
    "HeldOut",
    "McNemar",
    "Mislabelled",
    "ReliabilityBin",
    "Suspect",
    "evaluate",
    "evaluate_model",
    "find_mislabelled",
    "held_out",
    "label_errors",
    "mcnemar",
    "out_of_fold",
]
