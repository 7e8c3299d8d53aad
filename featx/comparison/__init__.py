"""The transfer comparison: frozen features, fine-tuning and training from scratch side by side, on the same rows.

`compare` in `api` does three things: `plan` lists every fit and checks its names, `run` loads the fits that the folder
holds and runs the others, `outcome` ranks what came of them. `settings` says what can be asked for, `subsets` which
images train, `board` draws tables.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featx.comparison.api import compare
    from featx.comparison.board import WAYS, head_of, name_of, names_of
    from featx.comparison.outcome import Comparison, lines_over_shots
    from featx.comparison.plan import parse_shots

__all__ = ["WAYS", "Comparison", "compare", "head_of", "lines_over_shots", "name_of", "names_of", "parse_shots"]

if not TYPE_CHECKING:  # the command line needs the settings alone, and not scikit-learn
    _HOMES = {"compare": "api", "Comparison": "outcome", "lines_over_shots": "outcome", "parse_shots": "plan"}

    def __getattr__(name: str) -> Any:
        if name in __all__:
            return getattr(importlib.import_module(f"featx.comparison.{_HOMES.get(name, 'board')}"), name)
        raise AttributeError(f"module 'featx.comparison' has no attribute {name!r}")
