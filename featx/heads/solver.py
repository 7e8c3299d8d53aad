"""Penalised linear classifiers, many at once: their objectives, and the minimiser.

Problem p has weights s_ip that sum to 1 over the rows and a penalty λ_p:

    f_p(W, b) = Σ_i s_ip loss(W (x_i - μ) + b, y_i) + λ_p/2 ‖W‖²

μ is the mean of the rows: taken off inside, it costs one product with μ instead of a copy of X.
All problems share every product with X, so five folds cost little more than one.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.heads.curvature import Curvature

if TYPE_CHECKING:
    from torch import Tensor

    from featx.heads.inputs import Array, Rows
    from featx.heads.losses import Loss

#: Pairs of steps and gradient changes that L-BFGS remembers.
HISTORY = 10

#: Tables of at most so many values are solved in float64, which costs nothing there.
SMALL = 1 << 20

#: Rows a feature that the curvature is measured on, where there are so many.
ROWS_PER_FEATURE = 8

#: Steps, at least, before the curvature is first measured again; then after thrice as many, and so on.
REFRESH = 8


class Problem:
    """The objectives of p linear classifiers over the same rows.

    Parameters
    ----------
    rows : Rows
        n rows of d values.
    codes : Tensor of int64, shape (n,)
        Class indices.
    weights : Tensor of float64, shape (n, p)
        Each column sums to 1.
    loss : Loss
    n_outputs : int
        Scores a row, k.
    device : str
        Where products are computed.
    """

    def __init__(self, rows: Rows, codes: Tensor, weights: Tensor, loss: Loss, n_outputs: int, device: str) -> None:
        import torch

        exact = rows.dtype == np.float64 or np.prod(rows.shape) <= SMALL
        self.dtype = torch.float64 if exact else torch.float32
        self.rows, self.codes, self.weights = rows, codes, weights.to(self.dtype)
        self.loss, self.n_outputs, self.device = loss, n_outputs, device
        self._resident = self._to_device(rows.source) if isinstance(rows.source, np.ndarray) else None
        self._sample: tuple[Any, Tensor] | None = None
        mean = self.weights.new_zeros(rows.shape[1])
        for indices, X in self.blocks():
            mean += self.weights[indices].mean(1) @ X
        self.mean = mean

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (p, k, d + 1) of the parameters; the last column is the intercept at μ."""
        return self.weights.shape[1], self.n_outputs, self.rows.shape[1] + 1

    def blocks(self) -> Iterator[tuple[Any, Tensor]]:
        """Yield (indices, rows on the device)."""
        if self._resident is not None:
            yield slice(None), self._resident
            return
        for indices, block in self.rows.blocks():
            yield indices, self._to_device(block)

    def reweight(self, weights: Tensor) -> None:
        """Become the problems of other weights (n, p), about the same mean; those of the rows in use stay positive."""
        self.weights = weights.to(self.dtype)

    def _to_device(self, X: Array) -> Tensor:
        return as_tensor(X, self.device).to(self.dtype)

    def scores(self, theta: Tensor, X: Tensor) -> Tensor:
        """Return the scores (n, p, k) of rows X (n, d) at parameters (p, k, d + 1)."""
        p, k, width = theta.shape
        coef = theta[..., :-1].reshape(p * k, width - 1)
        offset = theta[..., -1].reshape(p * k) - coef @ self.mean
        return (X @ coef.T).add_(offset).view(-1, p, k)

    def evaluate(self, theta: Tensor, penalties: Tensor) -> tuple[Tensor, Tensor]:
        """Return values (p,) and gradients (p, k, d + 1) at `theta`, of `penalties` (p,)."""
        p, k, _ = theta.shape
        coef = theta[..., :-1]
        values = penalties * coef.square().sum((1, 2), dtype=penalties.dtype) / 2
        gradient = theta.new_zeros(theta.shape)
        for indices, X in self.blocks():
            losses, residual = self.loss(self.scores(theta, X), self.codes[indices])
            weights = self.weights[indices]
            values = values + (losses * weights).sum(0, dtype=values.dtype)
            residual = residual.mul_(weights[..., None]).view(-1, p * k)
            gradient[..., :-1] += (residual.T @ X).view(p, k, -1)
            gradient[..., -1] += residual.sum(0).view(p, k)
        gradient[..., :-1] += penalties[:, None, None].to(theta.dtype) * coef - gradient[..., -1:] * self.mean
        return values, gradient

    def gradient_norms(self, gradient: Tensor) -> Tensor:
        """Return the largest absolute entries (p,) of gradients in coefficients and intercepts without μ."""
        import torch

        coef = gradient[..., :-1] + gradient[..., -1:] * self.mean
        return torch.maximum(coef.abs().amax((1, 2)), gradient[..., -1].abs().amax(1))

    def curvature(self, theta: Tensor) -> Curvature:
        """Measure the Hessian at `theta`, of the last problem for all, on a sample of the rows."""
        indices, X = self._sampled()
        weights = self.weights[indices, -1]
        u, v = self.loss.hessian(self.scores(theta[-1:], X), self.codes[indices])
        return Curvature.measure(X - self.mean, weights / weights.sum(), u[:, 0], v[:, 0])

    @property
    def curvature_cost(self) -> float:
        """What measuring the curvature costs, in evaluations, by rough counts of operations."""
        n, d = self.rows.shape
        p, k, _ = self.shape
        m = self._sample_size
        # An evaluation is bound by reading the rows, an eigendecomposition by all that is no product in it.
        evaluation, decomposition = n * d * (4 * p * k + 200), 25 * min(m, d) ** 3
        return (2 * m * d * min(m, d) + decomposition) / evaluation

    @property
    def _sample_size(self) -> int:
        return min(ROWS_PER_FEATURE * self.rows.shape[1], self.rows.sample_size)

    def _sampled(self) -> tuple[Any, Tensor]:
        if self._sample is None:
            m = self._sample_size
            positive = self.weights[:, -1].cpu().numpy() > 0
            chosen = np.flatnonzero(positive)
            if len(chosen) > m:
                chosen = np.sort(np.random.default_rng(0).choice(chosen, m, replace=False))
            self._sample = as_tensor(chosen, self.device), self._to_device(self.rows.take(chosen))
        return self._sample


