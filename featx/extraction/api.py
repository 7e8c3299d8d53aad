"""`featx.extract`: the Python face of extraction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from featx.datasets import open_dataset
from featx.extraction.options import Options
from featx.extraction.rows import resolved_recipes
from featx.extraction.run import run
from featx.extraction.views import parse_views
from featx.recipe import Request

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from featx.extraction.ensure import Executor
    from featx.features import Features
    from featx.progress import OnProgress


def extract(
    data: Any = "digits",
    *,
    backbone: str = "efficientnet_lite0",
    layer: str | Sequence[str] | None = None,
    pool: str = "auto",
    weights: str = "imagenet",
    image_size: int | None = None,
    resize: str = "weights",
    normalize: str = "weights",
    interpolation: str = "weights",
    background: str = "white",
    decode: str = "full",
    precision: str = "fp32",
    dtype: str = "float32",
    version: str | None = None,
    cache: str | Path | None = None,
    engine: str = "auto",
    device: str = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    max_errors: str = "1%",
    rehash: bool = False,
    refresh: bool = False,
    views: int | None = None,
    augment: str | None = None,
    seed: int = 0,
    cluster: Executor | None = None,
    on_progress: OnProgress | None = None,
    **source: Any,
) -> Features | list[Features]:
    """Run a frozen backbone over images once and return their features, from the cache where it has them.

    Parameters
    ----------
    data : path, sequence of paths or images, array or Dataset
        All that ``featx extract`` takes, and images in memory.
    backbone, pool, weights, image_size, resize, normalize, interpolation, background, decode, precision, dtype, version
        What to compute, as in `featx.Request`.
    layer : str or sequence of str, optional
        Names from ``featx layers``; several come from one pass.
    cache : str or Path, optional
        Cache folder; ``FEATX_CACHE`` or ``./cache`` if not given.
    engine, device, batch_size, workers, max_errors, rehash, refresh
        How to compute it, as in `featx.extraction.Options`.
    views, augment : int and str, optional
        Views of each training image in all, the plain one included, and how the others are changed:
        ``"flip,rotate=2,zoom=0.1"``, see `featx.augment`. The returned `Features` are of the plain images; see
        `Features.view`.
    seed : int
        Of random weights, of a random validation split and of augmented views.
    cluster : Executor, optional
        Compute there instead of here: ``featx.RayCluster()``.
    on_progress : callable, optional
        Called with a `Progress` after each batch.
    **source
        ``images``, ``image_column``, ``label_column``, ``split_column``, ``allow_outside``, ``val``, ``name``: how to
        read `data`, as in `featx.datasets.open_dataset`.

    Returns
    -------
    Features, or where `layer` is a sequence a list of Features, one for each name

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> images = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)
    >>> with tempfile.TemporaryDirectory() as cache:
    ...     extract(images, backbone="alexnet", weights="none", image_size=64, cache=cache, workers=0).shape
    (3, 256)
    """
    request = Request(
        backbone=backbone,
        weights=weights,
        layers=() if layer is None else (layer,) if isinstance(layer, str) else tuple(layer),
        pool=pool,
        image_size=image_size,
        resize=resize,
        normalize=normalize,
        interpolation=interpolation,
        background=background,
        decode=decode,
        precision=precision,
        dtype=dtype,
        seed=seed,
        version=version,
    )
    options = Options(
        engine=engine,
        device=device,
        batch_size=batch_size,
        workers=workers,
        max_errors=max_errors,
        rehash=rehash,
        refresh=refresh,
    )
    dataset = open_dataset(data, seed=seed, **source)
    asked = parse_views(views, augment, seed)
    tables = run(
        dataset, request, cache=cache, options=options, on_progress=on_progress, views=asked, executor=cluster
    ).tables
    if layer is None or isinstance(layer, str):
        return tables[0]
    by_key = {table.key: table for table in tables}  # two names of one layer have one table
    return [by_key[recipe.key] for recipe in resolved_recipes(request, cache=cache)]
