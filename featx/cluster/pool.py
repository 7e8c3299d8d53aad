"""The `WorkerPool`: worker actors on every node that has room, replaced where they die.

`ray.util.ActorPool` would not do: it has a fixed list of actors, and stops at the first that is lost.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from featx.cluster.worker import Worker

log = logging.getLogger("featx")

#: More threads than this on one batch mostly wait for each other: a node with more cores gets several workers.
MOST_CPUS = 8
#: Workers that may die one after another at one place, without finishing a segment, before it is given up.
MOST_DEATHS = 3
#: Pause before a place is filled again: Ray takes some seconds to learn that a node is gone.
PAUSE_SECONDS = 3.0
#: Longest wait for answers to questions about progress.
_PROGRESS_SECONDS = 0.5


@dataclass(frozen=True)
class Place:
    """Room for one worker: the node, a number on it, and what is reserved there."""

    node: str
    number: int
    cpus: int
    gpus: int


@dataclass(eq=False)
class WorkerHandle:
    """A worker, its place, and the method it was asked to run last."""

    place: Place
    host: str
    actor: Any
    method: str = ""
    args: tuple[Any, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Lost:
    """In the place of an answer: the worker is gone, and why."""

    reason: str


class WorkerPool:
    """All workers of one extraction.

    Parameters
    ----------
    ray : module
        Connected.
    cache : str
        The cache folder, absolute.
    device : str
        As in `Options`; unless it is ``cpu``, a cluster with GPUs works on its GPUs, one worker each.

    Attributes
    ----------
    is_lost : bool
        Whether every place has been given up: no worker is left, and none will be started.
    """

    def __init__(self, ray: Any, cache: str, device: str) -> None:
        self._ray, self._cache, self._device = ray, cache, device
        ray.method(concurrency_group="progress")(Worker.progress)  # at the call, Ray Client would not take it
        self._actor = ray.remote(concurrency_groups={"progress": 1})(Worker)
        self._workers: dict[Place, WorkerHandle] = {}
        self._asked: dict[Any, WorkerHandle] = {}
        self._deaths: Counter[Place] = Counter()
        self._died_at: dict[Place, float] = {}
        self.is_lost = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for worker in self._workers.values():
            self._ray.kill(worker.actor)

    @property
    def n_places(self) -> int:
        """How many workers there can be as the cluster is now."""
        return len(self._workers)

    @property
    def is_at_work(self) -> bool:
        """Whether any worker has got further than to wait for free cores."""
        return any(worker.method != "handshake" for worker in self._asked.values())

    def start_missing(self) -> list[WorkerHandle]:
        """Start a worker at every place that has none, and return those that are new."""
        nodes = {node["NodeID"]: node for node in self._nodes()}
        places = [place for node in nodes.values() for place in self._places(node)]
        good = [place for place in places if self._deaths[place] <= MOST_DEATHS]
        self.is_lost = bool(places) and not good
        new = []
        for place in good:
            rested = time.monotonic() - self._died_at.get(place, -math.inf) >= PAUSE_SECONDS
            if place not in self._workers and rested:
                host = nodes[place.node]["NodeManagerHostname"]
                self._workers[place] = WorkerHandle(place, host, self._start(place))
                new.append(self._workers[place])
        return new

    def _nodes(self) -> list[dict[str, Any]]:
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        with_gpu = [node for node in nodes if self._device != "cpu" and node["Resources"].get("GPU", 0) >= 1]
        return with_gpu or nodes

    def _places(self, node: dict[str, Any]) -> Iterator[Place]:
        cpus = int(node["Resources"].get("CPU", 0))
        gpus = int(node["Resources"].get("GPU", 0)) if self._device != "cpu" else 0
        n = min(gpus, cpus) if gpus else -(-cpus // MOST_CPUS)
        for number in range(n):
            yield Place(node["NodeID"], number, cpus // n, 1 if gpus else 0)

    def _start(self, place: Place) -> Any:
        there = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(place.node, soft=False)
        options = {"num_cpus": place.cpus, "num_gpus": place.gpus, "scheduling_strategy": there}
        return self._actor.options(**options).remote(self._cache, place.node, place.cpus)

    def ask(self, worker: WorkerHandle, method: str, *args: Any) -> None:
        """Have `worker` run a method of `Worker`; `answers` tells what came of it."""
        worker.method, worker.args = method, args
        self._asked[getattr(worker.actor, method).remote(*args)] = worker

    def answers(self, seconds: float) -> Iterator[tuple[WorkerHandle, Any]]:
        """Yield what workers have to say within `seconds`: what a method returned, what it raised, or `Lost`."""
        if not self._asked:
            time.sleep(seconds)
            return
        ready, waiting = self._ray.wait(list(self._asked), timeout=seconds)
        if ready and waiting:
            more, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
            ready += more
        for ref in ready:
            yield self._asked.pop(ref), self._answer(ref)

    def _answer(self, ref: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(ref)
        except errors.RayTaskError as error:
            return error.cause if isinstance(error.cause, Exception) else error
        except errors.RayError as error:
            return Lost(" ".join(str(error).split()))

    def mark_healthy(self, worker: WorkerHandle) -> None:
        """Note that `worker` has finished a segment, so that its place is a good one."""
        self._deaths[worker.place] = 0

    def discard(self, worker: WorkerHandle, reason: str) -> None:
        """Take a worker for dead; another one starts in its place before long, unless too many died there."""
        self._remove(worker)
        self._deaths[worker.place] += 1
        self._died_at[worker.place] = time.monotonic()
        log.warning("A worker on %s is gone, its segment goes to another: %s", worker.host, reason)

    def exclude(self, worker: WorkerHandle, reason: str) -> None:
        """Remove a worker, and start no other in its place."""
        self._remove(worker)
        self._deaths[worker.place] = MOST_DEATHS + 1
        log.warning("Left out: %s", reason)

    def _remove(self, worker: WorkerHandle) -> None:
        self._ray.kill(worker.actor)
        del self._workers[worker.place]

    def progress(self) -> list[tuple[int, float]]:
        """Return what those at a segment say of their progress in it; who does not answer at once says nothing."""
        at_work = [worker for worker in self._asked.values() if worker.method == "extract"]
        refs = [worker.actor.progress.remote() for worker in at_work]
        ready = self._ray.wait(refs, num_returns=len(refs), timeout=_PROGRESS_SECONDS)[0] if refs else []
        answers = [self._answer(ref) for ref in ready]
        return [answer for answer in answers if isinstance(answer, tuple)]
