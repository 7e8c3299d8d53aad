"""From a table to a fitted classifier, and from a classifier's file back to predictions on images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx.importing import later

if TYPE_CHECKING:
    from featx.model.auto_head import AutoHead, AutoRegressor
    from featx.model.ensembles import ensemble
    from featx.model.fitting import fit
    from featx.model.model import Model, load
    from featx.model.network import Network
    from featx.model.predictions import Predictions
    from featx.model.report import Accuracy, FitReport
    from featx.model.tabulate import write_csv

__all__ = [
    "Accuracy", "AutoHead", "AutoRegressor", "FitReport", "Model", "Network", "Predictions", "ensemble", "fit", "load",
    "write_csv",
]  # fmt: skip

if not TYPE_CHECKING:  # for a type checker a name that is not above is an error
    __getattr__ = later(
        __name__,
        {
            "featx.model.auto_head": "AutoHead AutoRegressor",
            "featx.model.ensembles": "ensemble",
            "featx.model.fitting": "fit",
            "featx.model.model": "Model load",
            "featx.model.network": "Network",
            "featx.model.predictions": "Predictions",
            "featx.model.report": "Accuracy FitReport",
            "featx.model.tabulate": "write_csv",
        },
    )
