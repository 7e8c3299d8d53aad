"""``--jobs`` and ``--backend``: where fits that do not depend on each other are done."""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING, Any

import click

from featx.errors import MissingExtraError, OptionError

if TYPE_CHECKING:
    from collections.abc import Callable

_OPTIONS = [
    click.option("--jobs", type=int, metavar="N", help="Fits side by side; −1: all cores, or all of the cluster."),
    click.option("--backend", metavar="loky|ray|…", help="joblib's, that does them: ray is a cluster (RAY_ADDRESS)."),
]


def parallel_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add ``--jobs`` and ``--backend``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def parallel(jobs: int | None, backend: str | None) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which fits are done as the options say: one after another without any.

    Raises
    ------
    OptionError
        For a number of jobs, or a backend, that cannot be.
    MissingExtraError
        If Ray is asked for and not installed.
    """
    if jobs is None and backend is None:
        return contextlib.nullcontext()
    if jobs is not None and (jobs == 0 or jobs < -1):
        raise OptionError(f"--jobs takes a number of fits side by side, or -1 for all cores; got {jobs}.")
    import joblib

    if backend == "ray":
        _register_ray()
    try:
        config: contextlib.AbstractContextManager[Any] = joblib.parallel_config(
            backend=backend or "loky", n_jobs=-1 if jobs is None else jobs
        )
    except ValueError as error:
        raise OptionError(
            f"joblib has no backend {backend!r}; it has loky, threading, multiprocessing, ray."
        ) from error
    return config


def _register_ray() -> None:
    try:
        importlib.import_module("ray.util.joblib").register_ray()
    except ImportError as error:
        raise MissingExtraError.of("ray", "ray", "--backend ray") from error
