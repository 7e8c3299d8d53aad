"""From a table to a fitted classifier, and from a classifier's file back to predictions on images."""

from __future__ import annotations

import featx.heads  # noqa: F401 - before anything else imports scikit-learn, see there
from featx.model.fitting import fit
from featx.model.model import Model, load
from featx.model.network import Network
from featx.model.predictions import Predictions
from featx.model.report import Accuracy, FitReport
from featx.model.tabulate import write_csv

__all__ = ["Accuracy", "FitReport", "Model", "Network", "Predictions", "fit", "load", "write_csv"]
