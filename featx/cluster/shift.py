"""A shift: the segments of one part of an extraction are handed out until all of them are done."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.cluster.crew import Crew, Hand, Lost
from featx.cluster.work import Done, versions
from featx.errors import ClusterError, ImageError
from featx.extraction.ensure import Ensured
from featx.extraction.fill import Filled, all_known, cut, step_name
from featx.progress import Progress

if TYPE_CHECKING:
    from featx.cluster.work import Work
    from featx.extraction.lookup import Lookup, Part
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


class Shift:
    """Hands out the segments of `part`.

    Parameters
    ----------
    crew : Crew
    work : Work
        What workers are told of the part.
    token : str
        Name of the note that every node must see in the cache.
    lookup, part : Lookup and Part
    on_progress : callable, optional
    done : list of Done
        What comes back is appended.
    """

    def __init__(
        self,
        crew: Crew,
        work: Work,
        token: str,
        lookup: Lookup,
        part: Part,
        on_progress: OnProgress | None,
        done: list[Done],
    ) -> None:
        self._crew, self._work, self._token = crew, work, token
        self._lookup, self._part, self._on_progress, self._all_done = lookup, part, on_progress, done
        self._plan: dict[str, Any] = {}
        self._segments: list[np.ndarray] = []
        self._queue: deque[int] = deque()
        self._left: set[int] = set()
        self._tries: Counter[int] = Counter()
        self._free: list[Hand] = []
        self._filled = Filled()
        self._started = self._last_sign = time.monotonic()
        self._reported = -math.inf

    def run(self) -> Ensured:
        """Work until every segment is committed and seen here.

        Raises
        ------
        ClusterError
            If nodes differ, a segment costs one worker after another, or nobody is there to work.
        FeatxError
            Whatever ends a run on one machine.
        """
        while not self._segments or self._left:
            for hand in self._crew.muster():
                self._crew.ask(hand, "greet", self._token)
            for hand, answer in self._crew.answers(POLL_SECONDS):
                self._hear(hand, answer)
            self._hand_out()
            self._report()
        self._wait_until_seen()
        seconds = time.monotonic() - self._started
        return Ensured(self._filled, self._plan["engine"], self._plan["batch_size"], seconds)

    def _hear(self, hand: Hand, answer: Any) -> None:
        self._last_sign = time.monotonic()
        if isinstance(answer, Lost):
            self._lose(hand, answer.reason)
        elif hand.task == "greet":
            self._judge(hand, answer)
        elif isinstance(answer, Exception):
            if hand.task == "open" and self._segments:
                self._crew.refuse(hand, str(answer))
            else:
                raise answer
        elif hand.task == "open":
            self._agree(answer)
            self._free.append(hand)
        else:
            self._take(answer)
            self._crew.praise(hand)
            self._free.append(hand)

    def _judge(self, hand: Hand, greeting: Any) -> None:
        """Let a node take part that sees the cache and has our versions; at the start, any other ends the run."""
        reason = _misfit(hand.host, greeting, self._lookup.store.root.absolute())
        if reason is None:
            self._crew.ask(hand, "open", self._work, self._crew.n_places)
        elif self._segments:
            self._crew.refuse(hand, reason)
        else:
            raise ClusterError(reason)

    def _agree(self, plan: dict[str, Any]) -> None:
        """Cut the images as the first worker to be ready says; the others have the same from the cache."""
        if not self._segments:
            self._plan = plan
            self._segments = cut(self._part.positions, plan["segment_rows"])
            self._queue.extend(range(len(self._segments)))
            self._left.update(self._queue)
            self._started = time.monotonic()

    def _hand_out(self) -> None:
        item_ids = self._lookup.identity.item_ids
        while self._queue and self._free:
            k = self._queue.popleft()
            segment = self._segments[k]
            if self._tries[k] and all_known(self._lookup.store, self._part.recipes, item_ids[segment]):
                self._left.discard(k)  # its worker died between the commit and the answer
            else:
                self._crew.ask(self._free.pop(), "extract", k, segment, item_ids[segment])

    def _take(self, done: Done) -> None:
        self._left.discard(done.k)
        self._all_done.append(done)
        self._filled.computed += done.rows * self._part.n_views
        self._filled.waiting += done.waiting / max(1, self._crew.n_places)
        self._filled.failures |= {i: ImageError(reason, transient=t) for i, reason, t in done.errors}

    def _lose(self, hand: Hand, reason: str) -> None:
        """Give the segment of a worker that is gone to another one."""
        self._crew.bury(hand, reason)
        if hand.task != "extract":
            return
        k = hand.args[0]
        self._tries[k] += 1
        if self._tries[k] >= MOST_TRIES:
            first = self._lookup.dataset.ids[self._segments[k][0]]
            raise ClusterError(
                f"{MOST_TRIES} workers were lost one after another at the same {len(self._segments[k]):,} images, from "
                f"{first} on; the last: {reason} All others that were done are kept. Run the same command again, or "
                "reserve more memory for a node."
            )
        self._queue.appendleft(k)

    def _report(self) -> None:
        """Tell now and then how far everyone is together, and give up when nobody has been at work for too long."""
        if self._left and time.monotonic() - self._reported < POLL_SECONDS:
            return
        self._reported, progress = time.monotonic(), self._crew.progress()
        if self._crew.is_at_work:
            self._last_sign = time.monotonic()
        if self._crew.is_lost:
            raise ClusterError(
                "Workers die on every node before they finish a segment; the log says why. What was committed is kept: "
                "reserve more memory for a node, and run the same command again."
            )
        if time.monotonic() - self._last_sign > PATIENCE_SECONDS:
            raise ClusterError(
                f"No worker has started in {PATIENCE_SECONDS / 60:.0f} minutes: the cluster has no free CPUs, or no "
                "nodes that stay. See `ray status`. What was committed is kept."
            )
        if self._on_progress is not None and self._segments:
            total = len(self._part.positions)
            done = total - sum(len(self._segments[k]) for k in self._left) + sum(n for n, _ in progress)
            waiting = self._filled.waiting + sum(s for _, s in progress) / max(1, self._crew.n_places)
            views = [recipe.view for recipe in self._part.recipes]
            seconds = time.monotonic() - self._started
            self._on_progress(Progress(step_name(views), min(done, total), total, seconds, waiting))

    def _wait_until_seen(self) -> None:
        """Wait for the file system to show here what the nodes have committed: only then is it ours to publish."""
        item_ids = self._lookup.identity.item_ids
        passing = [index for index, error in self._filled.failures.items() if error.transient]
        expected = item_ids[np.setdiff1d(self._part.positions, passing)]
        deadline = time.monotonic() + VISIBLE_SECONDS
        while not all_known(self._lookup.store, self._part.recipes, expected):
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"The nodes have committed rows to {self._lookup.store.root} that are not seen here after "
                    f"{VISIBLE_SECONDS:.0f} s: is it the same folder everywhere? Run the same command again."
                )
            time.sleep(POLL_SECONDS)


def _misfit(host: str, greeting: Any, cache: Any) -> str | None:
    """Return why a node cannot take part, in one line that says what to do; None if it can."""
    if isinstance(greeting, Exception):
        last = str(greeting).strip().splitlines()[-1:]
        return f"Node {host} cannot run featx ({''.join(last)}). Install there what is here: pip install 'featx[ray]'"
    if not greeting["sees"]:
        return (
            f"Node {host} does not see the cache folder {cache}. Name one on a file system that all nodes share: "
            "--cache DIR"
        )
    ours, theirs = versions(), greeting["versions"]
    other = [name for name in ours if theirs.get(name) != ours[name]]
    if other:
        told = ", ".join(f"{name} {theirs.get(name, 'none')} (here {ours[name]})" for name in other)
        return f"Node {host} has {told}. Install the same versions on all nodes."
    return None
