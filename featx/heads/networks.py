"""What networks as heads share: they are trained straight from the table, in numpy or by torch."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from sklearn.utils import check_random_state

from featx.devices import arithmetic, resolve_device, within_memory
from featx.heads.inputs import NUMPY, Samples, as_tensor, read_labelled, read_training
from featx.heads.layers import Layer, Step, build_network, state_shapes, trace
from featx.heads.small import SmallTrainer, initial_state, is_plain
from featx.heads.targets import Array
from featx.heads.training import TrainConfig, Trainer, forked_seeds
from featx.settings import check_choice, check_number

if TYPE_CHECKING:
    from torch import nn

    from featx.heads.criteria import Criterion
    from featx.heads.training import Batch

#: With ``epochs="auto"``: updates to make, and the least number of epochs.
AUTO_UPDATES, AUTO_EPOCHS = 1000, 4

#: Rows of at least so many features are told apart after so many updates or epochs, whichever comes last.
WIDE, WIDE_UPDATES, WIDE_EPOCHS = 512, 500, 40


class _FittedNetwork:
    """What a fit finds; `DenseHead` documents it."""

    row_shape_: tuple[int, ...]
    state_: dict[str, Array]
    history_: dict[str, list[float]]
    n_iter_: int

    if TYPE_CHECKING:

        def get_params(self, deep: bool = True) -> dict[str, Any]: ...


@dataclass(kw_only=True, eq=False, repr=False)
class Network(_FittedNetwork):
    """What heads share whose scores come from a stack of layers trained by gradient descent.

    A final class says what its layers are and how they are applied; `DenseHead` documents the settings.
    """

    optimizer: str = "adamw"
    lr: float = 2e-3
    weight_decay: float = 1e-2
    momentum: float = 0.9
    eps: float | None = None
    epochs: int | str = "auto"
    batch_size: int = 250
    schedule: str = "one-cycle"
    factor: float = 0.1
    plateau_patience: int = 3
    min_lr: float = 0.0
    early_stopping: bool = False
    patience: int = 10
    min_delta: float = 0.0
    monitor: str = "val_loss"
    validation_fraction: float = 0.1
    init: str = "glorot"
    precision: str = "fp32"
    device: str = "auto"
    random_state: Any = None

    #: Whether rows may be maps.
    _maps: ClassVar[bool] = False

    def _stack(self) -> tuple[Layer, ...]:
        """Return the layers before the last, dense one."""
        raise NotImplementedError

    def _n_scores(self) -> int:
        """Return how many scores a row has."""
        raise NotImplementedError

    def _criterion(self, training: Samples) -> Criterion:
        """Return what training makes small, for such targets."""
        raise NotImplementedError

    def _read(self, X: Any, y: Any, sample_weight: Any, memory: int | str | None) -> Samples:
        """Return what to train on."""
        return read_training(self, X, y, sample_weight, memory=memory, maps=self._maps)

    def _taught(self, rows: Samples) -> Samples:
        """Return rows with their targets as the criterion takes them."""
        return rows

    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        groups: Any = None,
        memory: int | str | None = None,
    ) -> Self:
        """Train on X or Features with targets y and weights (n,).

        Parameters
        ----------
        X_val, y_val : as `X` and `y`
            Rows for the history, early stopping and the plateau schedule. Without them, a
            ``validation_fraction`` of the training rows is held out where the settings need it.
        groups : array-like of shape (n,), or None
            Rows of one group are held out together.
        memory : int, str or None
            See `featx.heads.inputs.read_training`.
        """
        config = self._config()
        training = self._read(X, y, sample_weight, memory)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        validation = None if X_val is None else read_labelled(self, X_val, y_val, memory=memory, maps=self._maps)
        if validation is None and config.watches_validation:
            training, validation = self._hold_out(training, seed, groups)
        self.row_shape_ = training.shape[1:]
        if self.epochs == "auto":
            config = dataclasses.replace(
                config, epochs=auto_epochs(training.shape[0], training.shape[1], self.batch_size)
            )
        self._optimizer_state: Any = None
        small = self._is_small(training, config)
        held_out = None if validation is None else self._taught(validation)
        trainer = (self._train_small if small else self._train)(self._taught(training), held_out, config, seed)
        self.history_, self.n_iter_ = trainer.state.history, trainer.state.epoch
        return self

    def _is_small(self, training: Samples, config: TrainConfig) -> bool:
        """Whether training takes less in numpy than importing torch does."""
        in_numpy = resolve_device(self.device, "device") == "cpu" and np.prod(training.shape) <= NUMPY
        return bool(in_numpy) and is_plain(self.network_steps(), config)

    def _train_small(
        self, training: Samples, validation: Samples | None, config: TrainConfig, seed: int
    ) -> SmallTrainer:
        """Train a new network in numpy, and keep its weights."""
        steps = self.network_steps()
        held_out = None if validation is None else TableBatches(validation, config.batch_size, seed)
        trainer = SmallTrainer(
            steps,
            initial_state(steps, self.init, seed),
            TableBatches(training, config.batch_size, seed),
            config,
            criterion=self._criterion(training),
            validation=None if held_out is None else held_out.in_order,
            keep_best=config.early_stopping,
        )
        trainer.run()
        self.state_ = {name: trainer.weights[name].copy() for name in state_shapes(steps)}
        return trainer

    def _train(
        self, training: Samples, validation: Samples | None, config: TrainConfig, seed: int, *, fitted: bool = False
    ) -> Trainer:
        """Train a new network, or the `fitted` one, and keep its weights."""

        def train(device: str, n_parts: int) -> Trainer:
            with forked_seeds(device, seed):
                network = self.network_module(fitted=fitted).to(device)
            rows = TableBatches(training, config.batch_size, seed, device, n_parts)
            held_out = (
                None
                if validation is None
                else TableBatches(validation, config.batch_size, seed, device, n_parts).in_order
            )
            trainer = Trainer(
                network,
                rows,
                config,
                seed=seed,
                criterion=self._criterion(training),
                validation=held_out,
                keep_best=config.early_stopping,
            )
            if fitted and getattr(self, "_optimizer_state", None) is not None:
                trainer.optimizer.load_state_dict(self._optimizer_state)
            with arithmetic(trainer.device, "fp32"):  # whatever the process allows
                trainer.run()
            self.keep(network)
            return trainer

        return within_memory(train, resolve_device(self.device, "device"))

    def network_module(self, *, fitted: bool = True) -> nn.Sequential:
        """Return the head as a torch network, with its fitted weights or with new ones."""
        import torch

        network = build_network(self.network_steps(), init=self.init)
        if fitted:
            network.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in self.state_.items()})
        return network

    def network_steps(self) -> list[Step]:
        """Return the modules that the network has, with their shapes."""
        return trace(self._stack(), tuple(self.row_shape_), self._n_scores())

    def keep(self, network: nn.Sequential) -> None:
        """Take the weights of `network`, which `network_module` made, as the fitted ones."""
        state = network.state_dict()
        self.state_ = {name: state[name].cpu().numpy().copy() for name in state_shapes(self.network_steps())}

    def _config(self) -> TrainConfig:
        check_choice("init", self.init, ("glorot", "he"))
        check_choice("precision", self.precision, ("fp32", "bf16"))
        check_number("validation_fraction", self.validation_fraction, above=0, most=0.9)
        names = {field.name for field in dataclasses.fields(TrainConfig)} & self.get_params().keys()
        given = {name: getattr(self, name) for name in names}
        return TrainConfig(**given | ({"epochs": 1} if self.epochs == "auto" else {}))

    def _hold_out(self, training: Samples, seed: int, groups: Any) -> tuple[Samples, Samples]:
        """Split rows in two, stratified where every class has two of them, and not through a group."""
        from sklearn.model_selection import StratifiedGroupKFold, train_test_split

        # Several labels or numbers are not stratified.
        n, classes = len(training), training.targets if training.targets.ndim == 1 else None
        codes = np.zeros(n, np.int64) if classes is None else classes
        if groups is not None:
            n_folds = max(2, round(1 / self.validation_fraction))
            folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
            kept, held = next(folds.split(codes, codes, groups))
            return training.select(kept), training.select(held)
        counts = np.bincount(codes)
        n_held = max(int(self.validation_fraction * n), len(counts))
        stratify = classes if counts.min() > 1 and n_held + len(counts) <= n else None
        parts = train_test_split(np.arange(n), test_size=n_held, stratify=stratify, random_state=seed)
        return training.select(np.sort(parts[0])), training.select(np.sort(parts[1]))


def auto_epochs(n: int, d: int, batch_size: int) -> int:
    """Return how many epochs ``epochs="auto"`` means for n rows of d features.

    Examples
    --------
    >>> [auto_epochs(n, 1280, 250) for n in (200, 2934, 10_000, 50_000, 1_000_000)]
    [500, 42, 25, 5, 4]
    """
    steps = math.ceil(n / batch_size)
    epochs = math.ceil(AUTO_UPDATES / steps)
    if d >= WIDE:
        epochs = min(epochs, max(WIDE_EPOCHS, math.ceil(WIDE_UPDATES / steps)))
    return max(AUTO_EPOCHS, epochs)


class TableBatches:
    """`featx.heads.training.Batches` straight from a table or an array, without workers between.

    They are tensors on a device, or where none is named arrays of numpy; where a device is to take them in several
    parts, they come there batch by batch.
    """

    def __init__(
        self, training: Samples, batch_size: int, seed: int, device: str | None = None, n_parts: int = 1
    ) -> None:
        self._rows, self._batch_size, self._seed, self._device = training, batch_size, seed, device
        self.n_rows = len(training)
        self.steps_per_epoch = math.ceil(self.n_rows / batch_size)
        self._n_parts, self._place = n_parts, "cpu" if device and n_parts > 1 else device
        self._targets = self._placed(training.targets)
        self._weights = self._placed((training.weights / training.weights.mean()).astype(np.float32))
        source = self._rows.source
        self._resident = self._floats(source) if isinstance(source, np.ndarray) else None

    def steps(self, epoch: int, first: int = 0) -> Iterator[tuple[int, list[Batch]]]:
        """Yield all rows in an order that seed and epoch decide, in batches of nearly equal size.

        A block of a single row, the last of a streamed table may be one, waits for another epoch.
        """
        return itertools.islice(self._steps(self._seed + epoch), first, None)

    def _steps(self, seed: int) -> Iterator[tuple[int, list[Batch]]]:
        shuffle = np.random.default_rng(seed)
        for indices, X in self._parts(seed):
            if len(X) == 1 < self.n_rows:
                continue  # batch normalisation has no variance of one row
            order = self._placed(shuffle.permutation(len(X)))
            targets, weights = self._targets[indices], self._weights[indices]
            # Equal parts: a rest of one row would leave batch normalisation without a variance.
            n_batches = math.ceil(len(X) / self._batch_size)
            size, longer = divmod(len(X), n_batches)
            for i in range(n_batches):
                chosen = order[i * size + min(i, longer) : (i + 1) * size + min(i + 1, longer)]
                rows = X[chosen] if self._device is None else X.index_select(0, chosen)
                yield len(chosen), [self._moved(rows, targets[chosen], weights[chosen])]

    def in_order(self, batch_size: int = 4096) -> Iterator[Batch]:
        """Yield all rows as they stand."""
        step = max(1, batch_size // self._n_parts)
        for indices, X in self._parts(None):
            targets, weights = self._targets[indices], self._weights[indices]
            for start in range(0, len(X), step):
                part = slice(start, start + step)
                yield self._moved(X[part], targets[part], weights[part])

    def _moved(self, X: Any, targets: Any, weights: Any) -> Batch:
        if self._place == self._device:
            return X, targets, weights
        return X.to(self._device), targets.to(self._device), weights.to(self._device)

    def _parts(self, seed: int | None) -> Iterator[tuple[Any, Any]]:
        if self._resident is not None:
            yield slice(None), self._resident
            return
        for indices, block in self._rows.blocks(shuffle=seed is not None, seed=seed or 0):
            yield indices, self._floats(block)

    def _placed(self, array: Array) -> Any:
        return array if self._place is None else as_tensor(array, self._place)

    def _floats(self, rows: Array) -> Any:
        return rows.astype(np.float32, copy=False) if self._place is None else as_tensor(rows, self._place).float()
