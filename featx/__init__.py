"""featx: run a frozen backbone once, keep its features, fit classifiers on them in seconds.

Everything public is named in ``__all__`` and imported when first used, so that ``import featx``
stays under 0.2 s and never loads torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

#: Public name → module that defines it.
_HOMES = {
    "CentroidHead": "featx.heads",
    "Comparison": "featx.comparison",
    "ConvHead": "featx.heads",
    "DenseHead": "featx.heads",
    "FeatureExtractor": "featx.transformer",
    "Features": "featx.features",
    "FeatxError": "featx.errors",
    "FineTuneClassifier": "featx.finetuning",
    "KNNHead": "featx.heads",
    "LogisticHead": "featx.heads",
    "LogisticHeadCV": "featx.heads",
    "Model": "featx.model",
    "RayCluster": "featx.cluster",
    "Recipe": "featx.recipe",
    "Request": "featx.recipe",
    "Report": "featx.reporting",
    "RidgeHead": "featx.heads",
    "SVMHead": "featx.heads",
    "XGBoostHead": "featx.heads",
    "compare": "featx.comparison",
    "extract": "featx.extraction",
    "finetune": "featx.finetuning",
    "fit": "featx.model",
    "load": "featx.model",
    "report": "featx.reporting",
    "run_protocol": "featx.protocols",
}

__all__ = ["__version__", *sorted(_HOMES)]  # noqa: PLE0604 - every name is a literal above


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'featx' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
