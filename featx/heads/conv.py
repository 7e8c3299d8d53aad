"""`ConvHead`: a small convolutional network over unpooled feature maps."""

from __future__ import annotations

from typing import Any

import numpy as np

from featx.devices import resolve_device
from featx.heads.inputs import Array, ClassWeight
from featx.heads.layers import Layer, parse_layers
from featx.heads.network import NetworkClassifier
from featx.heads.solver import as_tensor


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

    _maps = True

    def __init__(
        self,
        layers: str = "conv32 relu max conv64 relu max flat 128 relu",
        *,
        optimizer: str = "adamw",
        lr: float = 2e-3,
        weight_decay: float = 1e-2,
        momentum: float = 0.9,
        eps: float | None = None,
        epochs: int | str = "auto",
        batch_size: int = 100,
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
        return parse_layers(self.layers)

    def _scores(self, block: Array) -> Array:
        import torch

        device = resolve_device(self.device, "device")
        network = self.network_module().to(device).eval()
        with torch.inference_mode():
            parts = [
                network(as_tensor(block[i : i + 256], device).float()).cpu().numpy() for i in range(0, len(block), 256)
            ]
        return np.concatenate(parts)
