"""What a service counts of itself, as Prometheus reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable

#: Upper ends of the intervals in which times and batches are counted.
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_IMAGES = (1, 2, 4, 8, 16, 32)


class Metrics:
    """Counters of one service, and what its process takes of the machine.

    Attributes
    ----------
    registry : CollectorRegistry
        Its own, so that two services of one process do not add up.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter("featx_requests", "Requests for predictions.", ["status"], registry=registry)
        self._images = Counter("featx_images", "Images, by whether they could be read.", ["result"], registry=registry)
        self._seconds = Histogram(
            "featx_request_seconds", "From a request's head to its answer.", registry=registry, buckets=_SECONDS
        )
        self._together = Histogram(
            "featx_batch_images", "Images that went through the networks together.", registry=registry, buckets=_IMAGES
        )
        self._waiting = Gauge("featx_waiting_images", "Images that nobody has begun with.", registry=registry)

    def watch(self, n_waiting: Callable[[], float]) -> None:
        """Ask `n_waiting` for the number of images that wait, whenever somebody reads the metrics."""
        self._waiting.set_function(n_waiting)

    def count_batch(self, n_images: int) -> None:
        """Count images that went through the networks together."""
        self._together.observe(n_images)

    def count_request(self, status: int, seconds: float) -> None:
        """Count a request that took `seconds`."""
        self._requests.labels(str(status)).inc()
        self._seconds.observe(seconds)

    def count_images(self, n_read: int, n_unreadable: int) -> None:
        """Count the images of a request."""
        self._images.labels("read").inc(n_read)
        self._images.labels("unreadable").inc(n_unreadable)

    def text(self) -> bytes:
        """Return all of it in Prometheus's text format."""
        return generate_latest(self.registry)