def as_tensor(X: Array, device: str) -> Tensor:
    """Return `X` as a tensor that shares its memory where it can."""
    import torch

    with warnings.catch_warnings():
        # Nothing here writes to the rows, so a read-only array may be shared.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(X)).to(device)


@dataclass
class Solution:
    """Where a minimisation ended: parameters, values (p,), largest gradient entries (p,), iterations (p,)."""

    theta: Tensor
    values: Tensor
    gradient_norms: Tensor
    n_iter: Tensor


class Minimiser:
    """L-BFGS on top of `Curvature`, for problems side by side, that stays warm from one penalty to the next.

    Each problem has steps of its own; those at their tolerance stand still. (Nocedal and Wright, "Numerical
    Optimization", algorithm 7.4, with P⁻¹ as the initial matrix.)

    Parameters
    ----------
    problem : Problem
    start : Tensor of shape (p, k, d + 1), or None
        Zero by default. Parts that shift all classes of a softmax alike have no curvature, and stay as they are.

    Attributes
    ----------
    theta : Tensor, shape (p, k, d + 1)
        Where the last minimisation ended.
    """

    def __init__(self, problem: Problem, start: Tensor | None = None) -> None:
        self.problem = problem
        self.theta = problem.mean.new_zeros(problem.shape) if start is None else start
        self._penalties: Tensor | None = None
        self._curvature: Curvature | None = None
        self._pairs: deque[Pair] = deque(maxlen=HISTORY)
        self._least_patience = max(REFRESH, problem.curvature_cost)
        self._patience = self._least_patience
        self._steps = 0

    def minimise(self, penalties: Tensor, *, tol: float, max_iter: int) -> Solution:
        """Go on from `theta` with `penalties` (p,), float64, until max |gradient| ≤ `tol`."""
        import torch

        problem = self.problem
        self._change_penalties(penalties)
        values, gradient = problem.evaluate(self.theta, penalties)
        n_iter = torch.zeros(len(penalties), dtype=torch.int64)
        for _ in range(max_iter):
            active = problem.gradient_norms(gradient) > tol
            if not active.any():
                break
            direction = -_inverse_hessian(gradient, self._pairs, self._measured(), penalties) * active[:, None, None]
            step, new_values, new_gradient = _line_search(problem, penalties, self.theta, values, gradient, direction)
            moved = step > 0
            if moved.any():
                n_iter += moved.cpu()
                move = step[:, None, None] * direction
                self._pairs.append(Pair.of(move, new_gradient - gradient))
                self.theta, values, gradient = self.theta + move, new_values, new_gradient
            elif self._pairs:  # rounding has spoilt them: once more from a new curvature alone
                self._pairs.clear()
                self._curvature = None
            else:
                break
        return Solution(self.theta, values, problem.gradient_norms(gradient), n_iter)

    def _change_penalties(self, penalties: Tensor) -> None:
        """Correct the remembered gradient changes, which a penalty adds a multiple of the move to."""
        if self._penalties is not None:
            more = (penalties - self._penalties).to(self.theta.dtype)[:, None, None]
            for pair in list(self._pairs):
                self._pairs.popleft()
                change = pair.change.clone()
                change[..., :-1] += more * pair.move[..., :-1]
                self._pairs.append(Pair.of(pair.move, change))
        self._penalties = penalties
        self._patience = self._least_patience

    def _measured(self) -> Curvature:
        """Return the curvature, measured anew where the steps since the last time have cost as much."""
        if self._curvature is None or self._steps >= self._patience:
            self._patience = 3 * self._patience if self._curvature else self._least_patience
            self._curvature, self._steps = self.problem.curvature(self.theta), 0
        self._steps += 1
        return self._curvature


