"""How good a classifier is, and how sure one can be of that.

`evaluate` takes a model and a table, `evaluate_predictions` plain arrays; both give an `Evaluation`.
"""

from __future__ import annotations

from featx.evaluation.drifting import Drift, Shift, drift
from featx.evaluation.evaluation import Evaluation, evaluate_predictions
from featx.evaluation.levels import Level, LevelScores, read_levels
from featx.evaluation.metrics import ClassScores, Confusion, McNemar, ReliabilityBin, mcnemar
from featx.evaluation.on_table import HeldOut, evaluate, held_out
from featx.evaluation.targets import HeldOutTargets, NumberScores, TargetEvaluation, held_out_targets

__all__ = [
    "ClassScores",
    "Confusion",
    "Drift",
    "Evaluation",
    "HeldOut",
    "HeldOutTargets",
    "Level",
    "LevelScores",
    "McNemar",
    "NumberScores",
    "ReliabilityBin",
    "Shift",
    "TargetEvaluation",
    "drift",
    "evaluate",
    "evaluate_predictions",
    "held_out",
    "held_out_targets",
    "mcnemar",
    "read_levels",
]
