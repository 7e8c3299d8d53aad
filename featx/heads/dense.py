"""`DenseHead`, `DenseRegressor`, `ConvHead` and what is like it: small networks, trained straight from the table."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from featx.devices import arithmetic, resolve_device, within_memory
from featx.errors import DataError, OptionError
from featx.heads.criteria import BinaryCrossEntropy, CrossEntropy, Distance
from featx.heads.estimator import Head, Regressor
from featx.heads.inputs import Samples, as_tensor, read_labelled, read_rows, read_training
from featx.heads.layers import FOR_MAPS, Layer, Step, apply_dense, dense_stack, parse_layers
from featx.heads.linear import probabilities
from featx.heads.networks import Network
from featx.heads.targets import Array, ClassWeight, Units
from featx.settings import check_choice, check_number

if TYPE_CHECKING:
    from featx.heads.criteria import Criterion


@dataclass(kw_only=True, eq=False, repr=False)
class NetworkClassifier(Network, Head):
    """A network that tells classes or several labels; `DenseHead` documents the settings."""

    label_smoothing: float = 0.0
    class_weight: ClassWeight = None

    takes_labels = True

    def _n_scores(self) -> int:
        return len(self.classes_)

    def _criterion(self, training: Samples) -> Criterion:
        return BinaryCrossEntropy(training.label_weights) if self.multilabel_ else CrossEntropy()

    def _read(self, X: Any, y: Any, sample_weight: Any, memory: int | str | None) -> Samples:
        return read_training(self, X, y, sample_weight, class_weight=self.class_weight, memory=memory, maps=self._maps)

    def _scores(self, block: Array) -> Array:
        """Return the scores (n, k) of rows."""
        raise NotImplementedError

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train one epoch on X (n, d), at the constant rate ``lr``, from where the head stands.

        Parameters
        ----------
        classes : array-like of shape (k,)
            All labels there will be, one a row; needed at the first call.
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

    def decision_function(self, X: Any) -> Array:
        """Return log-odds against any one of the classes, shape (n, k), or of the second of two classes, (n,).

        Of several labels, those of each label, shape (n, t).
        """
        check_is_fitted(self)
        rows = read_rows(self, X, maps=self._maps)
        scores = np.concatenate([self._scores(block) for _, block in rows.blocks()])
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 and not self.multilabel_ else scores

    def predict_proba(self, X: Any) -> Array:
        """Return probabilities, shape (n, k), columns in the order of ``classes_``; of several labels each its own."""
        return probabilities(self, self.decision_function(X))

    def predict(self, X: Any) -> Array:
        """Return the most probable label of each row, shape (n,), or whether each of several labels holds, (n, t)."""
        scores = self.decision_function(X)
        return self._decided(scores if self.multilabel_ else probabilities(self, scores))


class _FittedDense:
    """What such a stack is asked for."""

    state_: dict[str, Array]

    if TYPE_CHECKING:

        def network_steps(self) -> list[Step]: ...


@dataclass(eq=False, repr=False)
class _DenseStack(_FittedDense):
    """The layers of `DenseHead`, which documents them."""

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
        """Return the scores (n, o) of rows."""
        return apply_dense(self.network_steps(), self.state_, block)


@dataclass(eq=False, repr=False)
class DenseHead(_DenseStack, NetworkClassifier):
    """Multi-layer perceptron with softmax output; of several labels a row, y (n, t) of 0 or 1, a logistic one each.

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
        As in scikit-learn; of several labels each is balanced by itself.
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


@dataclass(eq=False, repr=False)
class DenseRegressor(_DenseStack, Network, Regressor):
    """Multi-layer perceptron that tells a number a row, or several.

    Parameters
    ----------
    loss : {"squared", "huber"}
        Of numbers less their mean, over their standard deviation; ``huber`` is linear beyond one such deviation, so
        that a few wild ones do not decide.
    hidden, dropout, batch_norm, activation, layers, optimizer, lr, weight_decay, momentum, eps, epochs, batch_size
        As in `DenseHead`, and so are the rest.
    schedule, factor, plateau_patience, min_lr, early_stopping, patience, min_delta, validation_fraction
    monitor : {"val_loss", "loss"}
    init, precision, device, random_state

    Attributes
    ----------
    n_outputs_ : int
        t, numbers a row.
    target_mean_, target_scale_ : ndarray of shape (t,)
        Mean and standard deviation of the numbers.
    state_, history_, n_iter_
        As in `DenseHead`, without accuracies.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> DenseRegressor(hidden=16, lr=0.02, random_state=0).fit(X * 20, y).score(X * 20, y) > 0.5
    True
    """

    loss: str = "squared"

    def predict(self, X: Any) -> Array:
        """Return numbers, shape (n,), or (n, t) for several."""
        check_is_fitted(self)
        found = np.concatenate([self._scores(block) for _, block in read_rows(self, X).blocks()])
        numbers = Units(self.target_mean_, self.target_scale_).given(found.astype(np.float64))
        return numbers[:, 0] if self.n_outputs_ == 1 else numbers

    def _n_scores(self) -> int:
        return self.n_outputs_

    def _criterion(self, training: Samples) -> Criterion:  # noqa: ARG002 - as of all networks
        return Distance() if self.loss == "squared" else Distance(delta=1.0)

    def _read(self, X: Any, y: Any, sample_weight: Any, memory: int | str | None) -> Samples:
        check_choice("loss", self.loss, ("squared", "huber"))
        check_choice("monitor", self.monitor, ("val_loss", "loss"))
        training = super()._read(X, y, sample_weight, memory)
        units = Units.of(training.targets, training.weights)
        self.target_mean_, self.target_scale_ = units.mean, units.scale
        return training

    def _taught(self, rows: Samples) -> Samples:
        units = Units(self.target_mean_, self.target_scale_)
        return dataclasses.replace(rows, targets=units.without(rows.targets).astype(np.float32))


@dataclass(kw_only=True, eq=False, repr=False)
class MapClassifier(NetworkClassifier):
    """A network over maps (n, c, h, w), or tokens (n, t, c); `DenseHead` documents the settings."""

    _maps = True

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


@dataclass(eq=False, repr=False)
class ConvHead(MapClassifier):
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

    def _stack(self) -> tuple[Layer, ...]:
        return parse_layers(self.layers)
