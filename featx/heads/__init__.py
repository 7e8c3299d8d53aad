"""Classifiers on feature tables: scikit-learn estimators that know how to read a table in blocks.

Imported when first used, so that asking for one head loads no other's libraries.
"""

from __future__ import annotations

import importlib
from typing import Any

from featx.importing import imported_later

_HOMES = {
    "AttentiveHead": "featx.heads.attentive",
    "CentroidHead": "featx.heads.neighbors",
    "ConvHead": "featx.heads.dense",
    "DenseHead": "featx.heads.dense",
    "DenseRegressor": "featx.heads.dense",
    "KNNHead": "featx.heads.neighbors",
    "KNNRegressor": "featx.heads.neighbors",
    "LDAHead": "featx.heads.lda",
    "LogisticHead": "featx.heads.linear",
    "LogisticHeadCV": "featx.heads.logistic_cv",
    "RidgeHead": "featx.heads.ridge",
    "RidgeRegressor": "featx.heads.ridge",
    "SVMHead": "featx.heads.linear",
    "XGBoostHead": "featx.heads.boosted",
    "XGBoostRegressor": "featx.heads.boosted",
    "export_state": "featx.heads.state",
    "list_heads": "featx.heads.names",
    "make_head": "featx.heads.names",
    "restore_state": "featx.heads.state",
}


#: What scikit-learn and SciPy import for functions that nobody calls here: five times as long as all the rest.
_FOR_OTHERS = (
    *("numpy.f2py", "numpy.testing"),  # in ``from numpy import *``
    *("pandas", "narwhals", "narwhals.stable", "narwhals.stable.v2"),  # data frames
    "asyncio",  # joblib's, for functions of its own cache
    *("scipy.stats", "scipy.special"),
)
with imported_later(*_FOR_OTHERS):
    import sklearn.base  # noqa: F401

__all__ = sorted(_HOMES)  # noqa: PLE0605 - every name is a literal above


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'featx.heads' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
