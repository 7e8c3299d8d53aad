"""Settings chosen by trying them: grids over a head's settings, scored on rows it was not fitted on."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import OptionError
from featx.heads.settings import parse_setting

if TYPE_CHECKING:
    from numpy.typing import NDArray

Grid = dict[str, list[Any]]


def parse_search(spec: str) -> Grid:
    """Return the alternatives of each setting that ``--search`` names.

    Commas separate alternatives; where a value has commas of its own, bars do. Quotes keep spaces.

    Examples
    --------
    >>> parse_search("C=0.1,1,10 hidden=256,128|512 layers='256 relu|512 relu'")
    {'C': [0.1, 1, 10], 'hidden': [(256, 128), 512], 'layers': ['256 relu', '512 relu']}
    """
    grid: Grid = {}
    try:
        words = shlex.split(spec)
    except ValueError as error:
        raise OptionError(f"--search {spec!r} has a quote without its partner.") from error
    for word in words:
        name, equals, values = word.partition("=")
        alternatives = values.split("|" if "|" in values else ",")
        if not (name and equals and all(alternatives)) or name in grid:
            raise OptionError(f'--search takes settings with their alternatives, as "C=0.1,1,10", got {word!r}.')
        grid[name] = [parse_setting(text) for text in alternatives]
    if not grid:
        raise OptionError('--search takes settings with their alternatives, as "C=0.1,1,10 dropout=0,0.3".')
    return grid


@dataclass(frozen=True)
class Trial:
    """One combination of settings, and the accuracy on each fold's held-out rows."""

    settings: dict[str, Any]
    accuracies: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        """Mean over folds."""
        return float(np.mean(self.accuracies))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; the standard deviation is null for a single fold."""
        sd = float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else None
        return {"settings": self.settings, "accuracy": self.accuracy, "sd": sd, "accuracies": list(self.accuracies)}


def grid_search(pipeline: Any, grid: Grid, X: NDArray[Any], y: NDArray[np.int64], folds: Any) -> list[Trial]:
    """Score every combination of `grid`, on whatever joblib backend is set.

    Parameters
    ----------
    pipeline : sklearn.pipeline.Pipeline
        Its step ``head`` has the settings of `grid`.
    grid : dict of str to list
        From `parse_search`; empty for the pipeline as it is.
    X, y : ndarray, shapes (n, …) and (n,)
        Rows that fit and rows that choose.
    folds : cross-validation splitter
        Which is which.
    """
    from sklearn.model_selection import GridSearchCV

    prefixed = {f"head__{name}": values for name, values in grid.items()}
    search = GridSearchCV(pipeline, prefixed, cv=folds, scoring="accuracy", refit=False, error_score="raise").fit(X, y)
    found = search.cv_results_
    scores = np.column_stack([found[f"split{fold}_test_score"] for fold in range(search.n_splits_)])
    return [
        Trial({name.removeprefix("head__"): value for name, value in params.items()}, tuple(row))
        for params, row in zip(found["params"], scores.tolist(), strict=True)
    ]
