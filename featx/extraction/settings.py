"""`Extract`: all that an extraction can be told, in Python and on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featx.datasets import Source
from featx.extraction.options import Options, ViewOptions, parse_views
from featx.recipe import BackboneOptions, FeatureOptions, LayerSets, Request, Views
from featx.settings import option, part_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from featx.datasets import Dataset
    from featx.extraction.executors import Executor
    from featx.progress import OnProgress


@dataclass(frozen=True, kw_only=True)
class _Layers(LayerSets, BackboneOptions):
    layer: str | Sequence[str] | None = option(
        None,
        "A name of `featx layers`, or default: what the network itself pools; several come from one pass.",
        metavar="L",
    )


@dataclass(frozen=True, kw_only=True)
class Extract(Source, ViewOptions, Options, FeatureOptions, _Layers):
    """All that ``featx extract`` and `featx.extract` can be told."""

    transform: Any = None
    cache: str | Path | None = None
    cluster: Executor | None = None
    on_progress: OnProgress | None = None

    @property
    def request(self) -> Request:
        """What is asked of the backbone."""
        from featx.extraction.plan import named_network

        named = {name: getattr(self, name) for name in Request.__dataclass_fields__ if name != "layers"}
        named["backbone"], named["version"] = named_network(self.backbone, self.transform, self.version)
        return Request(**named, layers=Request.named(self.layer, self.layers))

    @property
    def options(self) -> Options:
        """How it is computed."""
        return part_of(Options, self)

    @property
    def asked_views(self) -> Views | None:
        """Which augmented views are drawn."""
        return parse_views(self.views, self.augment, self.seed)

    def open(self, data: Any) -> Dataset:
        """List the images of `data`."""
        from featx.datasets import open_dataset

        return open_dataset(data, **vars(part_of(Source, self)))
