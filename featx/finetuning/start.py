"""What the head begins with: nothing, or a head fitted on the frozen backbone's features (LP-FT).

Fine-tuning from a random head distorts good features before the head knows what to ask of them; starting from
a fitted one does not. A. Kumar et al., "Fine-tuning can distort pretrained features and underperform
out-of-distribution", ICLR 2022.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import OptionError
from featx.finetuning.settings import needs_maps
from featx.heads import ConvHead, DenseHead
from featx.heads.layers import parse_layers
from featx.model import fit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featx.features import Features
    from featx.model import Model

    Arrays = dict[str, NDArray[Any]]

#: Layers that leave a scaling of features where it is.
_TRANSPARENT = ("drop", "flat", "unflat")


def unfitted_head(layers: str, seed: int, device: str = "auto") -> DenseHead | ConvHead:
    """Return the head of a stack: a convolutional one if it has layers for maps, else a dense one."""
    kind = ConvHead if needs_maps(layers) else DenseHead
    return kind(layers=layers, random_state=seed, device=device)


def fit_on_features(table: Features, layers: str, *, val: float | None, seed: int, device: str = "auto") -> Model:
    """Fit what fine-tuning starts from: logistic regression for a single dense layer, else the stack itself.

    Parameters
    ----------
    table : Features
        Of the frozen backbone.
    layers : str
        Of the head, before the last dense one.
    val : float, optional
        As in `featx.fit`.
    seed : int
    device : str
        Where it is fitted.
    """
    if not parse_layers(layers):
        return fit(table, "logreg", settings={"device": device}, scale="standard", val=val, seed=seed)
    head = unfitted_head(layers, seed, device)
    return fit(table, head, scale="standard" if _folds(head) else "none", val=val, seed=seed)


def starting_weights(model: Model, head: DenseHead | ConvHead) -> Arrays:
    """Return what `head`, whose shape and classes are known, has to hold to score as `model` does.

    Parameters
    ----------
    model : Model
        With a linear head or one of the same layers, on the same features.
    head : DenseHead or ConvHead
        Not fitted, but for ``classes_``, ``row_shape_`` and ``n_features_in_``.

    Returns
    -------
    dict of str to ndarray
        For the head's torch network. The model's scaling is folded into the first dense layer.

    Raises
    ------
    OptionError
        If the model's head is of another form, for other classes or other features.
    """
    source = model.head
    if source.n_features_in_ != head.n_features_in_ or not np.array_equal(source.classes_, head.classes_):
        raise OptionError(
            f"--init-head: that head takes {source.n_features_in_:,} features and knows {len(source.classes_)} "
            f"classes, here there are {head.n_features_in_:,} and {len(head.classes_)}. Fit it on this backbone and "
            "data, or type --init-head auto"
        )
    steps = [(step.layer, step.after) for step in head.network_steps()]
    if isinstance(source, DenseHead | ConvHead) and [(s.layer, s.after) for s in source.network_steps()] == steps:
        state = {name: array.copy() for name, array in source.state_.items()}
    elif hasattr(source, "coef_") and len(steps) == 1:
        state = _softmax_layer(source.coef_, source.intercept_)
    else:
        raise OptionError(
            f"--init-head: a {type(source).__name__} does not become a head of these layers. Fit one with the same "
            "--set layers=…, or type --init-head auto"
        )
    if model.scaler.kind == "none":
        return state
    if model.scaler.kind != "standard" or not _folds(head):
        raise OptionError(
            f"--init-head: a head behind --scale {model.scaler.kind} cannot start this one. Fit it with --scale none"
        )
    return _folded(state, first_dense(head), model.scaler.mean_, model.scaler.scale_)


def first_dense(head: DenseHead | ConvHead) -> int:
    """Return which module of the head's network is its first dense layer."""
    return next(i for i, step in enumerate(head.network_steps()) if step.layer.kind == "dense")


def _folds(head: DenseHead | ConvHead) -> bool:
    """Whether scaled features come to the head's first weights as they are, and those belong to a dense layer."""
    kinds = [layer.kind for layer in parse_layers(str(head.layers)) if layer.kind not in _TRANSPARENT]
    return isinstance(head, DenseHead) and kinds[:1] in ([], ["dense"])


def _softmax_layer(coef: NDArray[Any], intercept: NDArray[Any]) -> Arrays:
    """Return weights and biases of one output a class; for two classes from the score of their difference."""
    if len(coef) == 1:
        coef, intercept = np.concatenate([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
    return {"0.weight": coef.astype(np.float32), "0.bias": intercept.astype(np.float32)}


def _folded(state: Arrays, layer: int, mean: NDArray[Any], scale: NDArray[Any]) -> Arrays:
    """Fold (x - mean) / scale into a dense layer: W' = W / scale, b' = b - W' mean."""
    weight = state[f"{layer}.weight"].astype(np.float64) / scale
    bias = state[f"{layer}.bias"] - weight @ mean
    return state | {f"{layer}.weight": weight.astype(np.float32), f"{layer}.bias": bias.astype(np.float32)}
