"""`XGBoostHead`: gradient-boosted trees on a whitened projection of the features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from featx.devices import resolve_device, within_memory
from featx.heads.estimator import Head
from featx.heads.inputs import Samples, like, read_labelled, read_rows, read_training
from featx.heads.losses import module_of, to_numpy
from featx.heads.moments import leading, mean_row, second_moment
from featx.heads.targets import Array
from featx.settings import check_number

#: Settings of `XGBoostHead` that are XGBoost's own, by the same names.
_BOOSTER_SETTINGS = (
    "learning_rate",
    "max_depth",
    "max_leaves",
    "grow_policy",
    "min_child_weight",
    "gamma",
    "max_delta_step",
    "subsample",
    "sampling_method",
    "colsample_bytree",
    "colsample_bylevel",
    "colsample_bynode",
    "reg_alpha",
    "reg_lambda",
    "max_bin",
    "scale_pos_weight",
    "device",
)


@dataclass(eq=False, repr=False)
class XGBoostHead(Head):
    """Gradient-boosted trees (XGBoost, histograms), on whitened principal components learned on the training rows.

    Trees split one feature at a time, and pay for each of them; the leading components of a deep
    feature table hold what separates its classes in a tenth of the columns.

    One fit runs on one machine. Under a memory limit its bins are kept in files (`xgboost.ExtMemQuantileDMatrix`), so
    that the table may be larger than memory; XGBoost's training across machines needs Dask or a tracker of its own
    with all workers up at once, and is not used. Several fits, as of a search, may run on several machines.

    Parameters
    ----------
    n_estimators : int
        Rounds; each grows one tree a class (one for two classes).
    components : int or None
        Whitened principal components that the trees see; None, or as many as there are features, for the
        features themselves.
    max_bin : int
        Histogram bins a column.
    learning_rate, max_depth, max_leaves, grow_policy, min_child_weight, gamma, max_delta_step, subsample,
    sampling_method, colsample_bytree, colsample_bylevel, colsample_bynode, reg_alpha, reg_lambda, scale_pos_weight
        As in `xgboost.XGBClassifier`; None for its own default.
    early_stopping_rounds : int or None
        Stop when the log-loss of ``X_val`` has not fallen for so many rounds; the best round predicts.
    n_jobs : int or None
        Threads; None for all.
    device : {"cpu", "cuda", "cuda:N", "auto"}
        Where the fit computes, its projection too.
    random_state : int, RandomState or None

    Attributes
    ----------
    booster_ : xgboost.Booster
    classes_ : ndarray of shape (k,)
    projection_ : ndarray of shape (d, components), or None
    mean_ : ndarray of shape (d,), or None
    best_iteration_ : int
        The round that predicts, counted from 0.
    history_ : dict of str to list of float
        ``loss`` and, with ``X_val``, ``val_loss``; one entry a round, only where ``X_val`` was given.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> XGBoostHead(n_estimators=10, random_state=0).fit(X, y).score(X, y) > 0.95
    True
    """

    n_estimators: int = 60
    _: KW_ONLY
    components: int | None = 128
    max_bin: int = 64
    learning_rate: float | None = None
    max_depth: int | None = None
    max_leaves: int | None = None
    grow_policy: str | None = None
    min_child_weight: float | None = None
    gamma: float | None = None
    max_delta_step: float | None = None
    subsample: float | None = None
    sampling_method: str | None = None
    colsample_bytree: float | None = None
    colsample_bylevel: float | None = None
    colsample_bynode: float | None = None
    reg_alpha: float | None = None
    reg_lambda: float | None = None
    scale_pos_weight: float | None = None
    early_stopping_rounds: int | None = None
    n_jobs: int | None = None
    device: str = "cpu"
    random_state: Any = None

    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        memory: int | str | None = None,
    ) -> Self:
        """Fit on X (n, d) or Features, labels y (n,) and weights (n,); see `featx.heads.inputs.read_training`.

        Parameters
        ----------
        X_val, y_val : as `X` and `y`
            Rows for ``history_`` and early stopping.
        memory : int, str or None
            Of this XGBoost itself takes some 24 bytes a row and class, and a fifth of a MiB a component. The bins of
            a table that is larger are those of a sample of its rows.
        """
        import xgboost

        check_number("n_estimators", self.n_estimators, least=1, whole=True)
        check_number("max_bin", self.max_bin, least=2, whole=True)
        if self.components is not None:
            check_number("components", self.components, least=1, whole=True)
        training = read_training(self, X, y, sample_weight, memory=memory)
        self.mean_, self.projection_ = self._learn_projection(training)
        validation = None if X_val is None else read_labelled(self, X_val, y_val, memory=memory)
        stopping = None if validation is None else self.early_stopping_rounds
        results: dict[str, Any] = {}
        with TemporaryDirectory(prefix="featx-") as folder:
            table = self._matrix(training, folder)
            watched = [(table, "loss"), (self._matrix(validation, folder, table), "val_loss")] if validation else []
            self.booster_ = xgboost.train(
                self._parameters(),
                table,
                num_boost_round=self.n_estimators,
                evals=watched,
                early_stopping_rounds=stopping,
                evals_result=results,
                verbose_eval=False,
            )
            del table, watched  # before their files go
        self.history_ = {name: next(iter(columns.values())) for name, columns in results.items()}
        self.best_iteration_ = self.n_estimators - 1 if stopping is None else self.booster_.best_iteration
        return self

    def predict_proba(self, X: Any) -> Array:
        """Return probabilities, shape (n, k), columns in the order of ``classes_``."""
        check_is_fitted(self)
        rounds = (0, self.best_iteration_ + 1)
        parts = [
            self.booster_.inplace_predict(self._project(block), iteration_range=rounds)
            for _, block in read_rows(self, X).blocks()
        ]
        probabilities: Array = np.concatenate(parts)
        return np.stack([1 - probabilities, probabilities], axis=1) if probabilities.ndim == 1 else probabilities

    def predict(self, X: Any) -> Array:
        """Return the most probable label of each row, shape (n,)."""
        codes = self.predict_proba(X).argmax(axis=1)
        labels: Array = self.classes_[codes]
        return labels

    def _parameters(self) -> dict[str, Any]:
        k = len(self.classes_)
        objective = {"objective": "multi:softprob", "num_class": k} if k > 2 else {"objective": "binary:logistic"}
        given = {name: getattr(self, name) for name in _BOOSTER_SETTINGS}
        return {
            "tree_method": "hist",
            "eval_metric": "mlogloss" if k > 2 else "logloss",
            "seed": int(check_random_state(self.random_state).randint(2**31 - 1)),
            "nthread": self.n_jobs or 0,
            "verbosity": 0,
            **objective,
            **{name: value for name, value in given.items() if value is not None},
            "device": resolve_device(self.device, "device"),
        }

    def _learn_projection(self, training: Samples) -> tuple[Array | None, Array | None]:
        """Return the mean (d,) and the whitened principal axes (d, components) of the weighted rows."""
        d, dtype = training.shape[1], training.dtype
        if self.components is None or self.components >= d:
            return None, None

        def moments(*where: Any) -> tuple[Array, Array]:
            mean = mean_row(training.on(*where))
            return mean, second_moment(training.on(*where), mean)[0]

        mean, gram = within_memory(moments, training.device_for(self.device))
        values, axes = leading(gram, self.components)
        variances = values / training.weights.sum()
        floor = np.finfo(dtype).eps * max(float(variances[0]), float(np.finfo(dtype).tiny))
        return mean.astype(dtype), np.ascontiguousarray(axes / np.sqrt(np.maximum(variances, floor)))

    def _project(self, block: Array) -> Array:
        if self.projection_ is None or self.mean_ is None:
            return block
        # Thresholds lie exactly on training rows. Rounded, these stay on their side of them, although
        # products of other shapes, one image instead of many, differ in their last bits.
        mean, axes = like(self.mean_, block), like(self.projection_, block)
        projected: Array = module_of(block).round((block - mean) @ axes, decimals=4)
        return projected

    def _projected(self, training: Samples, block: Array) -> Array:
        """Return `_project` of a block, computed where `training` is given."""
        parts = np.array_split(block, training.n_parts)
        return np.concatenate([to_numpy(self._project(training.placed(part))) for part in parts])

    def _matrix(self, training: Samples, folder: str, reference: Any = None) -> Any:
        """Return an xgboost matrix of bins, in memory, or in files of `folder` where it would fill the memory limit."""
        import xgboost

        columns = training.shape[1] if self.projection_ is None else self.projection_.shape[1]
        outside = training.limit is not None and len(training) * columns > training.limit // 8
        if training.limit is not None and reference is None:
            # To find bins XGBoost takes up to half a MiB a column; those of a sample are nearly the same.
            n_sample = min(len(training), training.limit // (16 * columns * training.dtype.itemsize) + self.max_bin)
            sample = training.select(np.linspace(0, len(training) - 1, n_sample).astype(np.intp))
            reference = self._bins(sample, xgboost.QuantileDMatrix)
        kind = xgboost.ExtMemQuantileDMatrix if outside else xgboost.QuantileDMatrix
        return self._bins(training, kind, reference, f"{folder}/rows" if outside else None)

    def _bins(self, training: Samples, kind: Any, reference: Any = None, cache_prefix: str | None = None) -> Any:
        """Return a matrix of `kind` with the bins of `reference`, or of its own."""
        blocks = _iterator(lambda: self._batches(training), cache_prefix)
        return kind(blocks, max_bin=self.max_bin, ref=reference, nthread=self.n_jobs or 0)

    def _batches(self, training: Samples) -> Iterator[dict[str, Array]]:
        """Yield projected rows, labels and weights, in batches about as large as the blocks they come from."""
        batch: list[tuple[Array, Array, Array]] = []
        n_bytes = 0
        device = training.device_for(self.device)
        for indices, block in training.blocks():
            rows = within_memory(lambda *where, block=block: self._projected(training.on(*where), block), device)
            batch.append((rows, training.targets[indices], training.weights[indices]))
            n_bytes += batch[-1][0].nbytes
            if n_bytes >= block.nbytes:
                yield _joined(batch)
                batch, n_bytes = [], 0
        if batch:
            yield _joined(batch)


def _joined(batch: list[tuple[Array, Array, Array]]) -> dict[str, Array]:
    data, label, weight = (np.concatenate(parts) for parts in zip(*batch, strict=True))
    return {"data": data, "label": label, "weight": weight}


def _iterator(start: Callable[[], Iterator[dict[str, Array]]], cache_prefix: str | None) -> Any:
    """Return what xgboost reads batches from, as often as it likes to; `start` begins anew."""
    import xgboost

    class Batches(xgboost.DataIter):
        def __init__(self) -> None:
            super().__init__(cache_prefix=cache_prefix)
            self.batches = start()

        def next(self, input_data: Any) -> bool:
            batch = next(self.batches, None)
            if batch is not None:
                input_data(**batch)
            return batch is not None

        def reset(self) -> None:
            self.batches = start()

    return Batches()
