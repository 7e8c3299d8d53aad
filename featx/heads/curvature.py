"""The preconditioner of linear classifiers: their Hessian, as one matrix over classes times one over features.

Rows x_i with weights s_i and Hessians h_i (k, k) in the scores give the Hessian Σ s_i h_i ⊗ x_i x_iᵀ + λ I
of size k·d. It is taken apart as K-FAC does (Martens and Grosse, "Optimizing neural networks with
Kronecker-factored approximate curvature", 2015), with w_i = tr(h_i) and the weighted mean m:

    B = Σ s_i h_i                                        = U diag(b) Uᵀ    over classes
    A = Σ s_i w_i (x_i - m)(x_i - m)ᵀ / Σ s_i w_i        = V diag(a) Vᵀ    over features

At zero scores, where a fit starts, every h_i is the same and B ⊗ A is the Hessian itself; later rows that are
far from any boundary count for little, as they should. Its inverse is a scaling in the basis U ⊗ V, for
every λ alike, so that folds and penalties share one factorisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Curvature:
    """A factorised Hessian without its penalty.

    Attributes
    ----------
    mean : Tensor, shape (d,)
        m, about which the intercept and the coefficients are independent.
    classes, class_values : Tensor, shape (k, k) and (k,)
        U and b.
    features, feature_values : Tensor, shape (d, r) and (r,)
        V and a, for the r = min(rows, d) directions in which rows differ; the rest have curvature zero.
    """

    mean: Tensor
    classes: Tensor
    class_values: Tensor
    features: Tensor
    feature_values: Tensor

    @classmethod
    def measure(cls, X: Tensor, weights: Tensor, u: Tensor, v: Tensor) -> Curvature:
        """Measure it on rows X (m, d) with weights (m,) that sum to 1, and their Hessians diag(u) - v vᵀ.

        X is lost: it may be a large part of what a memory limit allows.
        """
        import torch

        class_values, classes = torch.linalg.eigh(torch.diag(weights @ u) - v.T @ (weights[:, None] * v))
        traces = (weights * (u - v * v).sum(1)).clamp(min=0)
        traces /= traces.sum().clamp(min=torch.finfo(X.dtype).tiny)
        mean = traces @ X
        feature_values, features = _moments(X.sub_(mean).mul_(traces.sqrt()[:, None]))
        return cls(mean, classes, class_values.clamp(min=0), features, feature_values.clamp(min=0))

    def solve(self, gradient: Tensor, penalties: Tensor) -> Tensor:
        """Return P⁻¹ times `gradient` (p, k, d + 1), where P has the penalties (p,) on all but the intercept."""
        values = self.class_values[:, None] * self.feature_values
        shift = penalties.clamp(min=1e-6 * float(values.max()) + 1e-30).to(gradient.dtype)[:, None, None]
        g_intercept = self.classes.T @ gradient[..., -1:]
        g_coef = self.classes.T @ gradient[..., :-1] - g_intercept * self.mean
        along = g_coef @ self.features
        coef = g_coef / shift + (along / (values + shift) - along / shift) @ self.features.T
        # A score that all classes share changes no softmax: its curvature is zero but for rounding.
        floor = 1e-6 * float(self.class_values.max()) + 1e-30
        intercept = g_intercept / self.class_values.clamp(min=floor)[:, None]
        solved = gradient.clone()
        solved[..., :-1] = self.classes @ coef
        solved[..., -1:] = self.classes @ (intercept - coef @ self.mean[:, None])
        return solved


def _moments(A: Tensor) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues (r,) and vectors (d, r) of AᵀA for A (m, d), from the smaller of its two Gram matrices."""
    import torch

    m, d = A.shape
    if m >= d:
        return _eigh(A.T @ A)
    values, left = _eigh(A @ A.T)
    kept = values > values[-1] * torch.finfo(A.dtype).eps * m
    return values[kept], A.T @ (left[:, kept] / values[kept].sqrt())


def _eigh(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues, ascending, and eigenvectors of a Gram matrix."""
    import torch

    try:
        values, vectors = torch.linalg.eigh(gram)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        # Many equal eigenvalues, as columns that are always zero give, can stop LAPACK's divide and conquer in float32.
        values, vectors = (part.to(gram.dtype) for part in torch.linalg.eigh(gram.double()))
    return values, vectors
