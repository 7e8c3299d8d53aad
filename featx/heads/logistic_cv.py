"""`LogisticHeadCV`: a path of penalties with folds side by side, from one factorisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from featx.devices import within_memory
from featx.errors import DataError
from featx.heads.inputs import Samples, read_labelled, read_training
from featx.heads.linear import LinearClassifier, keep_solution, logistic_loss, probabilities, uncentred
from featx.heads.solver import REFRESH, Minimiser, Problem
from featx.heads.targets import Array, ClassWeight
from featx.metrics.choosing import METRIC_CHOICES, METRICS, metric_of
from featx.settings import check_choice, check_number

#: The path is solved to ten times ``tol``, but, where that is more, only to this: scikit-learn's own.
PATH_TOLERANCE = 1e-4
#: Scores that are means over rows.
_BY_ROW = ("accuracy", "neg_log_loss")
_SCORINGS = (*_BY_ROW, *(name for name in METRIC_CHOICES if name not in (*_BY_ROW, *METRICS["regress"])))


@dataclass(eq=False, repr=False)
class LogisticHeadCV(LinearClassifier):
    """Logistic regression whose C is chosen by cross-validation, or on given validation rows.

    The folds are solved side by side, so that they share every product with the rows, at the default
    `tol` to ten times that; each C starts from the solution of the one before. The chosen C is then
    fitted on all rows, to `tol`. Several labels a row, y (n, t) of 0 or 1, have one C.

    Parameters
    ----------
    Cs : int or sequence of float
        Values of C; an int gives so many, evenly spaced in logarithm from 1e-5 to 1.
    cv : int, splitter or iterable
        Folds, stratified by class (and by group, where ``fit`` is given groups), or what scikit-learn takes as
        ``cv``; rows that are not held out are trained on. Not used where ``fit`` is given ``X_val``.
    scoring : str
        ``accuracy`` or ``neg_log_loss``, of several labels a row their mean over labels; or what ``featx fit --metric``
        takes (`featx.metrics.METRIC_CHOICES`), which counts all rows alike; that of labels is, of two classes, of
        the second.
    one_standard_error : bool
        Take the smallest C whose mean score is within one standard error of the best (Breiman et al.,
        "Classification and regression trees", 1984), instead of the best.
    tol, max_iter, class_weight, device
        As in `LogisticHead`.
    random_state : int, RandomState or None
        Shuffles rows before they are cut into folds; None keeps their order.

    Attributes
    ----------
    coef_, intercept_, classes_, objective_, gradient_norm_, n_iter_
        As in `LogisticHead`, of the fit on all rows with ``C_``.
    C_ : float
    Cs_ : ndarray of shape (n_Cs,)
        Ascending.
    scores_ : ndarray of shape (n_folds, n_Cs)
        On the rows held out; one fold where validation rows were given.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> head = LogisticHeadCV(Cs=(1e-4, 1e-2, 1), cv=3).fit(X, y)
    >>> head.C_, head.scores_.mean(axis=0).round(2)
    (0.01, array([0.9 , 0.93, 0.93]))
    """

    Cs: int | Sequence[float] = 20
    _: KW_ONLY
    cv: Any = 5
    scoring: str = "accuracy"
    one_standard_error: bool = False
    tol: float = 1e-5
    max_iter: int = 1000
    class_weight: ClassWeight = None
    device: str = "auto"
    random_state: Any = None

    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        groups: Any = None,
        memory: int | str | None = None,
    ) -> Self:
        """Fit on X (n, d) or Features, labels y (n,) and weights (n,); see `featx.heads.inputs.read_training`.

        Parameters
        ----------
        X_val, y_val : as `X` and `y`
            Rows that choose C, instead of folds. They are not fitted on.
        groups : array-like of shape (n,), or None
            Rows of one group stay in one fold.
        """
        Cs = self._path()
        training = read_training(self, X, y, sample_weight, class_weight=self.class_weight, memory=memory)
        validation = None if X_val is None else read_labelled(self, X_val, y_val, memory=memory)
        held_out = np.zeros((1, len(training.targets)), bool) if validation else self._folds(training, groups)
        self.Cs_ = Cs
        device = training.device_for(self.device)
        within_memory(lambda *where: self._fit(training, validation, held_out, *where), device)
        return self

    def _fit(
        self,
        training: Samples,
        validation: Samples | None,
        held_out: NDArray[np.bool_],
        device: str,
        n_parts: int,
    ) -> None:
        """Walk the path and fit what is chosen; `device` and `n_parts` as in `featx.devices.within_memory`."""
        weights, totals = _fold_weights(training, held_out)
        problem = Problem(training, weights, logistic_loss(training), device, n_parts)
        minimiser = Minimiser(problem)
        tol = max(self.tol, min(10 * self.tol, PATH_TOLERANCE))
        scores, means = [], []
        for C in self.Cs_:
            penalties = problem.penalties(1 / (C * totals))
            solution = minimiser.minimise(penalties, tol=tol, max_iter=self.max_iter)
            scores.append(self._score(problem, solution.theta, training, held_out, validation))
            means.append(solution.theta.mean(0)[None])
        self.scores_ = np.array(scores).T
        chosen = _choose(self.scores_, one_standard_error=self.one_standard_error)
        self.C_ = float(self.Cs_[chosen])
        self._finish(minimiser, training, means[chosen])

    def _finish(self, path: Minimiser, training: Samples, start: Any) -> None:
        """Fit on all rows with the chosen C, from what the folds found."""
        problem, total = path.problem, float(training.weights.sum())
        problem.reweight(training.weights[None] / total)
        # Where measuring the curvature anew costs many steps, that of the path will do.
        curvature = path.curvature if problem.curvature_cost > REFRESH else None
        solution = Minimiser(problem, start, curvature).minimise(
            problem.penalties(np.array([1 / (self.C_ * total)])), tol=self.tol, max_iter=self.max_iter
        )
        keep_solution(self, problem, solution, total=total, C=self.C_)

    def _path(self) -> NDArray[np.float64]:
        if isinstance(self.Cs, int | np.integer):
            check_number("Cs", self.Cs, least=1)
            Cs = np.logspace(-5, 0, self.Cs)
        else:
            Cs = np.atleast_1d(np.asarray(self.Cs, dtype=object))
        for C in Cs:
            check_number("C", C, above=0, most=1e30)
        check_choice("scoring", self.scoring, _SCORINGS)
        check_number("tol", self.tol, above=0)
        check_number("max_iter", self.max_iter, least=1, whole=True)
        return np.sort(Cs.astype(np.float64))

    def _folds(self, training: Samples, groups: Any) -> NDArray[np.bool_]:
        """Return which rows each fold holds out, shape (cv, n)."""
        from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold, check_cv

        n, splitter = len(training.targets), self.cv
        if isinstance(splitter, int | np.integer):
            check_number("cv", splitter, least=2)
            by_class = (StratifiedKFold, StratifiedGroupKFold)
            kind = ((KFold, GroupKFold) if self.multilabel_ else by_class)[groups is not None]
            shuffle = self.random_state is not None
            splitter = kind(splitter, shuffle=shuffle, random_state=self.random_state)
        splits = check_cv(splitter, training.targets, classifier=True).split(np.zeros((n, 1)), training.targets, groups)
        folds = []
        for _, rows in splits:
            folds.append(np.zeros(n, bool))
            folds[-1][rows] = True
        return np.stack(folds)

    def _score(
        self,
        problem: Problem,
        theta: Any,
        training: Samples,
        held_out: NDArray[np.bool_],
        validation: Samples | None,
    ) -> NDArray[np.float64]:
        """Return the weighted score of each fold on its own rows, shape (n_folds,)."""
        coef, intercept = uncentred(problem, theta)
        if validation is not None:
            training, held_out = validation, np.ones((1, len(validation.targets)), bool)
        folds = len(held_out)
        if self.scoring not in _BY_ROW:
            return self._metric(coef, intercept, training, held_out)
        sums, totals = np.zeros(folds), np.zeros(folds)
        for indices, block in training.blocks():
            targets, weights, held = training.targets[indices], training.weights[indices], held_out[:, indices]
            Z = block @ coef[:folds].reshape(-1, coef.shape[2]).T + intercept[:folds].reshape(-1)
            Z = Z.reshape(len(block), folds, -1)
            for fold in range(folds):
                rows = held[fold]
                q = probabilities(self, Z[rows, fold] if Z.shape[2] > 1 else Z[rows, fold, 0])
                sums[fold] += weights[rows] @ self._gain(q, targets[rows])
                totals[fold] += weights[rows].sum()
        return sums / np.maximum(totals, np.finfo(float).tiny)

    def _metric(self, coef: Any, intercept: Any, rows: Samples, held_out: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return a metric that is no mean over rows, of each fold on its own, shape (n_folds,)."""
        # Of a single label y is (n,), as of two classes.
        one = not self.multilabel_ and len(self.classes_) == 2 and self.scoring not in METRICS["classify"]
        metric, scores = metric_of("multilabel" if self.multilabel_ or one else "classify", self.scoring), []
        for fold, held in enumerate(held_out):
            found = []
            for indices, block in rows.blocks():
                Z = block[held[indices]] @ coef[fold].T + intercept[fold]
                found.append(probabilities(self, Z if Z.shape[1] > 1 else Z[:, 0]).reshape(len(Z), -1))
            truth, told = rows.targets[held], np.concatenate(found)
            scores.append(metric.worth(truth[:, None], told[:, 1:]) if one else metric.worth(truth, told))
        return np.array(scores)

    def _gain(self, q: Array, targets: Array) -> Array:
        """Return the score of each row (n,), given probabilities (n, k)."""
        if self.multilabel_:
            true = np.where(targets == 1, q, 1 - q)
            gains = true > 0.5 if self.scoring == "accuracy" else np.log(np.maximum(true, np.finfo(q.dtype).tiny))
            return np.asarray(gains.mean(axis=1))
        if self.scoring == "accuracy":
            return np.asarray(q.argmax(axis=1) == targets, dtype=np.float64)
        true = q[np.arange(len(targets)), targets]
        return np.asarray(np.log(np.maximum(true, np.finfo(true.dtype).tiny)))


