"""`RayCluster`: hand it to an extraction, and the nodes of a Ray cluster compute it; and how a cluster is reached."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import secrets
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any

from featx.cluster.pool import WorkerPool
from featx.cluster.scheduler import Scheduler
from featx.cluster.worker import Task
from featx.errors import ClusterError, MissingExtraError, OptionError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from featx.cluster.worker import Done
    from featx.extraction.plan import Plan, Segment
    from featx.extraction.segments import Tally
    from featx.progress import OnProgress
    from featx.store import Store

#: Longest wait for a connection.
_CONNECT_SECONDS = 10.0
_FORMS = "ray, ray://auto, ray://local, ray://HOST:10001 (Ray Client) or ray:HOST:6379"


class RayCluster:
    """Computes features on the nodes of a Ray cluster, to the same tables as one machine would.

    Every node must see the cache folder and the images under the same paths, and have the same featx,
    PyTorch and Python. A worker takes up to 8 cores, or one GPU and its share of the cores; nodes that
    join are used, and those that die are done without.

    Parameters
    ----------
    address : str
        As `ray.init` takes it: ``"auto"`` (``RAY_ADDRESS``, or the cluster this machine is part of), ``"local"``
        (start one here), ``"HOST:6379"``, or ``"ray://HOST:10001"`` (Ray Client, from outside of the cluster).

    Attributes
    ----------
    done : list of Done
        What came back of each segment, in the order of arrival: by whom, on which node.

    Raises
    ------
    MissingExtraError
        If Ray is not installed.

    Examples
    --------
    ``featx.extract("/shared/photos", cache="/shared/cache", cluster=featx.RayCluster())``
    """

    def __init__(self, address: str = "auto") -> None:
        try:
            self._ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise MissingExtraError.of("ray", "ray", "--cluster ray") from error
        self.address = address
        self.done: list[Done] = []

    @classmethod
    def parse(cls, text: str) -> RayCluster:
        """Return the cluster that ``--cluster`` asks for.

        Raises
        ------
        OptionError
            If it is of another form.
        """
        return cls(parse_address(text))

    def run(self, plan: Plan, segment: Segment, on_progress: OnProgress | None) -> Tally:
        """Have every row of `segment` computed and committed.

        Raises
        ------
        OptionError
            If the images are in memory.
        ClusterError
            If the cluster cannot be reached, its nodes differ, or they do not see the cache or the images.
        """
        task, cache = Task.of(plan, segment), str(plan.store.root.absolute())
        with (
            connected(self._ray, self.address),
            _token(plan.store) as token,
            WorkerPool(self._ray, cache, plan.options.device) as pool,
        ):
            return Scheduler(pool, task, token, plan, segment, on_progress, self.done).run()


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
        _check_port(address)
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


def _check_port(address: str) -> None:
    """Connect to ``HOST:PORT`` once: where nobody listens, Ray would keep trying for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()


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


@contextlib.contextmanager
def _token(store: Store) -> Iterator[str]:
    """Leave a record in the cache for the length of a block, by which a node knows that it sees the same folder."""
    name = f"cluster-{secrets.token_hex(8)}"
    store.put_record(name, {"token": name})
    try:
        yield name
    finally:
        store.drop_record(name)
