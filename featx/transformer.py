"""`FeatureExtractor`: a frozen backbone as a scikit-learn transformer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from featx.errors import DataError, OptionError
from featx.extraction import Options, cached_rows, resolved_recipes
from featx.recipe import Request

if TYPE_CHECKING:
    from pathlib import Path


class FeatureExtractor(TransformerMixin, BaseEstimator):
    """Turn images into features with a frozen backbone, each image once, ever.

    Rows are kept in the cache under their content, so a grid search or a cross-validation around a
    pipeline that begins with this runs the backbone as often as there are distinct images.

    Parameters
    ----------
    backbone : str, default="efficientnet_lite0"
        A name from ``featx backbones``.
    layer : str or None
        A name from ``featx layers``; None for the backbone's default.
    pool, weights, image_size, resize, normalize, interpolation, background, decode, precision, dtype, seed, version
        As in `featx.Request`.
    cache : str or Path or None
        Cache folder; None for ``FEATX_CACHE`` or ``./cache``.
    engine, device, batch_size, workers
        How to compute; none of them changes the features.

    Attributes
    ----------
    recipe_ : featx.Recipe
        What the request came to.
    n_features_out_ : int
        Values a row.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    >>> with tempfile.TemporaryDirectory() as cache:
    ...     FeatureExtractor(image_size=64, cache=cache, workers=0).fit_transform(images).shape
    (4, 1280)
    """

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        *,
        layer: str | None = None,
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
        seed: int = 0,
        version: str | None = None,
        cache: str | Path | None = None,
        engine: str = "auto",
        device: str = "auto",
        batch_size: int | None = None,
        workers: int | None = None,
    ) -> None:
        self.backbone = backbone
        self.layer = layer
        self.pool = pool
        self.weights = weights
        self.image_size = image_size
        self.resize = resize
        self.normalize = normalize
        self.interpolation = interpolation
        self.background = background
        self.decode = decode
        self.precision = precision
        self.dtype = dtype
        self.seed = seed
        self.version = version
        self.cache = cache
        self.engine = engine
        self.device = device
        self.batch_size = batch_size
        self.workers = workers

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002 - scikit-learn's signature
        """Resolve the backbone. Nothing is learned from `X`.

        Parameters
        ----------
        X : sequence of paths or PIL images, or uint8 array of shape (n, h, w[, c])
            Images.
        y : ignored
        """
        (self.recipe_,) = resolved_recipes(self._request(), cache=self.cache)
        self.n_features_out_ = int(np.prod(self.recipe_.shape))
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the features of `X`.

        Parameters
        ----------
        X : sequence of paths or PIL images, or uint8 array of shape (n, h, w[, c])
            Images.

        Returns
        -------
        ndarray of float32 or float16, shape (n, d) or (n, c, h, w)

        Raises
        ------
        DataError
            If an image cannot be read: a pipeline has no place for a row without features.
        """
        check_is_fitted(self, "recipe_")
        how = Options(engine=self.engine, device=self.device, batch_size=self.batch_size, workers=self.workers)
        rows, reasons = cached_rows(X, self._request(), cache=self.cache, options=how)
        if reasons:
            first = min(reasons)
            raise DataError(
                f"{len(reasons)} of {len(rows)} images cannot be read; row {first}: {reasons[first]}. "
                "Leave them out, or use featx.extract, which lists them."
            )
        return rows

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:  # noqa: ARG002 - scikit-learn's signature
        """Return ``{layer}_{i}`` for each value of a row."""
        check_is_fitted(self, "recipe_")
        return np.array([f"{self.recipe_.layer}_{i}" for i in range(self.n_features_out_)], dtype=object)

    def _request(self) -> Request:
        if not (self.layer is None or isinstance(self.layer, str)):
            raise OptionError(f"layer must be one name or None, got {self.layer!r}. Several layers: featx.extract.")
        names = Request.__dataclass_fields__.keys() - {"layers"}
        return Request(
            layers=() if self.layer is None else (self.layer,), **{name: getattr(self, name) for name in names}
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.requires_fit = True
        return tags
