"""Convex losses of linear classifiers: value, gradient and Hessian in the scores.

Each takes scores Z of shape (n, p, k) for n rows and p problems side by side, and class indices of
shape (n,). The Hessian of a row is diag(u) - v vᵀ, which its `hessian` returns as u and v.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Loss(Protocol):
    """A convex loss of scores."""

    def n_outputs(self, n_classes: int) -> int:
        """Return k, the scores a row has."""

    def __call__(self, scores: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Return losses (n, p) and gradients (n, p, k)."""

    def hessian(self, scores: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Return u and v, each (n, p, k)."""


class Multinomial:
    """Cross-entropy of the softmax: log Σ exp z_j - z_y."""

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
        gradient.scatter_add_(2, index, gradient.new_full((), -1.0).expand(index.shape))
        return losses, gradient

    def hessian(self, scores: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002 - as of all losses
        """Return the softmax twice: diag(q) - q qᵀ."""
        q = scores.softmax(dim=2)
        return q, q


class Binomial:
    """Cross-entropy of the logistic function on one score, positive for the second class."""

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

    def hessian(self, scores: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002 - as of all losses
        """Return q (1 - q) and zero."""
        q = scores.sigmoid()
        return q * (1 - q), q.new_zeros(q.shape)


class SquaredHinge:
    """Σ over classes of max(0, 1 - t z)², targets t = ±1, each class against the rest."""

    def n_outputs(self, n_classes: int) -> int:
        """Return one score a class, or one for two classes."""
        return n_classes if n_classes > 2 else 1

    def __call__(self, scores: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Return losses and gradients."""
        target = _signs(scores, codes)
        slack = (1 - target * scores).clamp_(min=0)
        return slack.square().sum(2), -2 * target * slack

    def hessian(self, scores: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Return 2 where the margin is not kept, and zero."""
        kept = _signs(scores, codes) * scores >= 1
        return (~kept).to(scores.dtype) * 2, scores.new_zeros(scores.shape)


def _signs(scores: Tensor, codes: Tensor) -> Tensor:
    """Return targets ±1, shape (n, 1, k)."""
    import torch

    k = scores.shape[2]
    classes = torch.arange(k, device=codes.device) if k > 1 else codes.new_ones(1)
    return torch.where(codes[:, None] == classes, 1.0, -1.0).to(scores.dtype)[:, None, :]
