"""Boosted trees as a module of PyTorch: the sums of leaves that XGBoost makes of rows."""

from __future__ import annotations

import json

import numpy as np
import torch
from torch import Tensor, nn

from featx.heads.boosted import XGBoostHead, XGBoostRegressor


class Trees(nn.Module):
    """Boosted trees, all walked down at once: one step for all rows and trees is three look-ups.

    A leaf is its own two children, so that whoever arrives early waits for the deepest.

    Parameters
    ----------
    head : XGBoostHead or XGBoostRegressor
        Fitted.
    """

    feature: Tensor
    threshold: Tensor
    below: Tensor
    roots: Tensor
    start: Tensor
    mean: Tensor
    axes: Tensor

    def __init__(self, head: XGBoostHead | XGBoostRegressor) -> None:
        super().__init__()
        self.n_groups = _n_groups(head)
        n_trees = (head.best_iteration_ + 1) * self.n_groups
        document = json.loads(bytes(head.booster_.save_raw("json")))
        trees = document["learner"]["gradient_booster"]["model"]["trees"][:n_trees]
        sizes = [len(tree["left_children"]) for tree in trees]
        roots = np.cumsum([0, *sizes[:-1]])
        left, right, feature, threshold = (
            np.concatenate([np.asarray(tree[name]) for tree in trees])
            for name in ("left_children", "right_children", "split_indices", "split_conditions")
        )
        own, shift = np.arange(len(left)), np.repeat(roots, sizes)
        children = np.where(left < 0, own, left + shift), np.where(left < 0, own, right + shift)
        self.depth = _depth(roots, *children)
        self.register_buffer("feature", torch.from_numpy(feature.astype(np.int64)))
        self.register_buffer("threshold", torch.from_numpy(np.array(threshold, dtype=np.float32)))
        self.register_buffer("below", torch.from_numpy(np.stack(children, 1)))
        self.register_buffer("roots", torch.from_numpy(roots))
        if head.mean_ is not None and head.projection_ is not None:
            self.register_buffer("mean", torch.from_numpy(np.array(head.mean_, dtype=np.float32)))
            self.register_buffer("axes", torch.from_numpy(np.array(head.projection_, dtype=np.float32)))
        self.projects = head.projection_ is not None
        self.register_buffer("start", torch.zeros(self.n_groups))
        self.start = torch.from_numpy(np.array(_start(head, self), dtype=np.float32))

    def forward(self, rows: Tensor) -> Tensor:
        """Return sums of leaves (n, n_groups) of scaled rows (n, d): a class (of two the second), label or number."""
        if self.projects:
            rows = torch.round(((rows - self.mean) @ self.axes) * 1e4) / 1e4
        return self.margins(rows)

    def margins(self, rows: Tensor) -> Tensor:
        """Return sums of leaves (n, n_groups) of rows as the trees see them."""
        nodes = self.roots + torch.zeros_like(rows[:, :1], dtype=torch.int64)
        for _ in range(self.depth):
            goes_right = rows.gather(1, self.feature[nodes]) >= self.threshold[nodes]
            nodes = torch.where(goes_right, self.below[:, 1][nodes], self.below[:, 0][nodes])
        leaves = self.threshold[nodes].reshape(rows.shape[0], -1, self.n_groups)
        return self.start + leaves.sum(1)


def _n_groups(head: XGBoostHead | XGBoostRegressor) -> int:
    if isinstance(head, XGBoostRegressor):
        return head.n_outputs_
    return len(head.classes_) if head.multilabel_ or len(head.classes_) > 2 else 1


def _depth(roots: np.ndarray, left: np.ndarray, right: np.ndarray) -> int:
    """Return how many steps lead from the roots to the farthest leaf."""
    level, depth = roots, 0
    while len(level := level[left[level] != level]):
        level, depth = np.concatenate([left[level], right[level]]), depth + 1
    return depth


def _start(head: XGBoostHead | XGBoostRegressor, trees: Trees) -> np.ndarray:
    """Return what XGBoost adds to the sums of leaves: its files say that in another way from version to version."""
    columns = head.n_features_in_ if head.projection_ is None else head.projection_.shape[1]
    row = np.zeros((1, columns), np.float32)
    margins = head.booster_.inplace_predict(
        row, iteration_range=(0, head.best_iteration_ + 1), predict_type="margin"
    ).reshape(1, -1)
    with torch.no_grad():
        return np.asarray(margins[0] - trees.margins(torch.from_numpy(row)).numpy()[0])
