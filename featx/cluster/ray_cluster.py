"""`RayCluster`: hand it to an extraction, and the nodes of a Ray cluster compute it."""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING

from featx.cluster.connection import connected, load_ray, parse_address
from featx.cluster.crew import Crew
from featx.cluster.shift import Shift
from featx.cluster.work import Work

if TYPE_CHECKING:
    from collections.abc import Iterator

    from featx.cluster.work import Done
    from featx.extraction import Options
    from featx.extraction.ensure import Ensured
    from featx.extraction.lookup import Lookup, Part
    from featx.progress import OnProgress
    from featx.store import Store


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
        self._ray = load_ray()
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

    def compute(self, lookup: Lookup, part: Part, options: Options, on_progress: OnProgress | None) -> Ensured:
        """Have every row of `part` computed and committed.

        Raises
        ------
        OptionError
            If the images are in memory.
        ClusterError
            If the cluster cannot be reached, its nodes differ, or they do not see the cache or the images.
        """
        work, cache = Work.of(lookup, part, options), str(lookup.store.root.absolute())
        with (
            connected(self._ray, self.address),
            _token(lookup.store) as token,
            Crew(self._ray, cache, options.device) as crew,
        ):
            return Shift(crew, work, token, lookup, part, on_progress, self.done).run()


@contextlib.contextmanager
def _token(store: Store) -> Iterator[str]:
    """Leave a note in the cache for the length of a block, by which a node knows that it sees the same folder."""
    name = f"cluster-{secrets.token_hex(8)}"
    store.put_note(name, {"token": name})
    try:
        yield name
    finally:
        store.drop_note(name)
