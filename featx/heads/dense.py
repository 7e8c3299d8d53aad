"""`DenseHead`: a small multi-layer network, trained straight from the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from featx.errors import OptionError
from featx.heads.inputs import Array, ClassWeight
from featx.heads.layers import FOR_MAPS, Layer, apply_dense, dense_stack, parse_layers
from featx.heads.network import NetworkClassifier
from featx.heads.settings import check_number


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
        ``auto`` makes 4, and on small tables as many as 1,000 updates need.
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

    def __init__(
        self,
        hidden: int | Sequence[int] = (256, 128, 64),
        *,
        dropout: float = 0.0,
        batch_norm: bool = False,
        activation: str = "relu",
        layers: str | None = None,
        optimizer: str = "adamw",
        lr: float = 2e-3,
        weight_decay: float = 1e-2,
        momentum: float = 0.9,
        eps: float | None = None,
        epochs: int | str = "auto",
        batch_size: int = 250,
        schedule: str = "one-cycle",
        factor: float = 0.1,
        plateau_patience: int = 3,
        min_lr: float = 0.0,
        early_stopping: bool = False,
        patience: int = 10,
        min_delta: float = 0.0,
        monitor: str = "val_loss",
        validation_fraction: float = 0.1,
        label_smoothing: float = 0.0,
        class_weight: ClassWeight = None,
        init: str = "glorot",
        precision: str = "fp32",
        device: str = "auto",
        random_state: Any = None,
    ) -> None:
        self.hidden = hidden
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.activation = activation
        self.layers = layers
        self.optimizer = optimizer
        self.lr = lr
        self.weight_decay = weight_decay
        self.momentum = momentum
        self.eps = eps
        self.epochs = epochs
        self.batch_size = batch_size
        self.schedule = schedule
        self.factor = factor
        self.plateau_patience = plateau_patience
        self.min_lr = min_lr
        self.early_stopping = early_stopping
        self.patience = patience
        self.min_delta = min_delta
        self.monitor = monitor
        self.validation_fraction = validation_fraction
        self.label_smoothing = label_smoothing
        self.class_weight = class_weight
        self.init = init
        self.precision = precision
        self.device = device
        self.random_state = random_state

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
