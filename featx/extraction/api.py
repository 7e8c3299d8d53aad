"""`featx.extract`: the Python face of extraction, and the settings that ``featx extract`` shares with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featx.datasets import Source, open_dataset
from featx.extraction.options import Options, ViewOptions, parse_views
from featx.extraction.plan import named_network, resolved_recipes
from featx.extraction.run import run
from featx.recipe import BackboneOptions, FeatureOptions, LayerSets, Request, Views
from featx.settings import keywords, option, part_of

if TYPE_CHECKING:
    from pathlib import Path

    from featx.datasets import Dataset
    from featx.extraction.executors import Executor
    from featx.features import Features
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
        return open_dataset(data, **vars(part_of(Source, self)))


@keywords(Extract)
def extract(data: Any = "digits", settings: Extract = Extract()) -> Features | list[Features]:
    """Run a frozen backbone over images once and return their features, from the cache where it has them.

    Parameters
    ----------
    data : path, sequence of paths or images, array or Dataset
        All that ``featx extract`` takes, and images in memory.
    {options}
    transform : callable or mapping, optional
        How images are prepared where `backbone` is a network of your own (a torch.nn.Module, or a function that returns
        one): a transform of torchvision or timm, or a dictionary with any of height, width, resize, shorter,
        interpolation, mean and std. Without `version`, such a network is known by its weights and its code.
    labels : sequence, optional
        Labels of a list or an array.
    cache : str or Path, optional
        Cache folder; ``FEATX_CACHE`` or ``./cache`` if not given.
    cluster : Executor, optional
        Compute there instead of here: ``featx.RayCluster()``.
    on_progress : callable, optional
        Called with a `Progress` after each batch.

    Returns
    -------
    Features, or where several layers or poolings are asked for a list of Features, one for each
        Of the plain images, where there are augmented views: see `Features.view`.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> images = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)
    >>> with tempfile.TemporaryDirectory() as cache:
    ...     extract(images, backbone="alexnet", weights="none", image_size=64, cache=cache, workers=0).shape
    (3, 256)
    """
    request, cache = settings.request, settings.cache
    tables = run(
        settings.open(data),
        request,
        cache=cache,
        options=settings.options,
        on_progress=settings.on_progress,
        views=settings.asked_views,
        executor=settings.cluster,
    ).tables
    if settings.layers or len(settings.pools) > 1:
        return tables
    if settings.layer is None or isinstance(settings.layer, str):
        return tables[0]
    by_key = {table.key: table for table in tables}  # two names of one layer have one table
    return [by_key[recipe.key] for recipe in resolved_recipes(request, cache=cache)]
