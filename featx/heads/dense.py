"""`DenseHead` and `ConvHead`: small networks, trained straight from the table."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from featx.devices import arithmetic, resolve_device, within_memory
from featx.errors import DataError, OptionError
from featx.heads.estimator import Head
from featx.heads.inputs import NUMPY, Samples, as_tensor, read_labelled, read_rows, read_training
from featx.heads.layers import (
    FOR_MAPS,
    Layer,
    Step,
    apply_dense,
    build_network,
    dense_stack,
    parse_layers,
    state_shapes,
    trace,
)
from featx.heads.linear import softmax
from featx.heads.small import SmallTrainer, initial_state, is_plain
from featx.heads.targets import Array, ClassWeight
from featx.heads.training import TrainConfig, Trainer, forked_seeds
from featx.settings import check_choice, check_number

if TYPE_CHECKING:
    from torch import nn

    from featx.heads.training import Batch


#: With ``epochs="auto"``: updates to make, and the least number of epochs.
AUTO_UPDATES, AUTO_EPOCHS = 1000, 4

#: Rows of at least so many features are told apart after so many updates or epochs, whichever comes last.
WIDE, WIDE_UPDATES, WIDE_EPOCHS = 512, 500, 40


class _FittedNetwork:
    """What a fit finds; `DenseHead` documents it."""

    classes_: Array
    row_shape_: tuple[int, ...]
    state_: dict[str, Array]
    history_: dict[str, list[float]]
    n_iter_: int


@dataclass(kw_only=True, eq=False, repr=False)
class NetworkClassifier(_FittedNetwork, Head):
    """A classifier whose scores come from a stack of layers trained by gradient descent.

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
    label_smoothing: float = 0.0
    class_weight: ClassWeight = None
    init: str = "glorot"
    precision: str = "fp32"
    device: str = "auto"
    random_state: Any = None

    #: Whether rows may be maps.
    _maps: ClassVar[bool] = False

    def _stack(self) -> tuple[Layer, ...]:
        """Return the layers before the last, dense one."""
        raise NotImplementedError

    def _scores(self, block: Array) -> Array:
        """Return the scores (n, k) of rows."""
        raise NotImplementedError

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
        """Train on X or Features with labels y (n,) and weights (n,).

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
        training = read_training(
            self, X, y, sample_weight, class_weight=self.class_weight, memory=memory, maps=self._maps
        )
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
        trainer = (self._train_small if small else self._train)(training, validation, config, seed)
        self.history_, self.n_iter_ = trainer.state.history, trainer.state.epoch
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train one epoch on X (n, d), at the constant rate ``lr``, from where the head stands.

        Parameters
        ----------
        classes : array-like of shape (k,)
            All labels there will be; needed at the first call.
        """
        config = dataclasses.replace(self._config(), schedule="none", epochs=1, early_stopping=False)
        first = not hasattr(self, "state_")
        if first and classes is None:
            raise DataError("The first partial_fit needs classes=, all labels there will be.")
        if first:
            self.classes_ = np.unique(classes)
            self.history_, self.n_iter_ = {"loss": [], "accuracy": []}, 0
        training = read_labelled(
            self, X, y, sample_weight, class_weight=self.class_weight, maps=self._maps, reset=first
        )
        self.row_shape_ = training.shape[1:]
        self.n_iter_ += 1
        seed = int(check_random_state(self.random_state).randint(2**31 - 1)) + self.n_iter_
        trainer = self._train(training, None, config, seed, fitted=not first)
        self._optimizer_state = trainer.optimizer.state_dict()
        for name in ("loss", "accuracy"):
            self.history_[name] += trainer.state.history[name]
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
        held_out = None if validation is None else _TableBatches(validation, config.batch_size, seed)
        trainer = SmallTrainer(
            steps,
            initial_state(steps, self.init, seed),
            _TableBatches(training, config.batch_size, seed),
            config,
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
            rows = _TableBatches(training, config.batch_size, seed, device, n_parts)
            held_out = (
                None
                if validation is None
                else _TableBatches(validation, config.batch_size, seed, device, n_parts).in_order
            )
            trainer = Trainer(
                network,
                rows,
                config,
                seed=seed,
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

    def decision_function(self, X: Any) -> Array:
        """Return log-odds against any one of the classes, shape (n, k), or of the second of two classes, (n,)."""
        check_is_fitted(self)
        rows = read_rows(self, X, maps=self._maps)
        scores = np.concatenate([self._scores(block) for _, block in rows.blocks()])
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def predict_proba(self, X: Any) -> Array:
        """Return probabilities, shape (n, k), columns in the order of ``classes_``."""
        return softmax(self.decision_function(X))

    def predict(self, X: Any) -> Array:
        """Return the most probable label of each row, shape (n,)."""
        codes = self.predict_proba(X).argmax(axis=1)
        labels: Array = self.classes_[codes]
        return labels

    def network_module(self, *, fitted: bool = True) -> nn.Sequential:
        """Return the head as a torch network, with its fitted weights or with new ones."""
        import torch

        network = build_network(self.network_steps(), init=self.init)
        if fitted:
            network.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in self.state_.items()})
        return network

    def network_steps(self) -> list[Step]:
        """Return the modules that the network has, with their shapes."""
        return trace(self._stack(), tuple(self.row_shape_), len(self.classes_))

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

        if groups is not None:
            n_folds = max(2, round(1 / self.validation_fraction))
            folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
            kept, held = next(folds.split(training.targets, training.targets, groups))
            return training.select(kept), training.select(held)
        counts = np.bincount(training.targets)
        n_held = max(int(self.validation_fraction * len(training.targets)), len(counts))
        stratify = training.targets if counts.min() > 1 and n_held + len(counts) <= len(training.targets) else None
        parts = train_test_split(
            np.arange(len(training.targets)), test_size=n_held, stratify=stratify, random_state=seed
        )
        return training.select(np.sort(parts[0])), training.select(np.sort(parts[1]))


