"""Classifiers on feature tables: scikit-learn estimators that know how to read a table in blocks.

Imported when first used, so that asking for one head loads no other's libraries.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_HOMES = {
    "CentroidHead": "featx.heads.neighbors",
    "ConvHead": "featx.heads.dense",
    "DenseHead": "featx.heads.dense",
    "KNNHead": "featx.heads.neighbors",
    "LogisticHead": "featx.heads.linear",
    "LogisticHeadCV": "featx.heads.logistic_cv",
    "RidgeHead": "featx.heads.ridge",
    "RidgeRegressor": "featx.heads.ridge",
    "SVMHead": "featx.heads.linear",
    "XGBoostHead": "featx.heads.boosted",
    "export_state": "featx.heads.state",
    "list_heads": "featx.heads.names",
    "make_head": "featx.heads.names",
    "restore_state": "featx.heads.state",
}


class _Later(ModuleType):
    """Stands for a module until somebody asks it for something."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def _imported_later(*names: str) -> Iterator[None]:
    """Let imports of these modules in a block wait until they are used: those that are not loaded yet, and can be.

    After the block everything is as if it had not been there: who imports them then gets the modules themselves.
    """
    stand_ins = {name: _Later(name) for name in names if name not in sys.modules and find_spec(name)}
    for name, stand_in in stand_ins.items():
        parent, _, child = name.rpartition(".")
        sys.modules[name] = stand_in
        if parent:
            setattr(sys.modules[parent], child, stand_in)
    try:
        yield
    finally:
        for name, stand_in in stand_ins.items():
            parent, _, child = name.rpartition(".")
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]
            if parent and vars(sys.modules[parent]).get(child) is stand_in:
                delattr(sys.modules[parent], child)  # numpy and scipy import it when it is asked for


# scikit-learn imports them for functions that nobody calls here, which takes four times as long as itself.
with _imported_later("pandas", "scipy.stats", "numpy.f2py"):
    import sklearn.base  # noqa: F401

__all__ = sorted(_HOMES)  # noqa: PLE0605 - every name is a literal above


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'featx.heads' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
