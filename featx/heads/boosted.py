"""`XGBoostHead`: gradient-boosted trees on a whitened projection of the features."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from scipy import linalg
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from featx.heads.inputs import Array, Training, read_labelled, read_rows, read_training
from featx.heads.settings import check_choice, check_number

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


class XGBoostHead(ClassifierMixin, BaseEstimator):
    """Gradient-boosted trees (XGBoost, histograms), on whitened principal components learned on the training rows.

    Trees split one feature at a time, and pay for each of them; the leading components of a deep
    feature table hold what separates its classes in a tenth of the columns.

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
    device : {"cpu", "cuda"}
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

    def __init__(
        self,
        n_estimators: int = 60,
        *,
        components: int | None = 128,
        max_bin: int = 64,
        learning_rate: float | None = None,
        max_depth: int | None = None,
        max_leaves: int | None = None,
        grow_policy: str | None = None,
        min_child_weight: float | None = None,
        gamma: float | None = None,
        max_delta_step: float | None = None,
        subsample: float | None = None,
        sampling_method: str | None = None,
        colsample_bytree: float | None = None,
        colsample_bylevel: float | None = None,
        colsample_bynode: float | None = None,
        reg_alpha: float | None = None,
        reg_lambda: float | None = None,
        scale_pos_weight: float | None = None,
        early_stopping_rounds: int | None = None,
        n_jobs: int | None = None,
        device: str = "cpu",
        random_state: Any = None,
    ) -> None:
        self.n_estimators = n_estimators
        self.components = components
        self.max_bin = max_bin
        self.learning_rate = learning_rate
        self.max_depth = max_depth
        self.max_leaves = max_leaves
        self.grow_policy = grow_policy
        self.min_child_weight = min_child_weight
        self.gamma = gamma
        self.max_delta_step = max_delta_step
        self.subsample = subsample
        self.sampling_method = sampling_method
        self.colsample_bytree = colsample_bytree
        self.colsample_bylevel = colsample_bylevel
        self.colsample_bynode = colsample_bynode
        self.reg_alpha = reg_alpha
        self.reg_lambda = reg_lambda
        self.scale_pos_weight = scale_pos_weight
        self.early_stopping_rounds = early_stopping_rounds
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state

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
        """
        import xgboost

        check_number("n_estimators", self.n_estimators, least=1, whole=True)
        check_number("max_bin", self.max_bin, least=2, whole=True)
        check_choice("device", self.device, ("cpu", "cuda"))
        if self.components is not None:
            check_number("components", self.components, least=1, whole=True)
        training = read_training(self, X, y, sample_weight, memory=memory)
        self.mean_, self.projection_ = self._learn_projection(training)
        table = self._matrix(training)
        watched = []
        if X_val is not None:
            watched = [(table, "loss"), (self._matrix(read_labelled(self, X_val, y_val), table), "val_loss")]
        results: dict[str, Any] = {}
        self.booster_ = xgboost.train(
            self._parameters(),
            table,
            num_boost_round=self.n_estimators,
            evals=watched,
            early_stopping_rounds=self.early_stopping_rounds if watched else None,
            evals_result=results,
            verbose_eval=False,
        )
        self.history_ = {name: next(iter(columns.values())) for name, columns in results.items()}
        stopped = self.early_stopping_rounds is not None and bool(watched)
        self.best_iteration_ = self.booster_.best_iteration if stopped else self.n_estimators - 1
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
        if len(self.classes_) == 2:
            probabilities = np.stack([1 - probabilities, probabilities], axis=1)
        return probabilities

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
        }

    def _learn_projection(self, training: Training) -> tuple[Array | None, Array | None]:
        """Return the mean (d,) and the whitened principal axes (d, components) of the weighted rows."""
        rows, weights = training.rows, training.weights / training.weights.sum()
        d = rows.shape[1]
        if self.components is None or self.components >= d:
            return None, None
        mean = sum(weights[i] @ block for i, block in rows.blocks()).astype(rows.dtype)
        covariance = np.zeros((d, d))
        for i, block in rows.blocks():
            A = (block - mean) * np.sqrt(weights[i]).astype(rows.dtype)[:, None]
            covariance += A.T @ A
        values, vectors = linalg.eigh(
            covariance.astype(rows.dtype), subset_by_index=(d - self.components, d - 1), check_finite=False
        )
        floor = np.finfo(rows.dtype).eps * max(float(values[-1]), np.finfo(rows.dtype).tiny)
        return mean, np.ascontiguousarray(vectors[:, ::-1] / np.sqrt(np.maximum(values[::-1], floor)))

    def _project(self, block: Array) -> Array:
        if self.projection_ is None:
            return block
        # Thresholds lie exactly on training rows. Rounded, these stay on their side of them, although
        # products of other shapes, one image instead of many, differ in their last bits.
        return np.round((block - self.mean_) @ self.projection_, 4)

    def _matrix(self, training: Training, reference: Any = None) -> Any:
        """Return an xgboost matrix of bins, made block by block."""
        import xgboost

        head = self

        class Blocks(xgboost.DataIter):
            def __init__(self) -> None:
                super().__init__()
                self.blocks = training.rows.blocks()

            def next(self, input_data: Any) -> bool:
                for indices, block in self.blocks:
                    input_data(
                        data=head._project(block), label=training.codes[indices], weight=training.weights[indices]
                    )
                    return True
                return False

            def reset(self) -> None:
                self.blocks = training.rows.blocks()

        return xgboost.QuantileDMatrix(Blocks(), max_bin=self.max_bin, ref=reference, nthread=self.n_jobs or 0)
