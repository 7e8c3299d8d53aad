"""From a table to a fitted classifier, and from a classifier's file back to predictions on images."""

from __future__ import annotations

from featx.model.accuracy import Accuracy
from featx.model.fitting import fit
from featx.model.model import Model, Network
from featx.model.predictions import Predictions
from featx.model.saving import load
from featx.model.tabulate import write_csv

__all__ = ["Accuracy", "Model", "Network", "Predictions", "fit", "load", "write_csv"]
