"""Convex losses of linear classifiers, with the curvature bounds that precondition them.

Each takes scores Z of shape (n, p, k) for n rows and p problems side by side, and class indices of
shape (n,). It returns the loss of each row (n, p) and its gradient with respect to Z (n, p, k).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Loss(Protocol):
    """A convex loss of scores."""

    #: The Hessian in Z is at most this times the identity.
    curvature: float

    def n_outputs(self, n_classes: int) -> int:
        """Return k, the scores a row has."""

    def __call__(self, scores: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Return losses (n, p) and gradients (n, p, k)."""


class Multinomial:
    """Cross-entropy of the softmax: log Σ exp z_j - z_y.

    Its Hessian diag(q) - q qᵀ is at most (I - 11ᵀ/k)/2 (Böhning, "Multinomial logistic regression
    algorithm", 1992). The part along 1 never moves, since gradients sum to zero over the classes.
    """

    curvature = 0.5

    def n_outputs(self, n_classes: int) -> int:
        """Return one score a class."""
        return n_classes

    def __call__(self, scores: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Return losses and gradients, softmax minus one-hot."""
        import torch

        index = codes[:, None, None].expand(-1, scores.shape[1], 1)
        log_sum = torch.logsumexp(scores, dim=2, keepdim=True)
        losses = (log_sum - scores.gather(2, index))[..., 0]
        gradient = (scores - log_sum).exp_()
        gradient.scatter_add_(2, index, -torch.ones_like(index, dtype=scores.dtype))
        return losses, gradient


class Binomial:
    """Cross-entropy of the logistic function on one score, positive for the second class."""

    curvature = 0.25

    def n_outputs(self, n_classes: int) -> int:
        """Return one score for both classes."""
        return n_classes - 1

    def __call__(self, scores: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Return losses and gradients, probability minus target."""
        from torch.nn.functional import softplus

        positive = codes[:, None].to(scores.dtype)
        z = scores[..., 0]
        losses = softplus(z, threshold=50) - positive * z
        return losses, (z.sigmoid() - positive)[..., None]


class SquaredHinge:
    """Σ over classes of max(0, 1 - t z)², targets t = ±1, each class against the rest."""

    curvature = 2.0

    def n_outputs(self, n_classes: int) -> int:
        """Return one score a class, or one for two classes."""
        return n_classes if n_classes > 2 else 1

    def __call__(self, scores: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Return losses and gradients."""
        import torch

        k = scores.shape[2]
        classes = torch.arange(k, device=codes.device) if k > 1 else torch.ones(1, device=codes.device)
        target = torch.where(codes[:, None] == classes, 1.0, -1.0).to(scores.dtype)[:, None, :]
        slack = (1 - target * scores).clamp_(min=0)
        return slack.square().sum(2), -2 * target * slack
