"""What a service can be told: where it listens, who may ask, and how much it takes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from featx.extraction.options import ComputeOptions
from featx.model.settings import Thresholds
from featx.settings import check, option, parse_bytes, parse_seconds


@dataclass(frozen=True, kw_only=True)
class Serving(Thresholds, ComputeOptions):
    """How a model is served."""

    host: str = option("127.0.0.1", "Address it listens on; 0.0.0.0 is every network.", metavar="ADDRESS")
    port: int = option(8000, "0 takes a free one.", metavar="N", least=0, most=65535)
    token: str | None = option(
        None, "Only requests with 'Authorization: Bearer TOKEN' are answered (also FEATX_TOKEN).", metavar="TOKEN"
    )
    max_body: int | str = option("32MB", "Of a request; a larger one is refused (413).", metavar="32MB")
    max_images: int = option(64, "Of a request; more are refused (413).", metavar="N", least=1, most=10_000)
    max_pixels: int = option(50_000_000, "Of an image; a larger one is refused (413).", metavar="N", least=1)
    timeout: float | str = option("30s", "A request may take: to arrive (408), and its answer (503).", metavar="30s")
    queue: int = option(256, "Images that wait; further ones are refused (429).", metavar="N", least=1, most=1_000_000)

    def __post_init__(self) -> None:
        check(self)
        _ = self.n_bytes, self.seconds

    @cached_property
    def n_bytes(self) -> int:
        """Bytes that a request may have."""
        return parse_bytes(self.max_body)

    @cached_property
    def seconds(self) -> float:
        """Seconds that a request may take to arrive, and then to be answered."""
        return parse_seconds(self.timeout)
