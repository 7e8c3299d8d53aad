"""Reaching a Ray cluster: what ``--cluster`` may say, and what Ray says when there is none."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any

from featx.errors import ClusterError, MissingExtraError, OptionError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Longest wait for a connection.
_KNOCK_SECONDS = 10.0
_FORMS = "ray, ray://auto, ray://local, ray://HOST:10001 (Ray Client) or ray:HOST:6379"


def load_ray() -> Any:
    """Import Ray.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise MissingExtraError.of("ray", "ray", "--cluster ray") from error


def parse_address(text: str) -> str:
    """Return the address for `ray.init` that ``--cluster`` asks for.

    Examples
    --------
    >>> parse_address("ray"), parse_address("ray://local"), parse_address("ray://head:10001")
    ('auto', 'local', 'ray://head:10001')
    >>> parse_address("ray:10.0.0.1:6379")
    '10.0.0.1:6379'
    """
    kind, colon, rest = text.partition(":")
    place = rest.removeprefix("//")
    if kind != "ray" or (colon and not place):
        raise OptionError(f"--cluster takes {_FORMS}; got {text!r}.")
    if not colon:
        return "auto"
    return text if rest.startswith("//") and place not in ("auto", "local") else place


@contextlib.contextmanager
def connected(ray: Any, address: str) -> Iterator[None]:
    """Be connected to the cluster at `address` for the length of a block; a connection that is there already is used.

    Raises
    ------
    ClusterError
        If there is no cluster, or it is of another version or refuses us.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of a cluster that is started here
    try:
        _knock(address)
        with _own_signals():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ClusterError(
            f"No Ray cluster can be reached at {address}: {first.rstrip('.')}. "
            "Start one with `ray start --head` and `ray start --address HEAD:6379`, or see `ray status`."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Connect to ``HOST:PORT`` once: where nobody listens, Ray would keep trying for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_KNOCK_SECONDS).close()


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep our handler of SIGTERM, in whose place Ray puts its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
