"""`featx.extract`: the Python face of extraction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from featx.extraction.extracting import run
from featx.extraction.plan import resolved_recipes
from featx.extraction.settings import Extract
from featx.settings import keywords

if TYPE_CHECKING:
    from featx.features import Features


_DEFAULTS = Extract()


@keywords(Extract)
def extract(data: Any = "digits", settings: Extract = _DEFAULTS) -> Features | list[Features]:
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
