"""Independent pieces of work, on whatever joblib backend is set: one after another where none is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

Made = TypeVar("Made")


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
