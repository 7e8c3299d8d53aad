"""What heads that are small networks share: fit, partial_fit, history and probabilities."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from featx.devices import resolve_device
from featx.errors import DataError
from featx.heads.inputs import Array, ClassWeight, Training, read_labelled, read_rows, read_training
from featx.heads.layers import Layer, Step, build_network, state_shapes, trace
from featx.heads.linear import softmax
from featx.heads.settings import check_choice, check_number
from featx.heads.training import Batches, Regimen, make_optimizer, run_epoch, train

if TYPE_CHECKING:
    from torch import nn


class NetworkClassifier(ClassifierMixin, BaseEstimator):
    """A classifier whose scores come from a stack of layers trained by gradient descent.

    A final class has the settings of `Regimen`, ``init``, ``class_weight``, ``validation_fraction``,
    ``device`` and ``random_state``, and says what its layers are and how they are applied.
    """

    init: str
    class_weight: ClassWeight
    validation_fraction: float
    device: str
    random_state: Any
    classes_: Array
    row_shape_: tuple[int, ...]
    state_: dict[str, Array]
    history_: dict[str, list[float]]
    n_iter_: int

    #: Whether rows may be maps.
    _maps = False
    #: State of the optimiser between calls of partial_fit.
    _moments: Any = None

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
        memory: int | str | None = None,
    ) -> Self:
        """Train on X or Features with labels y (n,) and weights (n,).

        Parameters
        ----------
        X_val, y_val : as `X` and `y`
            Rows for the history, early stopping and the plateau schedule. Without them, a
            ``validation_fraction`` of the training rows is held out where the settings need it.
        memory : int, str or None
            See `featx.heads.inputs.read_training`.
        """
        import torch

        regimen = self._regimen()
        training = read_training(
            self, X, y, sample_weight, class_weight=self.class_weight, memory=memory, maps=self._maps
        )
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        validation = None if X_val is None else read_labelled(self, X_val, y_val, maps=self._maps)
        if validation is None and regimen.watches_validation:
            training, validation = self._hold_out(training, seed)
        device = resolve_device(self.device, "device")
        self.row_shape_ = training.rows.shape[1:]
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = self.network_module(fitted=False).to(device)
            self.history_ = train(network, training, validation, regimen, seed=seed, device=device)
        self.n_iter_ = len(self.history_["loss"])
        self._moments = None
        self.keep(network)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train one epoch on X (n, d), at the constant rate ``lr``, from where the head stands.

        Parameters
        ----------
        classes : array-like of shape (k,)
            All labels there will be; needed at the first call.
        """
        import torch

        regimen = dataclasses.replace(self._regimen(), schedule="none")
        first = not hasattr(self, "state_")
        if first and classes is None:
            raise DataError("The first partial_fit needs classes=, all labels there will be.")
        if first:
            self.classes_ = np.unique(classes)
        training = read_labelled(
            self, X, y, sample_weight, class_weight=self.class_weight, maps=self._maps, reset=first
        )
        self.history_ = {"loss": [], "accuracy": []} if first else self.history_
        self.row_shape_ = training.rows.shape[1:]
        self.n_iter_ = 1 + (0 if first else self.n_iter_)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1)) + self.n_iter_
        device = resolve_device(self.device, "device")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = self.network_module(fitted=not first).to(device)
            optimizer = make_optimizer(network, regimen)
            if not first and self._moments is not None:
                optimizer.load_state_dict(self._moments)
            loss, accuracy = run_epoch(network, Batches(training, device), optimizer, regimen, seed=seed)
        self._moments = optimizer.state_dict()
        self.history_["loss"].append(loss)
        self.history_["accuracy"].append(accuracy)
        self.keep(network)
        return self

    def predict_proba(self, X: Any) -> Array:
        """Return probabilities, shape (n, k), columns in the order of ``classes_``."""
        check_is_fitted(self)
        rows = read_rows(self, X, maps=self._maps)
        return softmax(np.concatenate([self._scores(block) for _, block in rows.blocks()]))

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

    def _regimen(self) -> Regimen:
        check_choice("init", self.init, ("glorot", "he"))
        check_number("validation_fraction", self.validation_fraction, above=0, most=0.9)
        return Regimen(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Regimen)})

    def _hold_out(self, training: Training, seed: int) -> tuple[Training, Training]:
        """Split rows in two, stratified where every class has two of them."""
        counts = np.bincount(training.codes)
        n_held = max(int(self.validation_fraction * len(training.codes)), len(counts))
        stratify = training.codes if counts.min() > 1 and n_held + len(counts) <= len(training.codes) else None
        parts = train_test_split(np.arange(len(training.codes)), test_size=n_held, stratify=stratify, random_state=seed)
        return training.select(np.sort(parts[0])), training.select(np.sort(parts[1]))
