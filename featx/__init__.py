"""featx: run a frozen backbone once, keep its features, fit classifiers on them in seconds.

Everything public is named in ``__all__`` and imported when first used, so that ``import featx``
stays under 0.2 s and never loads torch. Type checkers and editors see it all.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featx.attribution import Saliency as Saliency
    from featx.attribution import saliency as saliency
    from featx.cluster import RayCluster as RayCluster
    from featx.comparison import Comparison as Comparison
    from featx.comparison import compare as compare
    from featx.curation import Listing as Listing
    from featx.curation.doubts import doubts as doubts
    from featx.curation.duplicates import duplicates as duplicates
    from featx.curation.search import search as search
    from featx.curation.suggest import suggest as suggest
    from featx.datasets import open_dataset as open_dataset
    from featx.errors import FeatxError as FeatxError
    from featx.evaluation import Evaluation as Evaluation
    from featx.evaluation import drift as drift
    from featx.evaluation import evaluate as evaluate
    from featx.extraction import extract as extract
    from featx.features import Features as Features
    from featx.features import join as join
    from featx.finetuning import FineTuneClassifier as FineTuneClassifier
    from featx.finetuning import finetune as finetune
    from featx.heads.attentive import AttentiveHead as AttentiveHead
    from featx.heads.boosted import XGBoostHead as XGBoostHead
    from featx.heads.boosted import XGBoostRegressor as XGBoostRegressor
    from featx.heads.dense import ConvHead as ConvHead
    from featx.heads.dense import DenseHead as DenseHead
    from featx.heads.dense import DenseRegressor as DenseRegressor
    from featx.heads.lda import LDAHead as LDAHead
    from featx.heads.linear import LogisticHead as LogisticHead
    from featx.heads.linear import SVMHead as SVMHead
    from featx.heads.logistic_cv import LogisticHeadCV as LogisticHeadCV
    from featx.heads.neighbors import CentroidHead as CentroidHead
    from featx.heads.neighbors import KNNHead as KNNHead
    from featx.heads.neighbors import KNNRegressor as KNNRegressor
    from featx.heads.ridge import RidgeHead as RidgeHead
    from featx.heads.ridge import RidgeRegressor as RidgeRegressor
    from featx.model import AutoHead as AutoHead
    from featx.model import AutoRegressor as AutoRegressor
    from featx.model import Model as Model
    from featx.model import Predictions as Predictions
    from featx.model import ensemble as ensemble
    from featx.model import fit as fit
    from featx.model import load as load
    from featx.packing import PackedModel as PackedModel
    from featx.packing import pack as pack
    from featx.protocols import run_protocol as run_protocol
    from featx.recipe import Recipe as Recipe
    from featx.recipe import Request as Request
    from featx.reporting import Report as Report
    from featx.reporting.report import report as report
    from featx.sharing import card as card
    from featx.sharing import push as push
    from featx.transformer import FeatureExtractor as FeatureExtractor

__version__ = "0.1.0"

#: Module → public names that it defines.
_HOMES = {
    "attribution": ("Saliency", "saliency"),
    "cluster": ("RayCluster",),
    "comparison": ("Comparison", "compare"),
    "curation": ("Listing", "doubts", "duplicates", "search", "suggest"),
    "datasets": ("open_dataset",),
    "errors": ("FeatxError",),
    "evaluation": ("Evaluation", "drift", "evaluate"),
    "extraction": ("extract",),
    "features": ("Features", "join"),
    "finetuning": ("FineTuneClassifier", "finetune"),
    "heads": (
        *("AttentiveHead", "CentroidHead", "ConvHead", "DenseHead", "DenseRegressor", "KNNHead", "KNNRegressor"),
        *("LDAHead", "LogisticHead", "LogisticHeadCV", "RidgeHead", "RidgeRegressor", "SVMHead"),
        *("XGBoostHead", "XGBoostRegressor"),
    ),
    "model": ("AutoHead", "AutoRegressor", "Model", "Predictions", "ensemble", "fit", "load"),
    "packing": ("PackedModel", "pack"),
    "protocols": ("run_protocol",),
    "recipe": ("Recipe", "Request"),
    "reporting": ("Report", "report"),
    "sharing": ("card", "push"),
    "transformer": ("FeatureExtractor",),
}
_ROOMS = {name: f"featx.{room}" for room, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_ROOMS)]  # noqa: PLE0604 - every name is a literal above

if not TYPE_CHECKING:  # for a type checker a name that is not above is an error

    def __getattr__(name: str) -> Any:
        if name in _ROOMS:
            return getattr(importlib.import_module(_ROOMS[name]), name)
        raise AttributeError(f"module 'featx' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
