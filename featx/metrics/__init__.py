"""How near predictions of several labels, or of numbers, come to the truth; intervals by resampling groups.

They are scikit-learn's by definition (`tests/test_target_models.py` holds them against it) without its checks: an
interval asks 500 times, and the checks take longer than the arithmetic.
"""

from featx.metrics.multilabel import (
    LabelScores,
    average_precisions,
    choose_thresholds,
    f1_score,
    label_scores,
    mean_average_precision,
)
from featx.metrics.regression import (
    conformal_margins,
    mean_absolute_error,
    r2_score,
    root_mean_squared_error,
)
from featx.metrics.resampling import bootstrap_interval

__all__ = [
    "LabelScores",
    "average_precisions",
    "bootstrap_interval",
    "choose_thresholds",
    "conformal_margins",
    "f1_score",
    "label_scores",
    "mean_absolute_error",
    "mean_average_precision",
    "r2_score",
    "root_mean_squared_error",
]
