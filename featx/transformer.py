"""`FeatureExtractor`: a frozen backbone as a scikit-learn transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from featx.errors import DataError, OptionError
from featx.extraction import ComputeOptions, Options, cached_rows, resolved_recipes
from featx.extraction.plan import named_network
from featx.recipe import FeatureOptions, LayerOptions, Request
from featx.settings import parameters

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ExtractorSettings(ComputeOptions, FeatureOptions, LayerOptions):
    """Parameters of `FeatureExtractor`: which features, how they are computed, and where they are kept."""

    image_transform: Any = None
    cache: str | Path | None = None


class FeatureExtractor(TransformerMixin, BaseEstimator):
    """Turn images into features with a frozen backbone, each image once, ever.

    Rows are kept in the cache under their content, so a grid search or a cross-validation around a
    pipeline that begins with this runs the backbone as often as there are distinct images.

    Parameters
    ----------
    backbone : str, torch.nn.Module or callable, default="efficientnet_lite0"
        A name from ``featx backbones``; or a network of your own, or a function without arguments that returns one.
    layer : str or None
        A name from ``featx layers``; None or ``"default"`` for the backbone's own choice.
    pool, weights, image_size, resize, normalize, interpolation, background, decode, precision, dtype, seed, version
        What the features are, as in `featx.extract`, which documents each of them.
    engine, device, batch_size, workers
        How they are computed, as there; none of them changes the features.
    image_transform : callable or mapping or None
        How images are prepared for a network of your own, as `transform` of `featx.extract`.
    cache : str or Path or None
        Cache folder; None for ``FEATX_CACHE`` or ``./cache``.

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

    @parameters(ExtractorSettings)
    def __init__(self) -> None: ...

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002 - scikit-learn's signature
        """Resolve the backbone. Nothing is learned from `X`.

        Parameters
        ----------
        X : sequence of paths or PIL images, or uint8 array of shape (n, h, w[, c])
            Images.
        y : ignored
        """
        request, _, cache = self._asked()
        (self.recipe_,) = resolved_recipes(request, cache=cache)
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
        request, options, cache = self._asked()
        rows, reasons = cached_rows(X, request, cache=cache, options=options)
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

    def _asked(self) -> tuple[Request, Options, str | Path | None]:
        """Return what the parameters ask for; they are checked here and no sooner, as scikit-learn wants it."""
        given = vars(self)
        layer = given["layer"]
        if not (layer is None or isinstance(layer, str)):
            raise OptionError(f"layer must be one name or None, got {layer!r}. Several layers: featx.extract.")
        asked = {name: given[name] for name in Request.__dataclass_fields__ if name != "layers"}
        asked["backbone"], asked["version"] = named_network(
            given["backbone"], given["image_transform"], asked["version"]
        )
        options = Options(**{name: given[name] for name in ComputeOptions.__dataclass_fields__})
        request = Request(**asked, layers=Request.named(layer)).check_one("FeatureExtractor")
        return request, options, given["cache"]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.requires_fit = True
        return tags
