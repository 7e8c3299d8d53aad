"""Settings chosen by trying them, on whatever joblib backend is set: one after another where none is."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from featx.errors import OptionError
from featx.model.report import Alternative
from featx.settings import parse_setting

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Fold = tuple[NDArray[np.intp], NDArray[np.intp]]

Grid = dict[str, list[Any]]
Made = TypeVar("Made")


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


def grid_search(
    score: Callable[[Any, Fold], float], estimator: Any, grid: Grid, folds: Sequence[Fold], metric: str = "accuracy"
) -> list[Alternative]:
    """Score every combination of `grid` on every fold, on whatever joblib backend is set: see `outcomes`.

    Parameters
    ----------
    score : callable
        From an unfitted head and a fold to its score on the rows that are held out; sent to the workers.
    estimator : classifier
        Unfitted; has the settings of `grid`.
    grid : dict of str to list
        From `parse_search`; empty for the estimator as it is.
    folds : sequence of (ndarray of int, ndarray of int)
        Positions that fit, and positions that choose.
    metric : str
        What `score` is called.
    """
    from sklearn.base import clone
    from sklearn.model_selection import ParameterGrid

    combinations = list(ParameterGrid(grid))
    heads = [clone(estimator).set_params(**settings) for settings in combinations]
    scores: list[float] = []
    for found in outcomes(score, itertools.product(heads, folds)):
        if isinstance(found, Exception):
            raise found
        scores.append(float(found))
    n = len(folds)
    return [
        Alternative(settings, tuple(scores[i * n : (i + 1) * n]), metric) for i, settings in enumerate(combinations)
    ]


def outcomes(work: Callable[..., Made], calls: Iterable[tuple[Any, ...]]) -> Iterator[Made | Exception]:
    """Yield what `work` returns for each of `calls`, or the exception that it raises, in their order.

    ``joblib.parallel_config`` says where the work is done: in processes (``"loky"``), on a Ray cluster (``"ray"``, once
    ``ray.util.joblib.register_ray`` was called), on Dask. A `featx.Features` of a file travels as its path, and each
    process reads the rows it needs; arrays in memory reach ``"loky"`` through a memory map, other backends as they are.
    Backends that cannot hand over results one by one (Ray's is one of them) hand over all at the end.

    Parameters
    ----------
    work : callable
        A function of a module, or a method of something that can be pickled.
    calls : iterable of tuple
        Its arguments.

    Examples
    --------
    >>> list(outcomes(int, [("7",), ("x",)]))
    [7, ValueError("invalid literal for int() with base 10: 'x'")]
    """
    from joblib import Parallel, delayed
    from joblib.parallel import get_active_backend

    one_by_one = get_active_backend()[0].supports_return_generator
    parallel = Parallel(return_as="generator" if one_by_one else "list")
    yield from parallel(delayed(_attempt)(work, call) for call in calls)


def _attempt(work: Callable[..., Made], call: tuple[Any, ...]) -> Made | Exception:
    """Return exceptions, which backends would wrap in others, each its own way."""
    try:
        return work(*call)
    except Exception as error:  # noqa: BLE001 - whoever asked for the work decides what its failures mean
        return error