@dataclass(eq=False, repr=False)
class DenseHead(NetworkClassifier):
    """Multi-layer perceptron with softmax output.

    Parameters
    ----------
    hidden : int or sequence of int
        Widths of the hidden layers.
    dropout : float
        Share of each hidden layer's outputs dropped in training.
    batch_norm : bool
        Batch normalisation before each activation.
    activation : str
        ``relu``, ``leaky``, ``gelu``, ``silu``, ``elu``, ``tanh`` or ``sigmoid``; ``leaky.1`` for its slope.
    layers : str or None
        The whole stack instead of the four above, as ``256 relu 128 relu drop.3 64 relu bn``; its words are
        listed in `featx.heads.layers`.
    optimizer : {"adamw", "adam", "adamax", "sgd"}
    lr : float
        Learning rate, the highest of the schedule.
    weight_decay : float
        Not applied to biases and batch normalisation.
    momentum : float
        For ``sgd``.
    eps : float or None
        For the Adam family; None for torch's own (Keras has 1e-7).
    epochs : int or "auto"
        ``auto`` makes 4, and on small tables as many as 1,000 updates need; with 512 features or more 40 epochs or 500
        updates will do.
    batch_size : int
        Batches are made nearly equal, so that none is a small rest.
    schedule : {"one-cycle", "cosine", "plateau", "none"}
        ``plateau`` multiplies the rate by `factor` when `monitor` has not improved for `plateau_patience`
        epochs, down to `min_lr`.
    factor, plateau_patience, min_lr : float, int, float
    early_stopping : bool
        Stop when `monitor` has not improved by more than `min_delta` for `patience` epochs, and keep the
        best epoch's weights.
    patience, min_delta : int, float
    monitor : {"val_loss", "val_accuracy", "loss", "accuracy"}
    validation_fraction : float
        Held out where early stopping or the plateau needs it and ``fit`` was not given ``X_val``.
    label_smoothing : float
    class_weight : dict, "balanced" or None
        As in scikit-learn.
    init : {"glorot", "he"}
        Uniform weights, zero biases.
    precision : {"fp32", "bf16"}
        Of the products in training; weights are float32 in any case.
    device : {"auto", "cpu", "cuda"}
        Where the fit computes. Prediction needs numpy alone.
    random_state : int, RandomState or None
        Decides initial weights, order and dropout; an int gives the same network again on the same machine.

    Attributes
    ----------
    classes_ : ndarray of shape (k,)
    state_ : dict of str to ndarray
        Weights, named as in the ``state_dict`` of `network_module`.
    history_ : dict of str to list of float
        ``loss``, ``accuracy``, ``lr``, and with validation rows ``val_loss``, ``val_accuracy``; one entry an epoch.
    n_iter_ : int
        Epochs run.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> head = DenseHead(hidden=64, random_state=0).fit(X / 16, y)
    >>> head.score(X / 16, y) > 0.98, sorted(head.history_)
    (True, ['accuracy', 'loss', 'lr'])
    """

    hidden: int | Sequence[int] = (256, 128, 64)
    _: KW_ONLY
    dropout: float = 0.0
    batch_norm: bool = False
    activation: str = "relu"
    layers: str | None = None

    def _stack(self) -> tuple[Layer, ...]:
        if self.layers is None:
            check_number("dropout", self.dropout, least=0, most=0.99)
            return dense_stack(
                self.hidden, activation=self.activation, dropout=self.dropout, batch_norm=self.batch_norm
            )
        stack = parse_layers(self.layers)
        maps = [layer.kind for layer in stack if layer.kind in FOR_MAPS]
        if maps:
            raise OptionError(f"Layer {maps[0]!r} needs maps: use --head conv on a table extracted with --pool none.")
        return stack

    def _scores(self, block: Array) -> Array:
        return apply_dense(self.network_steps(), self.state_, block)


