"""How near predictions come to the truth, and which of these numbers may choose; intervals by resampling groups.

They are scikit-learn's by definition (`tests/test_target_models.py` holds them against it) without its checks: an
interval asks 500 times, and the checks take longer than the arithmetic.
"""

from featx.metrics.choosing import (
    METRIC_CHOICES,
    Metric,
    auroc,
    average_precision,
    balanced_accuracy,
    class_macro_f1,
    metric_of,
)
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
    "METRIC_CHOICES",
    "LabelScores",
    "Metric",
    "auroc",
    "average_precision",
    "average_precisions",
    "balanced_accuracy",
    "bootstrap_interval",
    "choose_thresholds",
    "class_macro_f1",
    "conformal_margins",
    "f1_score",
    "label_scores",
    "mean_absolute_error",
    "mean_average_precision",
    "metric_of",
    "r2_score",
    "root_mean_squared_error",
]
