"""How good a classifier is, and how sure one can be of that.

`evaluate` takes a model and a table, `evaluate_predictions` plain arrays; both give an `Evaluation`.
"""

from __future__ import annotations

from featx.evaluation.evaluation import Evaluation, evaluate_predictions
from featx.evaluation.metrics import ClassScores, Confusion, McNemar, ReliabilityBin, mcnemar
from featx.evaluation.mislabelled import Mislabelled, Suspect, find_mislabelled, label_errors, out_of_fold
from featx.evaluation.on_table import HeldOut, evaluate, held_out
from featx.evaluation.targets import HeldOutTargets, NumberScores, TargetEvaluation, held_out_targets

__all__ = [
    "ClassScores",
    "Confusion",
    "Evaluation",
    "HeldOut",
    "HeldOutTargets",
    "McNemar",
    "Mislabelled",
    "NumberScores",
    "ReliabilityBin",
    "Suspect",
    "TargetEvaluation",
    "evaluate",
    "evaluate_predictions",
    "find_mislabelled",
    "held_out",
    "held_out_targets",
    "label_errors",
    "mcnemar",
    "out_of_fold",
]