def _fold_weights(training: Samples, held_out: NDArray[np.bool_]) -> tuple[Array, NDArray[np.float64]]:
    """Return the weights (p, n) of the rows that each fold is fitted on, each row of sum 1, and the sums before."""
    # A streamed table's are made in the dtype that its problems compute in: twice that is much of a memory limit.
    dtype = np.dtype(np.float64) if training.in_memory else training.dtype
    weights, totals = np.empty(held_out.shape, dtype), np.empty(len(held_out))
    for fold, held in enumerate(held_out):
        kept = np.where(held, 0, training.weights)
        totals[fold] = kept.sum()
        if not totals[fold]:
            raise DataError("A fold has no rows with a positive weight. Lower cv.")
        weights[fold] = kept / totals[fold]
    return weights, totals


def _choose(scores: NDArray[np.float64], *, one_standard_error: bool) -> int:
    """Return the index of the best column of (n_folds, n_Cs), the first of equals.

    Examples
    --------
    >>> _choose(np.array([[0.7, 0.8, 0.81], [0.7, 0.9, 0.91]]), one_standard_error=True)
    1
    """
    means = scores.mean(axis=0)
    best = int(means.argmax())
    if one_standard_error and len(scores) > 1:
        error = scores[:, best].std(ddof=1) / np.sqrt(len(scores))
        return int(np.flatnonzero(means >= means[best] - error)[0])
    return best
