"""Dense networks trained in numpy, step by step as torch would: importing torch takes longer than a small fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.heads.layers import Step, apply_dense, apply_layer, state_shapes
from featx.heads.targets import Array
from featx.heads.training import Training

if TYPE_CHECKING:
    from featx.heads.criteria import Criterion
    from featx.heads.training import Batch, Batches, TrainConfig

#: Of Adam: how much of its two moving averages stays at a step, and torch's own epsilon.
BETA_1, BETA_2, EPS = 0.9, 0.999, 1e-8


def is_plain(steps: list[Step], config: TrainConfig) -> bool:
    """Whether `SmallTrainer` can train a network of these layers; torch trains every other."""
    kinds = {step.layer.kind for step in steps}
    return kinds <= {"dense", "relu", "leaky"} and config.optimizer in ("adam", "adamw") and config.precision == "fp32"


def initial_state(steps: list[Step], init: str, seed: int) -> dict[str, Array]:
    """Return the weights that `featx.heads.layers.build_network` makes after ``torch.manual_seed(seed)``.

    Torch draws 32 bits a value from the Mersenne Twister, of which it keeps the lowest 24: first weights and biases of
    its own for all layers, then the weights that replace them.
    """
    shapes = state_shapes(steps)
    seeded: Any = np.random.RandomState(seed).get_state(legacy=False)
    twister = np.random.MT19937()
    twister.state = seeded
    twister.random_raw(sum(map(math.prod, shapes.values())), output=False)
    state = {}
    for name, shape in shapes.items():
        state[name] = np.zeros(shape, np.float32)
        if len(shape) > 1:
            bound = math.sqrt(6 / (sum(shape) if init == "glorot" else shape[1]))
            shares = (twister.random_raw(math.prod(shape)) & 0xFFFFFF).astype(np.float32) / np.float32(1 << 24)
            state[name] += (shares * np.float32(2 * bound) - np.float32(bound)).reshape(shape)
    return state


class SmallTrainer(Training):
    """Training of a network that `is_plain`.

    Parameters
    ----------
    steps : list of Step
        Its layers.
    weights : dict of str to ndarray
        Initial ones, by their names in torch's state dict.
    batches, config, criterion, validation, keep_best
        As in `Training`, with arrays where torch has tensors.

    Attributes
    ----------
    weights : dict of str to ndarray
        As they are now: parts of one vector, which the optimiser works on.
    """

    def __init__(
        self,
        steps: list[Step],
        weights: dict[str, Array],
        batches: Batches,
        config: TrainConfig,
        *,
        criterion: Criterion,
        validation: Callable[[], Iterable[Batch]] | None = None,
        keep_best: bool = False,
    ) -> None:
        super().__init__(batches, config, criterion=criterion, validation=validation, keep_best=keep_best)
        self._layers = steps
        # Matrices first: weight decay holds for them alone.
        shapes = {name: array.shape for name, array in sorted(weights.items(), key=lambda item: -item[1].ndim)}
        self._n_decaying = sum(math.prod(shape) for shape in shapes.values() if len(shape) > 1)
        self._vector = np.concatenate([weights[name].ravel() for name in shapes])
        self._slope, self._mean, self._square, self._work = (np.zeros_like(self._vector) for _ in range(4))
        self.weights, self._slopes = _parts(self._vector, shapes), _parts(self._slope, shapes)
        self._best: Array | None = None
        self._used_rate = 0.0

    def evaluate(self, batches: Iterable[Batch]) -> tuple[float, float]:
        """Return loss and accuracy, see `Training.evaluate`."""
        sums = np.zeros(3)
        for X, targets, weights in batches:
            scores = apply_dense(self._layers, self.weights, X)
            sums += self._sums(self.criterion.slopes(scores, targets)[0], scores, targets, weights)
        return float(sums[0] / sums[2]), float(sums[1] / sums[2])

    def _alone(self) -> AbstractContextManager[None]:
        return np.errstate(all="ignore")  # a loss that is no number is told after the epoch

    def _array(self, values: list[float]) -> Array:
        return np.array(values)

    def _keep(self) -> None:
        self._best = self._vector.copy()

    def _finish(self) -> None:
        if self._best is not None:
            self._vector[:] = self._best

    def _last_rate(self) -> float:
        return self._used_rate

    def _step(self, n_rows: int, batches: Iterable[Batch]) -> Array:
        ((X, targets, weights),) = batches
        found = [X]
        for i, step in enumerate(self._layers):
            found.append(apply_layer(i, step.layer, self.weights, found[-1]))
        losses, slope = self.criterion.slopes(found[-1], targets, self.config.label_smoothing)
        slope *= weights[:, None]
        self._back(found, slope / np.float32(n_rows))
        self._used_rate = self._rate()
        self._update(self._used_rate, self.state.step + 1)
        return self._sums(losses, found[-1], targets, weights)

    def _sums(self, losses: Array, scores: Array, targets: Array, weights: Array) -> Array:
        """Return the weighted sums of losses and of right rows, and that of the weights."""
        return np.array([losses @ weights, self.criterion.right(scores, targets) @ weights, weights.sum()], np.float64)

    def _back(self, found: list[Array], slope: Array) -> None:
        """Set the gradient: `found` are the rows and what each layer made of them, `slope` is that of the scores."""
        for i, step in reversed([*enumerate(self._layers)]):
            if step.layer.kind == "dense":
                np.matmul(slope.T, found[i], out=self._slopes[f"{i}.weight"])
                np.sum(slope, axis=0, out=self._slopes[f"{i}.bias"])
                slope = slope @ self.weights[f"{i}.weight"] if i else slope
            else:
                slope *= np.where(found[i + 1] > 0, np.float32(1), np.float32(step.layer.number))

    def _update(self, rate: float, n: int) -> None:
        """Make the `n`-th step of Adam (Kingma and Ba 2015), or of AdamW (Loshchilov and Hutter 2019)."""
        config, work, matrices = self.config, self._work, slice(self._n_decaying)
        if config.optimizer == "adamw":
            self._vector[matrices] *= 1 - rate * config.weight_decay
        elif config.weight_decay:
            self._slope[matrices] += config.weight_decay * self._vector[matrices]
        self._mean *= BETA_1
        self._mean += np.multiply(self._slope, 1 - BETA_1, out=work)
        self._square *= BETA_2
        np.multiply(self._slope, self._slope, out=work)
        self._square += np.multiply(work, 1 - BETA_2, out=work)
        np.sqrt(self._square, out=work)
        work /= math.sqrt(1 - BETA_2**n)
        work += EPS if config.eps is None else config.eps
        np.divide(self._mean, work, out=work)
        self._vector -= np.multiply(work, rate / (1 - BETA_1**n), out=work)


def _parts(vector: Array, shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
    """Return the parts of a vector, in the order of their shapes; they share its memory."""
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])
    parts = np.split(vector, ends[:-1])
    return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
