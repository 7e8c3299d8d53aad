"""Learned queries over the positions of a map, as modules of PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Attend(nn.Module):
    """From maps (n, c, h, w) to the averages (n, q · c) that q queries make of their positions.

    Each query w weighs the positions x by the softmax of wᵀx / √c. Queries begin at zero, which is average pooling.
    """

    def __init__(self, n_queries: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_queries, channels))

    def forward(self, maps: Tensor) -> Tensor:
        """Return averages (n, q · c)."""
        rows = maps.flatten(2)
        scores: Tensor = self.weight @ rows / maps.shape[1] ** 0.5
        return (scores.softmax(2) @ rows.transpose(1, 2)).flatten(1)


class Tokens(nn.Module):
    """From tokens (n, t, c), or rows (n, t · c) of so many parts side by side, to maps (n, c, t, 1)."""

    def __init__(self, n_tokens: int) -> None:
        super().__init__()
        self.n_tokens = n_tokens

    def forward(self, rows: Tensor) -> Tensor:
        """Return maps of one column."""
        return rows.reshape(rows.shape[0], self.n_tokens, -1).transpose(1, 2).unsqueeze(3)