@dataclass(eq=False, repr=False)
class ConvHead(NetworkClassifier):
    """Convolutional network over maps (n, c, h, w), with softmax output.

    Vectors (n, d) are taken as maps of d channels and one pixel.

    Parameters
    ----------
    layers : str
        The stack before the last dense layer; see `featx.heads.layers`.
    optimizer, lr, weight_decay, momentum, eps, epochs, batch_size, schedule, factor, plateau_patience, min_lr
        As in `DenseHead`, and so are the rest.
    early_stopping, patience, min_delta, monitor, validation_fraction, label_smoothing, class_weight, init
    precision, device, random_state

    Attributes
    ----------
    classes_, state_, history_, n_iter_
        As in `DenseHead`.
    row_shape_ : tuple of int
        Shape of the rows fitted on.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> maps = X.reshape(-1, 1, 8, 8) / 16
    >>> ConvHead("conv8 relu max flat 32 relu", lr=1e-2, epochs=8, random_state=0).fit(maps, y).score(maps, y) > 0.95
    True
    """

    layers: str = "conv32 relu max conv64 relu max flat 128 relu"
    _: KW_ONLY
    batch_size: int = 100

    _maps = True

    def _stack(self) -> tuple[Layer, ...]:
        return parse_layers(self.layers)

    def _scores(self, block: Array) -> Array:
        import torch

        try:
            device = resolve_device(self.device, "device")
        except OptionError:  # what was fitted on a GPU predicts on a machine without it as well
            device = resolve_device("auto")

        def scores(device: str, n_parts: int) -> Array:
            network, step = self.network_module().to(device).eval(), 256 // n_parts
            with torch.inference_mode(), arithmetic(torch.device(device), "fp32"):
                parts = (as_tensor(block[i : i + step], device).float() for i in range(0, len(block), step))
                return np.concatenate([network(part).cpu().numpy() for part in parts])

        return within_memory(scores, device)


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


class _TableBatches:
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
        self._codes = self._placed(training.targets)
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
            codes, weights = self._codes[indices], self._weights[indices]
            # Equal parts: a rest of one row would leave batch normalisation without a variance.
            n_batches = math.ceil(len(X) / self._batch_size)
            size, longer = divmod(len(X), n_batches)
            for i in range(n_batches):
                chosen = order[i * size + min(i, longer) : (i + 1) * size + min(i + 1, longer)]
                rows = X[chosen] if self._device is None else X.index_select(0, chosen)
                yield len(chosen), [self._moved(rows, codes[chosen], weights[chosen])]

    def in_order(self, batch_size: int = 4096) -> Iterator[Batch]:
        """Yield all rows as they stand."""
        step = max(1, batch_size // self._n_parts)
        for indices, X in self._parts(None):
            codes, weights = self._codes[indices], self._weights[indices]
            for start in range(0, len(X), step):
                part = slice(start, start + step)
                yield self._moved(X[part], codes[part], weights[part])

    def _moved(self, X: Any, codes: Any, weights: Any) -> Batch:
        if self._place == self._device:
            return X, codes, weights
        return X.to(self._device), codes.to(self._device), weights.to(self._device)

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
