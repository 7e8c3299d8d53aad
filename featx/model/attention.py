"""Learning which images of an item count: gated attention under a linear classifier, in numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featx.features.items import ItemRows, means_of, softmax_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

#: Hidden units of the attention, and leading directions of the images in which it is learned.
_HIDDEN, _DIRECTIONS = 32, 96
#: Images that the directions are of, at most; images a step, about; passes; step; decay of all weights.
_SAMPLE, _STEP_IMAGES, _EPOCHS, _RATE, _DECAY = 4000, 2048, 40, 3e-3, 1e-2


def learn_attention(part: ItemRows, rows: NDArray[np.intp], y: NDArray[Any], task: str, seed: int) -> dict[str, Floats]:
    """Return the attention that tells items apart best, as `featx.features.items.Combining.learned` has it.

    It begins at the plain mean (all images count alike) and is learned together with a linear classifier or regression
    on the weighted mean, by AdamW. Images are seen in their leading directions.

    Parameters
    ----------
    part : ItemRows
    rows : ndarray of int, shape (k,)
        Training items.
    y : ndarray, shape (k,) or (k, t)
        Their classes, labels (0, 1) or numbers.
    task : str
        As `featx.targets.TASKS`.
    seed : int

    Notes
    -----
    M. Ilse, J. M. Tomczak, M. Welling, "Attention-based deep multiple instance learning", ICML 2018.
    """
    rng = np.random.default_rng(seed)
    order, starts = part.members(rows)
    images = part.order[order]
    sample = part.images[np.sort(rng.permutation(images)[:_SAMPLE])].astype(np.float32)
    mean, spread = sample.mean(axis=0), sample.std(axis=0)
    scale = np.where(spread > 1e-6, spread, 1).astype(np.float32)
    _, values, directions = np.linalg.svd((sample - mean) / scale, full_matrices=False)
    kept = min(_DIRECTIONS, len(values))
    basis = np.asarray(directions[:kept].T / np.maximum(values[:kept].mean() / len(sample) ** 0.5, 1e-6), np.float32)
    Z = np.concatenate([((part.images[some] - mean) / scale) @ basis for some in _parts(images)])
    found = _Learning(Z, starts, _wanted(y, task), task, rng).run()
    return {
        "mean": mean,
        "scale": scale,
        "tanh": np.asarray(basis @ found["V"], np.float32),
        "gate": np.asarray(basis @ found["U"], np.float32),
        "weight": np.asarray(found["w"], np.float32),
    }


def _parts(images: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    return [part for part in np.split(images, range(8192, len(images), 8192)) if len(part)]


def _wanted(y: NDArray[Any], task: str) -> Floats:
    """Return targets (k, t): classes as 0 and 1, numbers standardised."""
    if task == "classify":
        return np.asarray(np.unique(y) == y[:, None], np.float32)
    targets = y.reshape(len(y), -1).astype(np.float32)
    if task == "multilabel":
        return targets
    spread = targets.std(axis=0)
    return np.asarray((targets - targets.mean(axis=0)) / np.where(spread > 0, spread, 1), np.float32)


class _Learning:
    """Attention and classifier on images `Z` (m, r) of items that begin at `starts`."""

    def __init__(
        self, Z: Floats, starts: NDArray[np.intp], wanted: Floats, task: str, rng: np.random.Generator
    ) -> None:
        self.Z, self.starts, self.wanted, self.task, self.rng = Z, starts, wanted, task, rng
        r, t = Z.shape[1], wanted.shape[1]
        V, U = (rng.standard_normal((2, r, _HIDDEN)) / r**0.5).astype(np.float32)
        self.weights: dict[str, Floats] = {
            "V": V, "U": U, "w": np.zeros(_HIDDEN, np.float32),
            "W": np.zeros((r, t), np.float32), "b": np.zeros(t, np.float32),
        }  # fmt: skip
        self.first = {name: np.zeros_like(value) for name, value in self.weights.items()}
        self.second = {name: np.zeros_like(value) for name, value in self.weights.items()}
        self.steps = 0

    def run(self) -> dict[str, Floats]:
        """Learn, and return the weights."""
        n_items, per_item = len(self.wanted), len(self.Z) / max(1, len(self.wanted))
        size = max(8, round(_STEP_IMAGES / per_item))
        for _ in range(_EPOCHS):
            order = self.rng.permutation(n_items)
            for low in range(0, n_items, size):
                self._step(order[low : low + size])
        return self.weights

    def _step(self, items: NDArray[np.intp]) -> None:
        n = np.diff(self.starts)[items]
        starts = np.concatenate([[0], np.cumsum(n)])
        Z = self.Z[np.arange(starts[-1]) + np.repeat(self.starts[items] - starts[:-1], n)]
        gradients = self._gradients(Z, starts, self.wanted[items])
        self.steps += 1
        for name, gradient in gradients.items():
            self.first[name] += 0.1 * (gradient - self.first[name])
            self.second[name] += 0.001 * (gradient**2 - self.second[name])
            mean = self.first[name] / (1 - 0.9**self.steps)
            deviation = np.sqrt(self.second[name] / (1 - 0.999**self.steps)) + 1e-8
            self.weights[name] -= _RATE * (mean / deviation + _DECAY * self.weights[name] * (name != "b"))

    def _gradients(self, Z: Floats, starts: NDArray[np.intp], wanted: Floats) -> dict[str, Floats]:
        V, U, w, W, b = (self.weights[name] for name in "VUwWb")
        n = np.diff(starts)
        tanh, gate = np.tanh(Z @ V), 1 / (1 + np.exp(-np.clip(Z @ U, -60, 60)))
        share = softmax_of((tanh * gate) @ w, starts)
        pooled = means_of(Z, starts, share)
        said = pooled @ W + b
        if self.task == "classify":
            said = np.exp(said - said.max(axis=1, keepdims=True))
            said /= said.sum(axis=1, keepdims=True)
        elif self.task == "multilabel":
            said = 1 / (1 + np.exp(-np.clip(said, -60, 60)))
        error = (said - wanted) / len(wanted)
        of_share = (Z * np.repeat(error @ W.T, n, axis=0)).sum(axis=1)
        mean = np.add.reduceat(share * of_share, starts[:-1])
        of_score = share * (of_share - np.repeat(mean, n))
        of_hidden = of_score[:, None] * w
        return {
            "W": pooled.T @ error,
            "b": error.sum(axis=0),
            "w": (tanh * gate).T @ of_score,
            "V": Z.T @ (of_hidden * gate * (1 - tanh**2)),
            "U": Z.T @ (of_hidden * tanh * gate * (1 - gate)),
        }
