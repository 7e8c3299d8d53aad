"""Penalised linear classifiers, many at once: their objectives, and the minimiser.

Problem p has weights s_ip that sum to 1 over the rows and a penalty λ_p:

    f_p(W, b) = Σ_i s_ip loss(W (x_i - μ) + b, y_i) + λ_p/2 ‖W‖²

μ is the mean of the rows: taken off inside, it costs one product with μ instead of a copy of X.
All problems share every product with X, so five folds cost little more than one.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator
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

#: Iterations before the curvature is first measured again; then after thrice as many, and so on.
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

    def _sampled(self) -> tuple[Any, Tensor]:
        if self._sample is None:
            d = self.rows.shape[1]
            m = min(ROWS_PER_FEATURE * d, self.rows.sample_size)
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


def minimise(problem: Problem, penalties: Tensor, start: Tensor, *, tol: float, max_iter: int) -> Solution:
    """Minimise each problem by L-BFGS on top of `Curvature`, until max |gradient| ≤ `tol`.

    Problems run side by side with steps of their own; those at their tolerance stand still.
    (Nocedal and Wright, "Numerical Optimization", algorithm 7.4, with P⁻¹ as the initial matrix.)

    Parameters
    ----------
    problem : Problem
    penalties : Tensor of float64, shape (p,)
    start : Tensor, shape (p, k, d + 1)
        For classes of a softmax, zero or the end of a minimisation: parts that shift all classes
        alike have no curvature, and stay as they are.
    tol : float
    max_iter : int
    """
    import torch

    theta = start.clone()
    values, gradient = problem.evaluate(theta, penalties)
    pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=HISTORY)
    n_iter = torch.zeros(len(penalties), dtype=torch.int64)
    refresh = 0
    for iteration in range(max_iter):
        active = problem.gradient_norms(gradient) > tol
        if not active.any():
            break
        if iteration == refresh:
            curvature = problem.curvature(theta)
            refresh = max(REFRESH, 3 * refresh)
        direction = -_inverse_hessian(gradient, pairs, curvature, penalties) * active[:, None, None]
        step, new_values, new_gradient = _line_search(problem, penalties, theta, values, gradient, direction)
        moved = step > 0
        if not moved.any():
            if not pairs:
                break
            # Rounding has spoilt the pairs: once more from the curvature alone.
            pairs.clear()
            refresh = iteration + 1
            continue
        n_iter += moved.cpu()
        move, change = step[:, None, None] * direction, new_gradient - gradient
        product = (move * change).sum((1, 2))
        pairs.append((move, change, torch.where(product > 0, 1 / product, 0)))
        theta, values, gradient = theta + move, new_values, new_gradient
    return Solution(theta, values, problem.gradient_norms(gradient), n_iter)


def _inverse_hessian(gradient: Tensor, pairs: Any, curvature: Curvature, penalties: Tensor) -> Tensor:
    """Apply the two-loop recursion; a pair with weight zero changes nothing."""
    import torch

    q = gradient.clone()
    alphas = []
    for move, change, rho in reversed(pairs):
        alpha = rho * (move * q).sum((1, 2))
        q -= alpha[:, None, None] * change
        alphas.append(alpha)
    r = curvature.solve(q, penalties)
    if pairs:
        _, change, rho = pairs[-1]
        # How far the true curvature along the last step was from P's.
        size = rho * (change * curvature.solve(change, penalties)).sum((1, 2))
        r *= torch.where(size > 0, 1 / size, 1)[:, None, None]
    for (move, change, rho), alpha in zip(pairs, reversed(alphas), strict=True):
        beta = rho * (change * r).sum((1, 2))
        r += (alpha - beta)[:, None, None] * move
    return r


def _line_search(
    problem: Problem, penalties: Tensor, theta: Tensor, values: Tensor, gradient: Tensor, direction: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each problem's step, with the values and gradients there; zero for those that cannot descend.

    From 1, shortened until the value has fallen enough, or, close to the minimum, where values no longer
    resolve the descent, until the slope has (the approximate Wolfe condition of Hager and Zhang, 2005).
    """
    import torch

    slope = (gradient * direction).sum((1, 2)).to(values.dtype)
    step = (slope < 0).to(values.dtype)
    for _ in range(12):
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
        step = torch.where(done, step, torch.clamp(parabola, step / 10, step / 2))
    stay = ~done
    return (
        torch.where(stay, 0, step).to(theta.dtype),
        torch.where(stay, values, new_values),
        torch.where(stay[:, None, None], gradient, new_gradient),
    )
