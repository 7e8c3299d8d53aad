"""From a table to a fitted classifier, and from a classifier's file back to predictions on images."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import featx.heads  # noqa: F401 - before anything else imports scikit-learn, see there

if TYPE_CHECKING:
    from featx.model.fitting import fit
    from featx.model.model import Model, load
    from featx.model.network import Network
    from featx.model.predictions import Predictions
    from featx.model.report import Accuracy, FitReport
    from featx.model.tabulate import write_csv

__all__ = ["Accuracy", "FitReport", "Model", "Network", "Predictions", "fit", "load", "write_csv"]

if not TYPE_CHECKING:  # the command line needs the settings alone
    _HOMES = {"fit": "fitting", "Network": "network", "Predictions": "predictions", "write_csv": "tabulate"}
    _HOMES |= {"Accuracy": "report", "FitReport": "report", "Model": "model", "load": "model"}

    def __getattr__(name: str) -> Any:
        if name in __all__:
            return getattr(importlib.import_module(f"featx.model.{_HOMES[name]}"), name)
        raise AttributeError(f"module 'featx.model' has no attribute {name!r}")
