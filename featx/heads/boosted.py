"""`XGBoostHead` and `XGBoostRegressor`: gradient-boosted trees on a whitened projection of the features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from featx.devices import resolve_device, within_memory
from featx.errors import OptionError
from featx.heads.estimator import Head, Regressor
from featx.heads.inputs import Samples, like, read_labelled, read_rows, read_training
from featx.heads.losses import module_of, to_numpy
from featx.heads.moments import leading, mean_row, second_moment
from featx.heads.targets import Array, ClassWeight, Units
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


class _FittedTrees:
    """What a fit finds; `XGBoostHead` documents it."""

    classes_: Array
    n_features_in_: int
    booster_: Any
    projection_: Array | None
    mean_: Array | None
    best_iteration_: int
    history_: dict[str, list[float]]


#: How far a fit is, told after each round, by objective.
_METRICS = {"multi:softprob": "mlogloss", "binary:logistic": "logloss", "reg:squarederror": "rmse"}


@dataclass(eq=False, repr=False)
class _BoostedTrees(_FittedTrees):
    """What heads share whose scores are those of trees; `XGBoostHead` documents it."""

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
    early_stopping_rounds: int | None = None
    n_jobs: int | None = None
    device: str = "cpu"
    random_state: Any = None

    def objective(self) -> str:
        """Return XGBoost's name for what a fitted head has minimised."""
        raise NotImplementedError

    def _read(self, X: Any, y: Any, sample_weight: Any, memory: int | str | None) -> Samples:
        """Return what to fit on."""
        return read_training(self, X, y, sample_weight, memory=memory)

    def _labels(self, targets: Array) -> Array:
        """Return targets as XGBoost is to see them."""
        return targets

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
        """Fit on X (n, d) or Features, targets y and weights (n,); see `featx.heads.inputs.read_training`.

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
        training = self._read(X, y, sample_weight, memory)
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

    def _predicted(self, X: Any) -> Array:
        """Return what the trees say, shape (n,) for one score a row, else (n, o)."""
        check_is_fitted(self)
        rounds = (0, self.best_iteration_ + 1)
        parts = [
            self.booster_.inplace_predict(self._project(block), iteration_range=rounds)
            for _, block in read_rows(self, X).blocks()
        ]
        return np.concatenate(parts)

    def _parameters(self) -> dict[str, Any]:
        objective = self.objective()
        given = {name: getattr(self, name, None) for name in _BOOSTER_SETTINGS}
        return {
            "tree_method": "hist",
            "objective": objective,
            "eval_metric": _METRICS[objective],
            "seed": int(check_random_state(self.random_state).randint(2**31 - 1)),
            "nthread": self.n_jobs or 0,
            "verbosity": 0,
            **({"num_class": len(self.classes_)} if objective == "multi:softprob" else {}),
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
            batch.append((rows, self._labels(training.targets[indices]), training.weights[indices]))
            n_bytes += batch[-1][0].nbytes
            if n_bytes >= block.nbytes:
                yield _joined(batch)
                batch, n_bytes = [], 0
        if batch:
            yield _joined(batch)


@dataclass(eq=False, repr=False)
class XGBoostHead(_BoostedTrees, Head):
    """Gradient-boosted trees (XGBoost, histograms), on whitened principal components learned on the training rows.

    Trees split one feature at a time, and pay for each of them; the leading components of a deep
    feature table hold what separates its classes in a tenth of the columns.

    One fit runs on one machine. Under a memory limit its bins are kept in files (`xgboost.ExtMemQuantileDMatrix`), so
    that the table may be larger than memory; XGBoost's training across machines needs Dask or a tracker of its own
    with all workers up at once, and is not used. Several fits, as of a search, may run on several machines.

    Parameters
    ----------
    n_estimators : int
        Rounds; each grows one tree a class (one for two classes) or label.
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
    class_weight : dict, "balanced" or None
        As in scikit-learn; None for several labels a row.
    n_jobs : int or None
        Threads; None for all.
    device : {"cpu", "cuda", "cuda:N", "auto"}
        Where the fit computes, its projection too.
    random_state : int, RandomState or None

    Attributes
    ----------
    booster_ : xgboost.Booster
    classes_ : ndarray of shape (k,)
    multilabel_ : bool
        Whether rows have several labels, y (n, t) of 0 or 1.
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

    scale_pos_weight: float | None = None
    class_weight: ClassWeight = None

    takes_labels = True

    def objective(self) -> str:
        """Return XGBoost's name for what a fitted head has minimised."""
        return "multi:softprob" if len(self.classes_) > 2 and not self.multilabel_ else "binary:logistic"

    def predict_proba(self, X: Any) -> Array:
        """Return probabilities, shape (n, k), columns in the order of ``classes_``; of several labels each its own."""
        probabilities = self._predicted(X)
        return np.stack([1 - probabilities, probabilities], axis=1) if probabilities.ndim == 1 else probabilities

    def predict(self, X: Any) -> Array:
        """Return the most probable label of each row, shape (n,); of several those more probable than not, (n, t)."""
        probabilities = self.predict_proba(X)
        return self._decided(probabilities - 0.5 if self.multilabel_ else probabilities)

    def _read(self, X: Any, y: Any, sample_weight: Any, memory: int | str | None) -> Samples:
        training = read_training(self, X, y, sample_weight, class_weight=self.class_weight, memory=memory)
        if training.label_weights is not None:
            raise OptionError(
                "XGBoost takes a weight a row, not a label. Leave out class_weight, or fit --head logreg or --head mlp."
            )
        return training


@dataclass(eq=False, repr=False)
class XGBoostRegressor(_BoostedTrees, Regressor):
    """Gradient-boosted trees (XGBoost, histograms) that tell numbers, on whitened principal components.

    Parameters
    ----------
    n_estimators : int
        Rounds; each grows one tree a number.
    components, max_bin, learning_rate, max_depth, max_leaves, grow_policy, min_child_weight, gamma, max_delta_step
        As in `XGBoostHead`, and so are the rest. Numbers are seen less their mean, over their standard deviation.
    subsample, sampling_method, colsample_bytree, colsample_bylevel, colsample_bynode, reg_alpha, reg_lambda
    early_stopping_rounds : int or None
        Stop when the root mean squared error of ``X_val`` has not fallen for so many rounds; the best round predicts.
    n_jobs, device, random_state

    Attributes
    ----------
    n_outputs_ : int
        Numbers a row.
    booster_, projection_, mean_, best_iteration_, history_
        As in `XGBoostHead`.
    target_mean_, target_scale_ : ndarray of shape (n_outputs_,)
        Mean and standard deviation of the numbers.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> XGBoostRegressor(n_estimators=10, max_depth=2, random_state=0).fit(X, y).score(X, y) > 0.4
    True
    """

    def objective(self) -> str:
        """Return XGBoost's name for what a fitted head has minimised."""
        return "reg:squarederror"

    def predict(self, X: Any) -> Array:
        """Return numbers, shape (n,), or (n, t) for several."""
        found = self._predicted(X).reshape(-1, self.n_outputs_).astype(np.float64)
        numbers = Units(self.target_mean_, self.target_scale_).given(found)
        return numbers[:, 0] if self.n_outputs_ == 1 else numbers

    def _read(self, X: Any, y: Any, sample_weight: Any, memory: int | str | None) -> Samples:
        training = super()._read(X, y, sample_weight, memory)
        units = Units.of(training.targets, training.weights)
        self.target_mean_, self.target_scale_ = units.mean, units.scale
        return training

    def _labels(self, targets: Array) -> Array:
        return Units(self.target_mean_, self.target_scale_).without(targets)


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
