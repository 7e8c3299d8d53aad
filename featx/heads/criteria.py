"""What networks make small: a criterion for classes, one for several labels, two for numbers; by torch and in numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featx.heads.inputs import like
from featx.heads.losses import module_of
from featx.heads.targets import Array

if TYPE_CHECKING:
    from torch import Tensor


class Criterion(Protocol):
    """A loss of scores (m, o), and which rows it counts as right.

    Attributes
    ----------
    has_accuracy : bool
        Whether a row can be right.
    """

    has_accuracy: bool

    def losses(self, scores: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        """Return the loss of each row, shape (m,), of which torch takes the gradient."""

    def slopes(self, scores: Array, targets: Array, smoothing: float = 0.0) -> tuple[Array, Array]:
        """Return the loss of each row, shape (m,), and its gradient in the scores, shape (m, o), in numpy."""

    def right(self, scores: Any, targets: Any) -> Any:
        """Return the share of each row that is right, shape (m,), of numpy or torch."""


class CrossEntropy:
    """Of the softmax over classes. A share `smoothing` of a row's target is spread over all classes."""

    has_accuracy = True

    def losses(self, scores: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        """Return losses; see `Criterion`."""
        import torch

        return torch.nn.functional.cross_entropy(scores, targets, reduction="none", label_smoothing=smoothing)

    def slopes(self, scores: Array, targets: Array, smoothing: float = 0.0) -> tuple[Array, Array]:
        """Return losses and gradients; see `Criterion`."""
        rows, k = np.arange(len(scores)), scores.shape[1]
        logs = scores - scores.max(axis=1, keepdims=True)
        slope = np.exp(logs)
        totals = slope.sum(axis=1, keepdims=True)
        slope /= totals
        logs -= np.log(totals)
        losses = -(1 - smoothing) * logs[rows, targets] - smoothing * logs.mean(axis=1)
        slope -= np.float32(smoothing / k)
        slope[rows, targets] -= np.float32(1 - smoothing)
        return losses, slope

    def right(self, scores: Any, targets: Any) -> Any:
        """Return whether the largest score is that of the class."""
        return scores.argmax(1) == targets


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """Of the logistic function of each label's score, the mean over labels; smoothed targets are nearer to one half.

    Attributes
    ----------
    label_weights : ndarray, shape (2, t), or None
        What 0 and 1 of each label count; None for 1 throughout.
    """

    label_weights: NDArray[np.float64] | None = None
    has_accuracy = True

    def losses(self, scores: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        """Return losses; see `Criterion`."""
        import torch

        smoothed = targets.float() * (1 - smoothing) + smoothing / 2
        each = torch.nn.functional.binary_cross_entropy_with_logits(scores, smoothed, reduction="none")
        losses: Tensor = (self._counts(scores, targets) * each).mean(1)
        return losses

    def slopes(self, scores: Array, targets: Array, smoothing: float = 0.0) -> tuple[Array, Array]:
        """Return losses and gradients; see `Criterion`."""
        smoothed = targets.astype(scores.dtype) * np.float32(1 - smoothing) + np.float32(smoothing / 2)
        smaller, counts = np.exp(-abs(scores)), self._counts(scores, targets)
        losses = counts * (np.log1p(smaller) + np.maximum(scores, 0) - smoothed * scores)
        slope = counts * (np.where(scores > 0, 1, smaller) / (1 + smaller) - smoothed)
        return losses.mean(axis=1), slope / np.float32(scores.shape[1])

    def right(self, scores: Any, targets: Any) -> Any:
        """Return the share of labels whose score has the right sign."""
        return module_of(scores).asarray((scores > 0) == (targets == 1), dtype=scores.dtype).mean(1)

    def _counts(self, scores: Any, targets: Any) -> Any:
        if self.label_weights is None:
            return 1
        zero, one = like(self.label_weights, scores)
        return module_of(scores).where(targets == 1, one, zero)


@dataclass(frozen=True)
class Distance:
    """Half the squared difference of scores and numbers, the mean over numbers; linear beyond `delta` (Huber, 1964)."""

    delta: float = np.inf
    has_accuracy = False

    def losses(self, scores: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:  # noqa: ARG002 - of classes
        """Return losses; see `Criterion`."""
        difference = scores - targets
        within = difference.clip(-self.delta, self.delta)
        return (within * (difference - within / 2)).mean(1)

    def slopes(self, scores: Array, targets: Array, smoothing: float = 0.0) -> tuple[Array, Array]:  # noqa: ARG002
        """Return losses and gradients; see `Criterion`."""
        difference = scores - targets
        within = difference.clip(-self.delta, self.delta)
        return (within * (difference - within / 2)).mean(axis=1), within / np.float32(scores.shape[1])

    def right(self, scores: Any, targets: Any) -> Any:  # noqa: ARG002 - no number is right
        """Return zeros."""
        return module_of(scores).zeros_like(scores[:, 0])
