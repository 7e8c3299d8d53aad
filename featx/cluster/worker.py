"""What runs on a node: an actor that loads the backbone once and computes segments; and what is sent to it and back.

Names, keys and hashes are sent; never pixels or features.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import platform
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx import __version__
from featx.datasets import open_dataset
from featx.engines.choose import FEW_IMAGES
from featx.errors import ClusterError, FeatxError, MissingDataError, OptionError
from featx.extraction.executors import check_probes, open_agreed
from featx.extraction.plan import Plan, Segment, resolve
from featx.extraction.segments import ComputedRows, commit, compute_segments
from featx.images import DecodePool
from featx.store.opening import open_store

if TYPE_CHECKING:
    from featx.datasets import Dataset
    from featx.engines import Engine
    from featx.extraction import Options
    from featx.recipe import Recipe, Request


@dataclass(frozen=True)
class Task:
    """All that a worker must know of an extraction before it gets segments.

    Attributes
    ----------
    request : Request
        How to get the backbone.
    keys : list of str
        What its recipes must come to, one a layer.
    recipes : sequence of Recipe
        Of the rows to compute: of plain images or of views.
    source : mapping of str to str
        Where the images are, as `Dataset.source` tells it.
    ids : str
        Digest of their ids: every node must list the same images in the same order.
    n_images : int
        That lack rows.
    options : Options
    """

    request: Request
    keys: list[str]
    recipes: Sequence[Recipe]
    source: Mapping[str, str]
    ids: str
    n_images: int
    options: Options

    @classmethod
    def of(cls, plan: Plan, segment: Segment) -> Task:
        """Describe the missing rows of `segment`.

        Raises
        ------
        OptionError
            If the images are in this process's memory only.
        """
        if not plan.dataset.source:
            raise OptionError(
                "On a cluster every node reads the images itself, and these are in memory or a list. Put them in a "
                "folder or a file (.npz, .parquet, .tar, labels.csv) that all nodes see, and give its path."
            )
        request = plan.request
        if Path(request.weights).is_file():
            request = dataclasses.replace(request, weights=str(Path(request.weights).absolute()))
        keys, ids = [recipe.key for recipe in plan.recipes], digest_of(plan.dataset.ids)
        return cls(request, keys, segment.recipes, plan.dataset.source, ids, len(segment), plan.options)


@dataclass(frozen=True)
class Done:
    """What comes back of a segment.

    Attributes
    ----------
    k : int
        Its number.
    rows : int
        Images that gave features.
    errors : list of (int, str, bool)
        Position, reason and transience of those that did not.
    sha : str
        SHA-256 of the features: equal when a segment is computed twice, on equal machines.
    node, pid : str and int
        Ray's id of the node, and the process on it, that did the work.
    waiting : float
        Seconds in which the network waited for pixels.
    """

    k: int
    rows: int
    errors: list[tuple[int, str, bool]]
    sha: str
    node: str
    pid: int
    waiting: float


class Worker:
    """One worker on one node.

    Parameters
    ----------
    cache : str
        The cache folder, absolute.
    node : str
        Ray's id of the node.
    n_cpus : int
        Cores that are reserved for this worker, its threads and its decoding processes.
    """

    def __init__(self, cache: str, node: str, n_cpus: int) -> None:
        self._store, self._node, self._n_cpus = open_store(cache), node, n_cpus
        self._host = socket.gethostname()
        self._opened: tuple[Plan, Task, Engine, DecodePool] | None = None
        self._done, self._waiting = 0, 0.0

    def handshake(self, token: str) -> dict[str, Any]:
        """Say where this is, with which versions, and whether the driver's `token` is seen. Loads no network."""
        return {"host": self._host, "versions": versions(), "sees": self._store.record(token) is not None}

    def open(self, task: Task, n_workers: int) -> dict[str, Any]:
        """Load the backbone, and return the engine, batch size and cut that the workers have agreed on.

        Raises
        ------
        ClusterError
            If this node cannot do the work: no images, other weights, other features.
        """
        try:
            return self._open(task, n_workers)
        except MissingDataError as error:
            raise ClusterError(
                f"Node {self._host} does not see the images: {error} Put them in a folder that all nodes share."
            ) from error
        except FeatxError as error:
            raise ClusterError(f"Node {self._host}: {error}") from error

    def _open(self, task: Task, n_workers: int) -> dict[str, Any]:
        self._store.require_writable()
        dataset = _open_images(task)
        import torch

        torch.set_num_threads(self._n_cpus)
        recipes, backbone = resolve(task.request, self._store)
        if [recipe.key for recipe in recipes] != task.keys:
            raise ClusterError(
                f"{task.request.backbone} has other weights or another recipe here than at the driver. "
                "Install the same versions, and the same weights file, on all nodes."
            )
        item_ids = np.zeros((len(dataset), 32), dtype=np.uint8)  # filled in segment by segment
        plan = Plan(dataset, task.request, recipes, self._store, item_ids, options=task.options, loaded=backbone)
        everything = Segment(task.recipes, np.arange(task.n_images))
        engine, agreed = open_agreed(plan, everything, n_workers=n_workers)
        check_probes(self._store, recipes, engine)
        few = task.n_images <= FEW_IMAGES * n_workers
        n_decoders = task.options.workers if task.options.workers is not None else 1 if few else self._n_cpus
        self._opened = plan, task, engine, DecodePool(recipes[0].frame, n_workers=n_decoders)
        return agreed | {"engine": engine.name, "batch_size": engine.batch_size}

    def extract(self, k: int, positions: np.ndarray, item_ids: np.ndarray) -> Done:
        """Compute and commit segment `k`.

        Parameters
        ----------
        k : int
        positions : ndarray of int, shape (n,)
            Of its images in the dataset, ascending.
        item_ids : ndarray of uint8, shape (n, 32)
            Their content hashes, against which the bytes that are read here are held.
        """
        assert self._opened is not None
        plan, task, engine, pool = self._opened
        self._done, self._waiting = 0, 0.0
        plan.item_ids[positions] = item_ids
        segment = Segment(task.recipes, positions)
        (computed,) = compute_segments(plan.dataset, [segment], engine, pool, plan.item_ids, self._count)
        commit(plan, computed)
        errors = [(index, str(error), error.transient) for index, error in computed.failures.items()]
        return Done(k, computed.n_images, errors, _sha(computed), self._node, os.getpid(), self._waiting)

    def progress(self) -> tuple[int, float]:
        """Return how many images of the segment in hand are done, and the seconds of waiting for their pixels."""
        return self._done, self._waiting

    def _count(self, n: int, waiting: float) -> None:
        self._done += n
        self._waiting += waiting


def digest_of(ids: Sequence[str]) -> str:
    """Return a digest of the ids of a dataset, in their order.

    Examples
    --------
    >>> digest_of(["a", "b"]) == digest_of(["b", "a"])
    False
    """
    digest = hashlib.sha256()
    for image in ids:
        digest.update(image.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Return the versions that must be equal on all nodes: a build for other hardware (``+cu128``) is no other one."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"featx": __version__, "torch": metadata.version("torch").partition("+")[0], "python": python}


def _open_images(task: Task) -> Dataset:
    """List the images as the driver did. Which of them a CSV may name was decided there."""
    source: dict[str, Any] = dict(task.source)
    data = source.pop("data")
    dataset = open_dataset(data, **source, allow_outside=data.lower().endswith((".csv", ".tsv")))
    if digest_of(dataset.ids) != task.ids:
        raise MissingDataError(f"{data} lists other images here ({len(dataset):,}) than at the driver.")
    return dataset


def _sha(computed: ComputedRows) -> str:
    digest = hashlib.sha256()
    for number in range(len(computed.segment.recipes)):
        _, rows = computed.of(number)
        digest.update(np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