@dataclass(frozen=True)
class Pair:
    """A step, the change of the gradient along it, and one over their product; 0 where that is not positive."""

    move: Tensor
    change: Tensor
    weight: Tensor

    @classmethod
    def of(cls, move: Tensor, change: Tensor) -> Pair:
        """Return the pair; one with weight zero changes nothing."""
        import torch

        product = (move * change).sum((1, 2))
        return cls(move, change, torch.where(product > 0, 1 / product, 0))


def _inverse_hessian(gradient: Tensor, pairs: Sequence[Pair], curvature: Curvature, penalties: Tensor) -> Tensor:
    """Apply the two-loop recursion."""
    import torch

    q = gradient.clone()
    alphas = []
    for pair in reversed(pairs):
        alpha = pair.weight * (pair.move * q).sum((1, 2))
        q -= alpha[:, None, None] * pair.change
        alphas.append(alpha)
    if pairs:
        last, p = pairs[-1], len(q)
        # Solving for both at once reads the factors once.
        both = curvature.solve(torch.cat([q, last.change]), penalties.repeat(2))
        # How far the true curvature along the last step was from P's.
        size = last.weight * (last.change * both[p:]).sum((1, 2))
        r = both[:p] * torch.where(size > 0, 1 / size, 1)[:, None, None]
    else:
        r = curvature.solve(q, penalties)
    for pair, alpha in zip(pairs, reversed(alphas), strict=True):
        beta = pair.weight * (pair.change * r).sum((1, 2))
        r += (alpha - beta)[:, None, None] * pair.move
    return r


def _line_search(
    problem: Problem, penalties: Tensor, theta: Tensor, values: Tensor, gradient: Tensor, direction: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each problem's step, with the values and gradients there; zero for those that cannot descend.

    From 1, shortened until the value has fallen enough, or, close to the minimum, where values no longer
    resolve the descent, until the slope has (the approximate Wolfe condition of Hager and Zhang, 2005). The very first
    step may be a million times too long: a feature that the sample of the curvature lacks seems to have none.
    """
    import torch

    slope = (gradient * direction).sum((1, 2)).to(values.dtype)
    step = (slope < 0).to(values.dtype)
    for attempt in range(24):
        move = step.to(theta.dtype)[:, None, None] * direction
        new_values, new_gradient = problem.evaluate(theta + move, penalties)
        new_slope = (new_gradient * direction).sum((1, 2))
        fallen = new_values <= values + 1e-4 * step * slope
        flat = (new_values <= values + 1e-6 * values.abs()) & (new_slope.abs() <= 0.9 * slope.abs())
        done = fallen | flat | (step == 0)
        if done.all():
            break
        # The minimum of the parabola through both values and the first slope.
        parabola = -slope * step / (2 * ((new_values - values) / step - slope))
        step = torch.where(done, step, torch.clamp(parabola, step / 10, step / (2 if attempt < 6 else 10)))
    stay = ~done
    return (
        torch.where(stay, 0, step).to(theta.dtype),
        torch.where(stay, values, new_values),
        torch.where(stay[:, None, None], gradient, new_gradient),
    )
