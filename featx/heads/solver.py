"""Penalised linear classifiers, many at once: their objectives, their curvature, and the minimiser.

Problem p has weights s_ip that sum to 1 over the rows and a penalty λ_p:

    f_p(W, b) = Σ_i s_ip loss(W (x_i - μ) + b, y_i) + λ_p/2 ‖W‖²

μ is the mean of the rows: taken off inside, it costs one product with μ instead of a copy of X.
All problems share every product with X, so five folds cost little more than one.

Small tables are solved in numpy, so that nobody waits for torch to be imported; larger ones, and those on a GPU, by
torch. What is written here holds for both: arrays are of one or the other, and ``xp`` is the module they are of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from featx.devices import arithmetic
from featx.heads.inputs import NUMPY, as_tensor
from featx.heads.losses import Array, module_of, to_numpy
from featx.machine import share_cores

if TYPE_CHECKING:
    from featx.heads.inputs import Samples
    from featx.heads.losses import Loss

#: Pairs of steps and gradient changes that L-BFGS remembers.
HISTORY = 10

#: Tables of at most so many values are solved in float64, which costs nothing there.
SMALL = 1 << 20


#: Scores computed at a time, at most: rows times problems times classes.
SCORES = 1 << 23

#: Rows a feature that the curvature is measured on, where there are so many.
ROWS_PER_FEATURE = 8

#: Steps on a GPU from one look at how far they have come to the next: a look waits for all that is queued.
STRIDE = 4

#: Lengths of a step that are tried, at most.
ATTEMPTS = 24

#: Steps, at least, before the curvature is first measured again; then after thrice as many, and so on.
REFRESH = 8


class Problem:
    """The objectives of p linear classifiers over the same rows.

    Parameters
    ----------
    samples : Samples
        n rows of d values with their classes or labels.
    weights : ndarray of float64, shape (p, n)
        Each row sums to 1.
    loss : Loss
    device : str
        Where products are computed, as `featx.devices.resolve_device` returns it.
    n_parts : int
        As in `featx.devices.within_memory`: of several, rows come to the device when they are needed.
    """

    def __init__(
        self, samples: Samples, weights: NDArray[np.float64], loss: Loss, device: str, n_parts: int = 1
    ) -> None:
        n_values = np.prod(samples.shape)
        self.samples, self.loss = samples, loss
        several = samples.targets.ndim == 2
        self.n_outputs = samples.targets.shape[1] if several else loss.n_outputs(len(samples.classes))
        self.device, self._n_parts = device, n_parts
        self.in_numpy = self.device == "cpu" and bool(n_values <= NUMPY)
        exact = samples.dtype == np.float64 or n_values <= SMALL
        self._dtype = np.dtype(np.float64 if exact else np.float32)
        self.targets = self._placed(samples.targets)
        self.weights = self._placed(weights.astype(self._dtype, copy=False))
        resident = isinstance(samples.source, np.ndarray) and n_parts == 1
        self._resident = self._placed(samples.source.astype(self._dtype, copy=False)) if resident else None  # type: ignore[union-attr]
        self._sample: tuple[Any, Array] | None = None
        mean = self.zeros(samples.shape[1])
        for indices, X in self.blocks():
            mean += self.weights[:, indices].mean(0) @ X
        self.mean = mean

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (p, k, d + 1) of the parameters; the last column is the intercept at μ."""
        return len(self.weights), self.n_outputs, self.samples.shape[1] + 1

    def exact(self) -> AbstractContextManager[None]:
        """Return the context in which torch multiplies as it should, whatever the process allows."""
        return nullcontext() if self.in_numpy else arithmetic(self.weights.device, "fp32")

    def zeros(self, *shape: int) -> Array:
        """Return zeros where, and in the dtype in which, the problem is solved."""
        return self._placed(np.zeros(shape, self._dtype))

    def penalties(self, values: NDArray[np.float64]) -> Array:
        """Return penalties (p,) where the problem is solved."""
        return self._placed(values)

    def blocks(self) -> Iterator[tuple[Any, Array]]:
        """Yield (indices, rows), so many at a time that their scores take no more than a bounded room."""
        p, k, _ = self.shape
        step = max(1024, SCORES // (p * k))
        if self._resident is not None:
            for start in range(0, len(self.samples), step):
                share_cores()
                yield slice(start, start + step), self._resident[start : start + step]
            return
        rows = self.samples.on("cpu", self._n_parts)
        for indices, block in rows.blocks(min(rows.block_bytes, step * rows.row_bytes) if rows.n_parts > 1 else None):
            yield indices, self._placed(block.astype(self._dtype, copy=False))

    def reweight(self, weights: NDArray[np.float64]) -> None:
        """Become the problems of other weights (p, n), about the same mean; those of the rows in use stay positive."""
        self.weights = self._placed(weights.astype(self._dtype))

    def scores(self, theta: Array, X: Array) -> Array:
        """Return the scores (p, k, n) of rows X (n, d) at parameters (p, k, d + 1)."""
        p, k, width = theta.shape
        coef = theta[..., :-1].reshape(p * k, width - 1)
        scores = coef @ X.T
        scores += (theta[..., -1].reshape(p * k) - coef @ self.mean)[:, None]
        return scores.reshape(p, k, -1)

    def evaluate(self, theta: Array, penalties: Array) -> tuple[Array, Array]:
        """Return values (p,) and gradients (p, k, d + 1) at `theta`, of `penalties` (p,)."""
        xp = module_of(theta)
        p, k, _ = theta.shape
        coef = theta[..., :-1]
        values = penalties * (coef * coef).sum((1, 2), dtype=xp.float64) / 2
        gradient = xp.zeros_like(theta)
        for indices, X in self.blocks():
            losses, residual = self.loss(self.scores(theta, X), self.targets[indices])
            weights = self.weights[:, indices]
            losses *= weights
            values = values + losses.sum(1, dtype=xp.float64)
            residual *= weights[:, None]
            gradient[..., :-1] += (residual.reshape(p * k, -1) @ X).reshape(p, k, -1)
            gradient[..., -1] += residual.sum(2)
        gradient[..., :-1] += _like(penalties, theta)[:, None, None] * coef - gradient[..., -1:] * self.mean
        return values, gradient

    def gradient_norms(self, gradient: Array) -> Array:
        """Return the largest absolute entries (p,) of gradients in coefficients and intercepts without μ."""
        xp = module_of(gradient)
        coef = gradient[..., :-1] + gradient[..., -1:] * self.mean
        return xp.maximum(xp.amax(abs(coef), (1, 2)), xp.amax(abs(gradient[..., -1]), 1))

    def curvature(self, theta: Array) -> Curvature:
        """Measure the Hessian at `theta`, of the last problem for all, on a sample of the rows."""
        indices, X = self._sampled()
        weights = self.weights[-1, indices]
        u, v = self.loss.hessian(self.scores(theta[-1:], X), self.targets[indices])
        return Curvature.measure(X - self.mean, weights / weights.sum(), u[0], v[0])

    @property
    def curvature_cost(self) -> float:
        """What measuring the curvature costs, in evaluations, by rough counts of operations."""
        n, d = self.samples.shape
        p, k, _ = self.shape
        m = self._sample_size
        # An evaluation is bound by reading the rows, an eigendecomposition by all that is no product in it.
        evaluation, decomposition = n * d * (4 * p * k + 200), 25 * min(m, d) ** 3
        return (2 * m * d * min(m, d) + decomposition) / evaluation

    @property
    def _sample_size(self) -> int:
        return min(ROWS_PER_FEATURE * self.samples.shape[1], self.samples.sample_size)

    def _sampled(self) -> tuple[Any, Array]:
        if self._sample is None:
            m = self._sample_size
            chosen = np.flatnonzero(to_numpy(self.weights[-1]) > 0)
            if len(chosen) > m:
                chosen = np.sort(np.random.default_rng(0).choice(chosen, m, replace=False))
            rows = self.samples.take(chosen).astype(self._dtype, copy=False)
            self._sample = self._placed(chosen), self._placed(rows)
        return self._sample

    def _placed(self, array: Any) -> Array:
        return array if self.in_numpy else as_tensor(array, self.device)


def _like(array: Array, other: Array) -> Array:
    """Return `array` in the dtype of `other`."""
    return module_of(array).asarray(array, dtype=other.dtype)


@dataclass(frozen=True)
class Curvature:
    """The preconditioner: a Hessian without its penalty, as one matrix over classes times one over features.

    Rows x_i with weights s_i and Hessians h_i (k, k) in the scores give the Hessian Σ s_i h_i ⊗ x_i x_iᵀ + λ I
    of size k·d. It is taken apart as K-FAC does (Martens and Grosse, "Optimizing neural networks with
    Kronecker-factored approximate curvature", 2015), with w_i = tr(h_i) and the weighted mean m:

        B = Σ s_i h_i                                        = U diag(b) Uᵀ    over classes
        A = Σ s_i w_i (x_i - m)(x_i - m)ᵀ / Σ s_i w_i        = V diag(a) Vᵀ    over features

    At zero scores, where a fit starts, every h_i is the same and B ⊗ A is the Hessian itself; later rows that are
    far from any boundary count for little, as they should. Its inverse is a scaling in the basis U ⊗ V, for
    every λ alike, so that folds and penalties share one factorisation.

    Attributes
    ----------
    mean : array, shape (d,)
        m, about which the intercept and the coefficients are independent.
    classes, class_values : array, shape (k, k) and (k,)
        U and b.
    features, feature_values : array, shape (d, r) and (r,)
        V and a, for the r = min(rows, d) directions in which rows differ; the rest have curvature zero.
    """

    mean: Array
    classes: Array
    class_values: Array
    features: Array
    feature_values: Array

    @classmethod
    def measure(cls, X: Array, weights: Array, u: Array, v: Array) -> Curvature:
        """Measure it on rows X (m, d) with weights (m,) that sum to 1, and their Hessians diag(u) - v vᵀ, both (k, m).

        X is lost: it may be a large part of what a memory limit allows.
        """
        xp = module_of(X)
        class_values, classes = xp.linalg.eigh(xp.diag(u @ weights) - (v * weights) @ v.T)
        traces = (weights * (u - v * v).sum(0)).clip(min=0)
        traces = traces / traces.sum().clip(min=xp.finfo(X.dtype).tiny)
        mean = traces @ X
        X -= mean
        X *= xp.sqrt(traces)[:, None]
        feature_values, features = _moments(X)
        return cls(mean, classes, class_values.clip(min=0), features, feature_values.clip(min=0))

    def solve(self, gradient: Array, penalties: Array) -> Array:
        """Return P⁻¹ times `gradient` (p, k, d + 1), where P has the penalties (p,) on all but the intercept."""
        values = self.class_values[:, None] * self.feature_values
        shift = _like(penalties.clip(min=_floor(values, penalties)), gradient)[:, None, None]
        g_intercept = self.classes.T @ gradient[..., -1:]
        g_coef = self.classes.T @ gradient[..., :-1] - g_intercept * self.mean
        along = g_coef @ self.features
        coef = g_coef / shift + (along / (values + shift) - along / shift) @ self.features.T
        # A score that all classes share changes no softmax: its curvature is zero but for rounding.
        floor = _floor(self.class_values, gradient)
        intercept = g_intercept / self.class_values.clip(min=floor)[:, None]
        solved = module_of(gradient).zeros_like(gradient)
        solved[..., :-1] = self.classes @ coef
        solved[..., -1:] = self.classes @ (intercept - coef @ self.mean[:, None])
        return solved


def _floor(values: Array, like: Array) -> Array:
    """Return what is taken for zero beside the largest of `values`, in the dtype of `like`; where they are."""
    xp = module_of(values)
    return _like(1e-6 * xp.asarray(values.max(), dtype=xp.float64) + 1e-30, like)


def _moments(A: Array) -> tuple[Array, Array]:
    """Return the eigenvalues (r,) and vectors (d, r) of AᵀA for A (m, d), from the smaller of its two Gram matrices."""
    xp = module_of(A)
    m, d = A.shape
    if m >= d:
        return _eigh(A.T @ A)
    values, left = _eigh(A @ A.T)
    kept = values > values[-1] * xp.finfo(A.dtype).eps * m
    return values[kept], A.T @ (left[:, kept] / xp.sqrt(values[kept]))


def _eigh(gram: Array) -> tuple[Array, Array]:
    """Return the eigenvalues, ascending, and eigenvectors of a Gram matrix."""
    xp = module_of(gram)
    try:
        # SciPy's takes half of NumPy's time.
        values, vectors = linalg.eigh(gram, driver="evd", check_finite=False) if xp is np else xp.linalg.eigh(gram)
    except (np.linalg.LinAlgError, RuntimeError):
        # Many equal eigenvalues, as columns that are always zero give, can stop LAPACK's divide and conquer in float32.
        values, vectors = (_like(part, gram) for part in xp.linalg.eigh(xp.asarray(gram, dtype=xp.float64)))
    return values, vectors


@dataclass
class Solution:
    """Where a minimisation ended: parameters, values (p,), largest gradient entries (p,), iterations (p,)."""

    theta: Array
    values: Array
    gradient_norms: Array
    n_iter: NDArray[np.int64]


class Minimiser:
    """L-BFGS on top of `Curvature`, for problems side by side, that stays warm from one penalty to the next.

    Each problem has steps of its own; those at their tolerance stand still. (Nocedal and Wright, "Numerical
    Optimization", algorithm 7.4, with P⁻¹ as the initial matrix.)

    Parameters
    ----------
    problem : Problem
    start : array of shape (p, k, d + 1), or None
        Zero by default. Parts that shift all classes of a softmax alike have no curvature, and stay as they are.

    curvature : Curvature, optional
        Measured elsewhere, to begin with.

    Attributes
    ----------
    theta : array, shape (p, k, d + 1)
        Where the last minimisation ended.
    """

    def __init__(self, problem: Problem, start: Array | None = None, curvature: Curvature | None = None) -> None:
        self.problem = problem
        self.theta = problem.zeros(*problem.shape) if start is None else start
        self.curvature = curvature
        self._penalties: Array | None = None
        self._pairs: list[Pair] = []
        self._least_patience = max(REFRESH, problem.curvature_cost)
        self._patience = self._least_patience
        self._steps = 0

    def minimise(self, penalties: Array, *, tol: float, max_iter: int) -> Solution:
        """Go on from `theta` with `penalties` (p,), float64, until max |gradient| ≤ `tol`."""
        with np.errstate(all="ignore"), self.problem.exact():
            return self._minimise(penalties, tol, max_iter)

    def _minimise(self, penalties: Array, tol: float, max_iter: int) -> Solution:
        problem = self.problem
        self._change_penalties(penalties)
        values, gradient = problem.evaluate(self.theta, penalties)
        n_iter = np.zeros(len(penalties), np.int64)
        stride = 1 if problem.device == "cpu" else STRIDE
        active = problem.gradient_norms(gradient) > tol
        while max_iter and active.any():
            moved = []
            for number in range(min(stride, max_iter)):
                direction = -_inverse_hessian(gradient, self._pairs[-HISTORY:], self._measured(), penalties)
                direction *= active[:, None, None]
                # The first step of a stride is as long as it must be; the others are of length 1, or not made.
                attempts = 1 if number else ATTEMPTS
                step, values, new_gradient = _line_search(
                    problem, penalties, self.theta, values, gradient, direction, attempts
                )
                moved.append(step > 0)
                move = module_of(step).where(moved[-1][:, None, None], step[:, None, None] * direction, 0)
                self._pairs.append(Pair.of(move, new_gradient - gradient))
                self.theta, gradient = self.theta + move, new_gradient
                active = problem.gradient_norms(gradient) > tol
            made = self._settled(moved)
            n_iter, max_iter = n_iter + made.sum(0), max_iter - len(made)
            if not made.any():
                if not self._pairs:
                    break
                self._pairs, self.curvature = [], None  # rounding has spoilt them: once more from a new curvature alone
        return Solution(self.theta, values, problem.gradient_norms(gradient), n_iter)

    def _settled(self, moved: list[Array]) -> NDArray[np.bool_]:
        """Return which problems have moved in the last steps, shape (n_steps, p); forget steps in which none has."""
        made: NDArray[np.bool_] = to_numpy(module_of(moved[0]).stack(moved))
        before, last = self._pairs[: -len(made)], self._pairs[-len(made) :]
        self._pairs = [*before, *(pair for pair, steps in zip(last, made, strict=True) if steps.any())][-HISTORY:]
        return made

    def _change_penalties(self, penalties: Array) -> None:
        """Correct the remembered gradient changes, which a penalty adds a multiple of the move to."""
        if self._penalties is not None:
            more = _like(penalties - self._penalties, self.theta)[:, None, None]
            for number, pair in enumerate(self._pairs):
                change = pair.change + 0
                change[..., :-1] += more * pair.move[..., :-1]
                self._pairs[number] = Pair.of(pair.move, change)
        self._penalties = penalties
        self._patience = self._least_patience

    def _measured(self) -> Curvature:
        """Return the curvature, measured anew where the steps since the last time have cost as much."""
        if self.curvature is None or self._steps >= self._patience:
            self._patience = 3 * self._patience if self.curvature else self._least_patience
            self.curvature, self._steps = self.problem.curvature(self.theta), 0
        self._steps += 1
        return self.curvature


@dataclass(frozen=True)
class Pair:
    """A step, the change of the gradient along it, and one over their product; 0 where that is not positive."""

    move: Array
    change: Array
    weight: Array

    @classmethod
    def of(cls, move: Array, change: Array) -> Pair:
        """Return the pair; one with weight zero changes nothing."""
        product = (move * change).sum((1, 2))
        return cls(move, change, module_of(move).where(product > 0, 1 / product, 0))


def _inverse_hessian(gradient: Array, pairs: Sequence[Pair], curvature: Curvature, penalties: Array) -> Array:
    """Apply the two-loop recursion."""
    xp = module_of(gradient)
    q = gradient + 0
    alphas = []
    for pair in reversed(pairs):
        alpha = pair.weight * (pair.move * q).sum((1, 2))
        q -= alpha[:, None, None] * pair.change
        alphas.append(alpha)
    if pairs:
        last, p = pairs[-1], len(q)
        # Solving for both at once reads the factors once.
        both = curvature.solve(xp.concatenate([q, last.change]), xp.concatenate([penalties, penalties]))
        # How far the true curvature along the last step was from P's.
        size = last.weight * (last.change * both[p:]).sum((1, 2))
        r = both[:p] * xp.where(size > 0, 1 / size, 1)[:, None, None]
    else:
        r = curvature.solve(q, penalties)
    for pair, alpha in zip(pairs, reversed(alphas), strict=True):
        beta = pair.weight * (pair.change * r).sum((1, 2))
        r += (alpha - beta)[:, None, None] * pair.move
    return r


def _line_search(
    problem: Problem,
    penalties: Array,
    theta: Array,
    values: Array,
    gradient: Array,
    direction: Array,
    attempts: int,
) -> tuple[Array, Array, Array]:
    """Return each problem's step, with the values and gradients there; zero for those that do not descend.

    From 1, shortened until the value has fallen enough, or, close to the minimum, where values no longer
    resolve the descent, until the slope has (the approximate Wolfe condition of Hager and Zhang, 2005). The very first
    step may be a million times too long: a feature that the sample of the curvature lacks seems to have none.
    """
    xp = module_of(gradient)
    slope = _like((gradient * direction).sum((1, 2)), values)
    step = _like(slope < 0, values)
    for attempt in range(attempts):
        move = _like(step, theta)[:, None, None] * direction
        new_values, new_gradient = problem.evaluate(theta + move, penalties)
        new_slope = (new_gradient * direction).sum((1, 2))
        fallen = new_values <= values + 1e-4 * step * slope
        flat = (new_values <= values + 1e-6 * abs(values)) & (abs(new_slope) <= 0.9 * abs(slope))
        done = fallen | flat | (step == 0)
        if attempt + 1 == attempts or done.all():
            break
        # The minimum of the parabola through both values and the first slope.
        parabola = -slope * step / (2 * ((new_values - values) / step - slope))
        step = xp.where(done, step, xp.clip(parabola, step / 10, step / (2 if attempt < 6 else 10)))
    stay = ~done
    return (
        _like(xp.where(stay, 0, step), theta),
        xp.where(stay, values, new_values),
        xp.where(stay[:, None, None], gradient, new_gradient),
    )
