"""`FineTuneClassifier`: fine-tuning as a scikit-learn classifier of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from featx.errors import DataError
from featx.finetuning.api import finetune

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from featx.model import Model


class FineTuneClassifier(ClassifierMixin, BaseEstimator):
    """Train a network on images, or its upper part, and a head on it.

    Parameters
    ----------
    backbone : str, default="efficientnet_lite0"
        A name from ``featx backbones``.
    weights, layer, pool, image_size, resize, normalize, interpolation, background, decode, version
        The network and its input, as in `featx.finetune`, and so are the rest.
    head_layers, unfreeze, from_cache, views, init_head, freeze_bn
        What is trained, and from where.
    optimizer, lr, eps, momentum, weight_decay, head_lr_mult, layer_decay, batch_size, accumulate, epochs
        The steps.
    schedule, factor, patience, min_lr, warmup, early_stop, min_delta, monitor, augment, val, precision
        The rate, the end, and what decides about it: ``val`` is taken from the images fitted on.
    device, seed, cache, workers
        Where and how.

    Attributes
    ----------
    classes_ : ndarray of shape (k,)
    model_ : featx.Model
        What `featx.finetune` returned; it can be saved.
    history_ : dict of str to list of float
        ``loss``, ``accuracy``, ``lr``, ``val_loss``, ``val_accuracy``; one entry an epoch.

    Examples
    --------
    >>> images = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
    >>> network = FineTuneClassifier("scratch/leaky", weights="none", epochs=1, workers=0)
    >>> network.fit(images, ["a", "b"] * 12).predict_proba(images[:3]).shape
    (3, 2)
    """

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        *,
        weights: str = "imagenet",
        layer: str | None = None,
        pool: str = "auto",
        image_size: int | None = None,
        resize: str = "weights",
        normalize: str = "weights",
        interpolation: str = "weights",
        background: str = "white",
        decode: str = "full",
        version: str | None = None,
        head_layers: str | None = None,
        unfreeze: int | str = "all",
        from_cache: bool = False,
        views: int = 1,
        init_head: str | Path = "auto",
        freeze_bn: bool | None = None,
        optimizer: str = "adamw",
        lr: float = 1e-4,
        eps: float | None = None,
        momentum: float = 0.9,
        weight_decay: float | None = None,
        head_lr_mult: float = 1.0,
        layer_decay: float = 1.0,
        batch_size: int = 32,
        accumulate: int = 1,
        epochs: int = 10,
        schedule: str = "cosine",
        factor: float = 0.1,
        patience: int = 3,
        min_lr: float = 0.0,
        warmup: float = 0.0,
        early_stop: int = 0,
        min_delta: float = 0.0,
        monitor: str = "val_accuracy",
        augment: str = "",
        val: float | str | None = None,
        precision: str = "fp32",
        device: str = "auto",
        seed: int = 0,
        cache: str | Path | None = None,
        workers: int | None = None,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.layer = layer
        self.pool = pool
        self.image_size = image_size
        self.resize = resize
        self.normalize = normalize
        self.interpolation = interpolation
        self.background = background
        self.decode = decode
        self.version = version
        self.head_layers = head_layers
        self.unfreeze = unfreeze
        self.from_cache = from_cache
        self.views = views
        self.init_head = init_head
        self.freeze_bn = freeze_bn
        self.optimizer = optimizer
        self.lr = lr
        self.eps = eps
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.head_lr_mult = head_lr_mult
        self.layer_decay = layer_decay
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.epochs = epochs
        self.schedule = schedule
        self.factor = factor
        self.patience = patience
        self.min_lr = min_lr
        self.warmup = warmup
        self.early_stop = early_stop
        self.min_delta = min_delta
        self.monitor = monitor
        self.augment = augment
        self.val = val
        self.precision = precision
        self.device = device
        self.seed = seed
        self.cache = cache
        self.workers = workers

    def fit(self, X: Any, y: Any) -> Self:
        """Train on images with labels y (n,).

        Parameters
        ----------
        X : sequence of paths or PIL images, or uint8 array of shape (n, h, w[, c])
        y : array-like of shape (n,)
            Labels of any kind.

        Raises
        ------
        DataError
            If an image cannot be read: scikit-learn has no place for a row without a class.
        """
        y = column_or_1d(y)
        if y.dtype.kind == "f":
            check_classification_targets(y)  # of others it only warns, where most classes have a single image
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(f"A classifier needs at least two classes, got 1 class: {self.classes_.tolist()[0]!r}.")
        # Names that sort as the classes do, so that the model's columns are theirs.
        labels = [f"{code:09d}" for code in codes]
        self.model_: Model = finetune(X, labels=labels, max_errors="0", **self.get_params(deep=False))
        self.history_: dict[str, list[float]] = dict(self.model_.report.history)
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return probabilities, shape (n, k), columns in the order of ``classes_``."""
        check_is_fitted(self)
        found = self.model_.classify(X, workers=self.workers, device=self.device)
        if found.errors:
            first = min(found.errors)
            raise DataError(
                f"{len(found.errors)} of {len(found)} images cannot be read; row {first}: {found.errors[first]}. "
                "Leave them out, or use model_.classify, which lists them."
            )
        return found.probabilities

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable label of each image, shape (n,)."""
        codes = self.predict_proba(X).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[codes]
        return labels

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags
