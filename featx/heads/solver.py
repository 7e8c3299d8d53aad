"""Penalised linear classifiers, many at once: the objective, its preconditioner and the minimiser.

Problem p has weights s_ip that sum to 1 over the rows and a penalty λ_p:

    f_p(W, b) = Σ_i s_ip loss(W (x_i - μ) + b, y_i) + λ_p/2 ‖W‖²

μ is the mean of the rows. Subtracting it inside makes the gradient in b independent of that in W to
first order, which is what a block preconditioner needs; it costs one product with μ, not a copy of X.
All problems share every product with X, so five folds cost little more than one.
"""

from __future__ import annotations

import warnings
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from featx.heads.inputs import Array, Rows
    from featx.heads.losses import Loss

#: Pairs of steps and gradient changes that L-BFGS remembers.
HISTORY = 10


class Problem:
    """The objectives of p linear classifiers over the same rows.

    Parameters
    ----------
    rows : Rows
        n rows of d values.
    codes : Tensor of int64, shape (n,)
        Class indices.
    weights : Tensor, shape (n, p)
        Each column sums to 1.
    loss : Loss
    n_outputs : int
        Scores a row, k.
    device : str
        Where products are computed.
    """

    def __init__(self, rows: Rows, codes: Tensor, weights: Tensor, loss: Loss, n_outputs: int, device: str) -> None:
        self.rows, self.codes, self.weights = rows, codes, weights
        self.loss, self.n_outputs, self.device = loss, n_outputs, device
        self._resident: Tensor | None = None
        self.mean = self._column_means()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (p, k, d + 1) of the parameters; the last column is the intercept at μ."""
        return self.weights.shape[1], self.n_outputs, self.rows.shape[1] + 1

    def blocks(self) -> Any:
        """Yield (indices, rows on the device); an array is moved there once."""
        if self._resident is None and self.rows.in_memory:
            self._resident = as_tensor(self.rows.source, self.device)
        if self._resident is not None:
            yield slice(None), self._resident
            return
        for indices, block in self.rows.blocks():
            yield indices, as_tensor(block, self.device)

    def evaluate(self, theta: Tensor, penalties: Tensor) -> tuple[Tensor, Tensor]:
        """Return values (p,) and gradients (p, k, d + 1) at `theta`, of `penalties` (p,)."""
        p, k, width = theta.shape
        coef, intercept = theta[..., :-1], theta[..., -1]
        flat = coef.reshape(p * k, width - 1)
        offset = intercept.reshape(-1) - flat @ self.mean
        values = penalties * coef.square().sum((1, 2)).double() / 2
        gradient = theta.new_zeros(theta.shape)
        for indices, X in self.blocks():
            scores = (X @ flat.T).add_(offset).view(-1, p, k)
            losses, residual = self.loss(scores, self.codes[indices])
            weights = self.weights[indices]
            values = values + (losses * weights).sum(0, dtype=values.dtype)
            residual = (residual * weights[..., None]).view(-1, p * k)
            gradient[..., :-1] += (residual.T @ X).view(p, k, -1)
            gradient[..., -1] += residual.sum(0).view(p, k)
        gradient[..., :-1] += penalties[:, None, None].to(theta.dtype) * coef - gradient[..., -1:] * self.mean
        return values, gradient

    def _column_means(self) -> Tensor:
        weights = self.weights.mean(1)
        return sum(weights[indices] @ X for indices, X in self.blocks())  # type: ignore[return-value]


def as_tensor(X: Array, device: str) -> Tensor:
    """Return `X` as a tensor that shares its memory where it can."""
    import torch

    with warnings.catch_warnings():
        # Nothing here writes to the rows, so a read-only array may be shared.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(X)).to(device)


@dataclass(frozen=True)
class Curvature:
    """Eigenvectors of the centred second moment of (a sample of) the rows: one for every penalty.

    With r = min(sampled rows, d) directions V (d, r) and eigenvalues (r,); the directions outside V
    have curvature zero.
    """

    vectors: Tensor
    values: Tensor
    bound: float

    @classmethod
    def of(cls, problem: Problem, *, max_rows: int, seed: int = 0) -> Curvature:
        """Measure it on at most `max_rows` rows."""
        import torch

        n, d = problem.rows.shape
        weights = problem.weights.mean(1)
        chosen = np.arange(n)
        if n > max_rows:
            chosen = np.sort(np.random.default_rng(seed).choice(n, max_rows, replace=False))
            weights = weights[torch.from_numpy(chosen).to(weights.device)]
        A = torch.from_numpy(problem.rows.take(chosen)).to(problem.device) - problem.mean
        A *= (weights / weights.sum()).sqrt()[:, None]
        if A.shape[0] >= d:
            values, vectors = torch.linalg.eigh(A.T @ A)
        else:
            values, left = torch.linalg.eigh(A @ A.T)
            kept = values > values[-1] * torch.finfo(values.dtype).eps * len(values)
            values = values[kept]
            vectors = A.T @ (left[:, kept] / values.sqrt())
        return cls(vectors, values.clamp(min=0), problem.loss.curvature)

    def solve(self, gradient: Tensor, penalties: Tensor) -> Tensor:
        """Return P⁻¹ times `gradient` (p, k, d + 1), where P bounds the Hessian."""
        shift = penalties.clamp(min=1e-6 * float(self.values[-1]) + 1e-30).to(gradient.dtype)[:, None, None]
        coef = gradient[..., :-1]
        along = coef @ self.vectors
        inside = along * (1 / (self.bound * self.values + shift) - 1 / shift)
        result = gradient / self.bound
        result[..., :-1] = coef / shift + inside @ self.vectors.T
        return result


@dataclass
class Solution:
    """Where a minimisation ended: parameters, values (p,), largest gradient entries (p,), iterations (p,)."""

    theta: Tensor
    values: Tensor
    gradient_norms: Tensor
    n_iter: Tensor


def minimise(
    problem: Problem, curvature: Curvature, penalties: Tensor, start: Tensor, *, tol: float, max_iter: int
) -> Solution:
    """Minimise each problem by L-BFGS that starts from the curvature bound, until max |gradient| ≤ `tol`.

    Problems run side by side with steps of their own; those at their tolerance stand still.
    (Nocedal and Wright, "Numerical Optimization", algorithm 7.4, with P⁻¹ as the initial matrix.)
    """
    import torch

    theta = start.clone()
    values, gradient = problem.evaluate(theta, penalties)
    pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=HISTORY)
    n_iter = torch.zeros(len(penalties), dtype=torch.int64)
    for _ in range(max_iter):
        active = gradient.abs().amax((1, 2)) > tol
        if not active.any():
            break
        direction = -_inverse_hessian(gradient, pairs, curvature, penalties) * active[:, None, None]
        new_theta, new_values, new_gradient, moved = _line_search(
            problem, penalties, theta, values, gradient, direction, active
        )
        if not moved.any():
            break
        n_iter += moved.cpu()
        step, change = new_theta - theta, new_gradient - gradient
        product = (step * change).sum((1, 2))
        pairs.append((step, change, torch.where(product > 0, 1 / product.clamp(min=1e-38), 0)))
        theta, values, gradient = new_theta, new_values, new_gradient
    return Solution(theta, values, gradient.abs().amax((1, 2)), n_iter)


def _inverse_hessian(gradient: Tensor, pairs: Any, curvature: Curvature, penalties: Tensor) -> Tensor:
    """Apply the two-loop recursion; a pair with weight zero changes nothing."""
    import torch

    q = gradient.clone()
    alphas = []
    for step, change, rho in reversed(pairs):
        alpha = rho * (step * q).sum((1, 2))
        q -= alpha[:, None, None] * change
        alphas.append(alpha)
    r = curvature.solve(q, penalties)
    if pairs:
        _, change, rho = pairs[-1]
        # The bound is loose by a factor that the last step measured.
        size = rho * (change * curvature.solve(change, penalties)).sum((1, 2))
        r *= torch.where(size > 0, 1 / size.clamp(min=1e-38), 1)[:, None, None]
    for (step, change, rho), alpha in zip(pairs, reversed(alphas), strict=True):
        beta = rho * (change * r).sum((1, 2))
        r += (alpha - beta)[:, None, None] * step
    return r


def _line_search(
    problem: Problem,
    penalties: Tensor,
    theta: Tensor,
    values: Tensor,
    gradient: Tensor,
    direction: Tensor,
    active: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Halve each problem's step from 1 until it descends; those that cannot stay where they are."""
    import torch

    slope = (gradient * direction).sum((1, 2)).double()
    # Near the optimum the value no longer resolves a descent that the gradient still sees.
    slack = 4 * torch.finfo(theta.dtype).eps * values.abs()
    step = active.to(theta.dtype)
    for _ in range(30):
        new_theta = theta + step[:, None, None] * direction
        new_values, new_gradient = problem.evaluate(new_theta, penalties)
        enough = new_values <= values + 1e-4 * step * slope + slack
        if (enough | ~active).all():
            return new_theta, new_values, new_gradient, active
        step = torch.where(enough, step, step / 2)
    stay = ~enough[:, None, None]
    return (
        torch.where(stay, theta, new_theta),
        torch.where(enough, new_values, values),
        torch.where(stay, gradient, new_gradient),
        active & enough,
    )
