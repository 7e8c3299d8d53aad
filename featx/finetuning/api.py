"""`featx.finetune`, from images to a model whose backbone has learned too, and the same as an estimator."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from featx.errors import DataError, OptionError
from featx.finetuning.settings import EstimatorSettings, FineTune
from featx.settings import keywords, parameters

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featx.model import Model


@keywords(FineTune)
def finetune(data: Any, settings: FineTune) -> Model:
    """Train a backbone, or its upper part, and a head on it, end to end.

    Parameters
    ----------
    data : path, sequence of paths or images, array or Dataset
        Labelled images, all that `featx.extract` takes.
    {options}
    labels : sequence, optional
        Labels of a list or an array.
    cache : path, optional
        For features of the frozen backbone, and for pixels that do not fit in memory.
    checkpoint : path, optional
        A file that is written after each epoch and every `checkpoint_minutes`; delete it once the model is saved.
        On one machine's CPU a run that goes on from it comes out bit for bit as one without an interruption.
    on_progress : callable, optional
        Called with a `featx.progress.Progress` after each step.

    Returns
    -------
    Model
        Its backbone travels with it. ``report`` has the entries of `featx.fit`, and ``kind`` (``finetune`` or
        ``scratch``), ``iterations``, ``settings``, and the name and place of the data as ``dataset`` and ``source``.

    Raises
    ------
    DataError
        If there are no labels, no rows to train on, or one class.
    OptionError
        If a setting cannot be, or a checkpoint is there that is not to be resumed, or of another run.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
    >>> model = finetune(
    ...     images, labels=["a", "b"] * 12, backbone="scratch/leaky", weights="none", epochs=1, workers=0
    ... )
    >>> model.report["n_parameters"], len(model.predict(images[:3], workers=0))
    (2103010, 3)
    """
    from featx.finetuning.run import FineTuning

    started = time.perf_counter()
    path = None if settings.checkpoint is None else Path(settings.checkpoint)
    _check_checkpoint(path, resume=settings.resume)
    model = FineTuning(settings, settings.open(data)).finetune(path)
    return model.with_report(seconds=round(time.perf_counter() - started, 3))


def _check_checkpoint(path: Path | None, *, resume: bool) -> None:
    if resume and path is None:
        raise OptionError("resume needs the checkpoint to go on from: checkpoint=PATH")
    if path is not None and path.exists() and not resume:
        raise OptionError(
            f"{path} is there, of a run that was not finished. Go on from it with --resume, or delete it to start anew."
        )


class FineTuneClassifier(ClassifierMixin, BaseEstimator):
    """Train a network on images, or its upper part, and a head on it.

    Parameters
    ----------
    backbone, weights, layer, …, workers
        As in `featx.finetune`, which documents each of them; ``val`` is taken from the images fitted on.

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

    @parameters(EstimatorSettings)
    def __init__(self) -> None: ...

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
        from featx.model import Predictions

        assert isinstance(found, Predictions)
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
