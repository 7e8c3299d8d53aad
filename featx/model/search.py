"""Settings chosen by trying them: grids over a head's settings, scored on rows it was not fitted on."""

from __future__ import annotations

import itertools
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import OptionError
from featx.heads.settings import parse_setting
from featx.model.parallel import outcomes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Fold = tuple[NDArray[np.intp], NDArray[np.intp]]

Grid = dict[str, list[Any]]


def parse_search(spec: str, defaults: Mapping[str, Any] | None = None) -> Grid:
    """Return the alternatives of each setting that ``--search`` names.

    Commas separate alternatives; where a value has commas of its own, bars do. Quotes keep spaces. What the settings
    are by default helps to read them: see `parse_setting`.

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
        grid[name] = [parse_setting(text, (defaults or {}).get(name)) for text in alternatives]
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
        scores = {"accuracy": self.accuracy, "sd": sd, "accuracies": list(self.accuracies)}
        return {"settings": spelled(self.settings), **scores}


def spelled(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with infinity as a word: JSON has no such number, and ``C=inf`` means no penalty.

    Examples
    --------
    >>> spelled({"C": float("inf"), "dropout": 0.3})
    {'C': 'inf', 'dropout': 0.3}
    """
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in settings.items()
    }


def grid_search(
    accuracy: Callable[[Any, Fold], float], estimator: Any, grid: Grid, folds: Sequence[Fold]
) -> list[Trial]:
    """Score every combination of `grid` on every fold, on whatever joblib backend is set: see `outcomes`.

    Parameters
    ----------
    accuracy : callable
        From an unfitted head and a fold to the accuracy on the rows it holds out; sent to the workers.
    estimator : classifier
        Unfitted; has the settings of `grid`.
    grid : dict of str to list
        From `parse_search`; empty for the estimator as it is.
    folds : sequence of (ndarray of int, ndarray of int)
        Positions that fit, and positions that choose.
    """
    from sklearn.base import clone
    from sklearn.model_selection import ParameterGrid

    combinations = list(ParameterGrid(grid))
    heads = [clone(estimator).set_params(**settings) for settings in combinations]
    scores = np.array([_score(found) for found in outcomes(accuracy, itertools.product(heads, folds))])
    return [
        Trial(settings, tuple(row))
        for settings, row in zip(combinations, scores.reshape(-1, len(folds)).tolist(), strict=True)
    ]


def _score(outcome: float | Exception) -> float:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
