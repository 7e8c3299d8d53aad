"""What runs on a node: an actor that loads the backbone once and computes segments as a local run does."""

from __future__ import annotations

import hashlib
import os
import socket
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.cluster.work import Done, Work, digest_of, versions
from featx.datasets import open_dataset
from featx.errors import ClusterError, FeatxError, MissingDataError
from featx.extraction.compute import Forward
from featx.extraction.ensure import FEW_IMAGES, open_planned
from featx.extraction.fill import Job, extract_segment, read_segment
from featx.extraction.identify import Identity
from featx.extraction.lookup import Lookup, Part, open_store
from featx.extraction.probing import check_probes
from featx.extraction.resolve import resolve
from featx.images import DecodePool

if TYPE_CHECKING:
    from featx.datasets import Dataset
    from featx.extraction.compute import Block


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
        self._job: Job | None = None
        self._pool: DecodePool | None = None
        self._done, self._waiting = 0, 0.0

    def greet(self, token: str) -> dict[str, Any]:
        """Say where this is, with which versions, and whether the driver's `token` is seen. Loads no network."""
        return {"host": self._host, "versions": versions(), "sees": self._store.note(token) is not None}

    def open(self, work: Work, n_workers: int) -> dict[str, Any]:
        """Load the backbone, and return the engine, batch size and cut that the workers have agreed on.

        Raises
        ------
        ClusterError
            If this node cannot do the work: no images, other weights, other features.
        """
        try:
            return self._open(work, n_workers)
        except MissingDataError as error:
            raise ClusterError(
                f"Node {self._host} does not see the images: {error} Put them in a folder that all nodes share."
            ) from error
        except FeatxError as error:
            raise ClusterError(f"Node {self._host}: {error}") from error

    def _open(self, work: Work, n_workers: int) -> dict[str, Any]:
        self._store.require_writable()
        dataset = _open_images(work)
        import torch

        torch.set_num_threads(self._n_cpus)
        resolved = resolve(work.request, self._store)
        if [recipe.key for recipe in resolved.recipes] != work.keys:
            raise ClusterError(
                f"{work.request.backbone} has other weights or another recipe here than at the driver. "
                "Install the same versions, and the same weights file, on all nodes."
            )
        identity = Identity(np.zeros((len(dataset), 32), dtype=np.uint8))
        lookup = Lookup(dataset, identity, resolved, self._store)
        part = Part(work.recipes, np.arange(work.n_images))
        engine, segment_rows = open_planned(lookup, part, work.options, n_workers=n_workers)
        check_probes(self._store, resolved.recipes, engine)
        self._job = Job(dataset, identity, self._store, Forward(engine, work.recipes, identity.item_ids))
        few = work.n_images <= FEW_IMAGES * n_workers
        n_decoders = work.options.workers if work.options.workers is not None else 1 if few else self._n_cpus
        self._pool = DecodePool(resolved.recipes[0].frame, n_workers=n_decoders)
        return {"engine": engine.name, "batch_size": engine.batch_size, "segment_rows": segment_rows}

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
        assert self._job is not None
        assert self._pool is not None
        self._done, self._waiting = 0, 0.0
        self._job.identity.item_ids[positions] = item_ids
        pixels = self._pool.map(read_segment(self._job, positions))
        block = extract_segment(self._job, pixels, positions, self._count)
        errors = [(index, str(error), error.transient) for index, error in block.failures.items()]
        return Done(k, block.n_images, errors, _sha(block), self._node, os.getpid(), self._waiting)

    def progress(self) -> tuple[int, float]:
        """Return how many images of the segment in hand are done, and the seconds of waiting for their pixels."""
        return self._done, self._waiting

    def _count(self, n: int, waiting: float) -> None:
        self._done += n
        self._waiting += waiting


def _open_images(work: Work) -> Dataset:
    """List the images as the driver did. Which of them a CSV may name was decided there."""
    source: dict[str, Any] = dict(work.source)
    data = source.pop("data")
    dataset = open_dataset(data, **source, allow_outside=data.lower().endswith((".csv", ".tsv")))
    if digest_of(dataset.ids) != work.ids:
        raise MissingDataError(f"{data} lists other images here ({len(dataset):,}) than at the driver.")
    return dataset


def _sha(block: Block) -> str:
    digest = hashlib.sha256()
    for part in block.parts:
        digest.update(np.ascontiguousarray(part.rows).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
