"""The `Scheduler`: hands the segments of an extraction out to workers until all of them are done.

A worker first says which versions it has and whether it sees the cache (``handshake``), then opens the network
(``open``), and from then on gets a segment at a time (``extract``). The segment of one that is lost goes to another.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.cluster.pool import Lost, WorkerHandle, WorkerPool
from featx.cluster.worker import Done, versions
from featx.errors import ClusterError, ImageError
from featx.extraction.segments import Tally
from featx.progress import Progress

if TYPE_CHECKING:
    from featx.cluster.worker import Task
    from featx.extraction.plan import Plan, Segment
    from featx.progress import OnProgress

log = logging.getLogger("featx")

#: How often to look for new nodes and to report progress, in seconds.
POLL_SECONDS = 1.0
#: Workers that one segment may cost before it is taken for the reason.
MOST_TRIES = 3
#: How long nobody may be at work, in seconds: other jobs may hold the cores, nodes may be starting.
PATIENCE_SECONDS = 600.0
#: How long a network file system may take to show here what a node has committed, in seconds.
VISIBLE_SECONDS = 120.0


class Scheduler:
    """Hands out the segments into which `missing` is cut.

    Parameters
    ----------
    pool : WorkerPool
    task : Task
        What workers are told of the work.
    token : str
        Name of the record that every node must see in the cache.
    plan : Plan
    missing : Segment
        All images that lack the same rows.
    on_progress : callable, optional
    done : list of Done
        What comes back is appended.
    """

    def __init__(
        self,
        pool: WorkerPool,
        task: Task,
        token: str,
        plan: Plan,
        missing: Segment,
        on_progress: OnProgress | None,
        done: list[Done],
    ) -> None:
        self._pool, self._task, self._token = pool, task, token
        self._plan, self._missing, self._on_progress, self._done = plan, missing, on_progress, done
        self._segments: list[Segment] = []
        self._queue: deque[int] = deque()
        self._unfinished: set[int] = set()
        self._tries: Counter[int] = Counter()
        self._free: list[WorkerHandle] = []
        self._tally = Tally()
        self._started = self._last_sign = time.monotonic()
        self._reported = -math.inf

    def run(self) -> Tally:
        """Work until every segment is committed and seen here.

        Raises
        ------
        ClusterError
            If nodes differ, a segment costs one worker after another, or nobody is there to work.
        FeatxError
            Whatever ends a run on one machine.
        """
        while not self._segments or self._unfinished:
            for worker in self._pool.start_missing():
                self._pool.ask(worker, "handshake", self._token)
            for worker, answer in self._pool.answers(POLL_SECONDS):
                self._handle(worker, answer)
            self._hand_out()
            self._check_alive()
            self._report()
        self._wait_until_seen()
        self._tally.seconds = time.monotonic() - self._started
        return self._tally

    def _handle(self, worker: WorkerHandle, answer: Any) -> None:
        self._last_sign = time.monotonic()
        if isinstance(answer, Lost):
            self._put_back(worker, answer.reason)
        elif worker.method == "handshake":
            self._admit(worker, answer)
        elif isinstance(answer, Exception):
            if worker.method == "open" and self._segments:
                self._pool.exclude(worker, str(answer))
            else:
                raise answer
        elif worker.method == "open":
            self._cut(answer)
            self._free.append(worker)
        else:
            self._finish(answer)
            self._pool.mark_healthy(worker)
            self._free.append(worker)

    def _admit(self, worker: WorkerHandle, answer: Any) -> None:
        """Let a node take part that sees the cache and has our versions; at the start, any other ends the run."""
        reason = _misfit(worker.host, answer, self._plan.store.root.absolute())
        if reason is None:
            self._pool.ask(worker, "open", self._task, self._pool.n_places)
        elif self._segments:
            self._pool.exclude(worker, reason)
        else:
            raise ClusterError(reason)

    def _cut(self, agreed: dict[str, Any]) -> None:
        """Cut the images as the first worker to be ready says; the others have the same from the cache."""
        if not self._segments:
            self._tally.engine, self._tally.device = agreed["engine"], agreed["device"]
            self._tally.batch_size = agreed["batch_size"]
            self._segments = self._missing.cut(agreed["segment_rows"])
            self._queue.extend(range(len(self._segments)))
            self._unfinished.update(self._queue)
            self._started = time.monotonic()

    def _hand_out(self) -> None:
        while self._queue and self._free:
            number = self._queue.popleft()
            segment = self._segments[number]
            if self._tries[number] and self._plan.is_done(segment):
                self._unfinished.discard(number)  # its worker died between the commit and the answer
            else:
                positions = segment.positions
                self._pool.ask(self._free.pop(), "extract", number, positions, self._plan.item_ids[positions])

    def _finish(self, done: Done) -> None:
        self._unfinished.discard(done.k)
        self._done.append(done)
        self._tally.computed += done.rows * len(self._missing.views)
        self._tally.waiting += done.waiting / max(1, self._pool.n_places)
        self._tally.failures |= {i: ImageError(reason, transient=t) for i, reason, t in done.errors}

    def _put_back(self, worker: WorkerHandle, reason: str) -> None:
        """Give the segment of a worker that is gone to another one."""
        self._pool.discard(worker, reason)
        if worker.method != "extract":
            return
        number = worker.args[0]
        self._tries[number] += 1
        if self._tries[number] >= MOST_TRIES:
            segment = self._segments[number]
            first = self._plan.dataset.ids[segment.positions[0]]
            raise ClusterError(
                f"{MOST_TRIES} workers were lost one after another at the same {len(segment):,} images, from "
                f"{first} on; the last: {reason} All others that were done are kept. Run the same command again, or "
                "reserve more memory for a node."
            )
        self._queue.appendleft(number)

    def _check_alive(self) -> None:
        """Give up when workers die everywhere, or nobody has been at work for too long."""
        if self._pool.is_at_work:
            self._last_sign = time.monotonic()
        if self._pool.is_lost:
            raise ClusterError(
                "Workers die on every node before they finish a segment; the log says why. What was committed is kept: "
                "reserve more memory for a node, and run the same command again."
            )
        if time.monotonic() - self._last_sign > PATIENCE_SECONDS:
            raise ClusterError(
                f"No worker has started in {PATIENCE_SECONDS / 60:.0f} minutes: the cluster has no free CPUs, or no "
                "nodes that stay. See `ray status`. What was committed is kept."
            )

    def _report(self) -> None:
        """Tell now and then how far everyone is together."""
        if self._unfinished and time.monotonic() - self._reported < POLL_SECONDS:
            return
        self._reported, progress = time.monotonic(), self._pool.progress()
        if self._on_progress is not None and self._segments:
            total = len(self._missing)
            done = total - sum(len(self._segments[k]) for k in self._unfinished) + sum(n for n, _ in progress)
            waiting = self._tally.waiting + sum(s for _, s in progress) / max(1, self._pool.n_places)
            seconds = time.monotonic() - self._started
            self._on_progress(Progress(self._missing.step, min(done, total), total, seconds, waiting))

    def _wait_until_seen(self) -> None:
        """Wait for the file system to show here what the nodes have committed: only then is it ours to publish."""
        passing = [index for index, error in self._tally.failures.items() if error.transient]
        expected = np.setdiff1d(self._missing.positions, passing)
        deadline = time.monotonic() + VISIBLE_SECONDS
        while not self._plan.has(self._missing.recipes, expected):
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"The nodes have committed rows to {self._plan.store.root} that are not seen here after "
                    f"{VISIBLE_SECONDS:.0f} s: is it the same folder everywhere? Run the same command again."
                )
            time.sleep(POLL_SECONDS)


def _misfit(host: str, answer: Any, cache: Any) -> str | None:
    """Return why a node cannot take part, in one line that says what to do; None if it can."""
    if isinstance(answer, Exception):
        last = str(answer).strip().splitlines()[-1:]
        return f"Node {host} cannot run featx ({''.join(last)}). Install there what is here: pip install 'featx[ray]'"
    if not answer["sees"]:
        return (
            f"Node {host} does not see the cache folder {cache}. Name one on a file system that all nodes share: "
            "--cache DIR"
        )
    ours, theirs = versions(), answer["versions"]
    other = [name for name in ours if theirs.get(name) != ours[name]]
    if other:
        told = ", ".join(f"{name} {theirs.get(name, 'none')} (here {ours[name]})" for name in other)
        return f"Node {host} has {told}. Install the same versions on all nodes."
    return None
