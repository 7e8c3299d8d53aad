"""Classifiers on feature tables: scikit-learn estimators that know how to read a table in blocks.

Imported when first used, so that asking for one head loads no other's libraries.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "CentroidHead": "featx.heads.neighbors",
    "ConvHead": "featx.heads.dense",
    "DenseHead": "featx.heads.dense",
    "KNNHead": "featx.heads.neighbors",
    "LogisticHead": "featx.heads.linear",
    "LogisticHeadCV": "featx.heads.logistic_cv",
    "RidgeHead": "featx.heads.ridge",
    "SVMHead": "featx.heads.linear",
    "XGBoostHead": "featx.heads.boosted",
    "export_state": "featx.heads.state",
    "list_heads": "featx.heads.names",
    "make_head": "featx.heads.names",
    "restore_state": "featx.heads.state",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - every name is a literal above


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'featx.heads' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
