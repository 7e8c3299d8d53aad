"""Fitted heads as data: JSON and arrays, rebuilt from an allow-list. Nothing is pickled or imported by name.

`restore_state` takes what may come from a stranger. It checks every name, dtype and shape before an
estimator sees them, and boosted trees by `featx.heads.booster_json`.
"""

from __future__ import annotations

import importlib
import inspect
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.errors import ModelFileError, OptionError
from featx.heads.booster_json import check_booster
from featx.heads.estimator import Regressor
from featx.heads.layers import state_shapes
from featx.heads.networks import Network
from featx.heads.targets import Array

Meta = dict[str, Any]
Arrays = dict[str, Array]

#: Sizes of a fitted head that shapes are written in: d features, k classes, o scores or numbers a row.
Sizes = dict[str, int]


@dataclass(frozen=True)
class _Form:
    """What a fitted class consists of.

    `arrays` gives each array's shape in the letters of `Sizes`, where other letters bind to any length;
    names in `optional` may be missing or None; those in `by_label` have a column a label where there are several;
    `values` are kept as JSON.
    """

    path: str
    arrays: dict[str, str]
    values: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    by_label: tuple[str, ...] = ()


_LINEAR = {"coef_": "od", "intercept_": "o"}
_DESCENT = ("objective_", "gradient_norm_", "n_iter_")
_PROJECTION, _ROUNDS = {"mean_": "d", "projection_": "dp"}, ("best_iteration_", "history_")
_UNITS = {"target_mean_": "o", "target_scale_": "o"}
_NETWORK = ("row_shape_", "history_", "n_iter_")

_FORMS = {
    "LogisticHead": _Form("featx.heads.linear", _LINEAR, _DESCENT),
    "LogisticHeadCV": _Form("featx.heads.logistic_cv", _LINEAR | {"Cs_": "c", "scores_": "fc"}, (*_DESCENT, "C_")),
    "SVMHead": _Form("featx.heads.linear", _LINEAR, _DESCENT),
    "RidgeHead": _Form("featx.heads.ridge", _LINEAR | {"loo_scores_": "a"}, ("alpha_",), ("loo_scores_",)),
    "RidgeRegressor": _Form("featx.heads.ridge", _LINEAR | {"loo_scores_": "a"}, ("alpha_",), ("loo_scores_",)),
    "LDAHead": _Form("featx.heads.lda", _LINEAR, ("shrinkage_",)),
    "CentroidHead": _Form("featx.heads.neighbors", {"centroids_": "kd"}),
    "KNNHead": _Form("featx.heads.neighbors", {"units_": "nd", "codes_": "n"}, by_label=("codes_",)),
    "KNNRegressor": _Form("featx.heads.neighbors", {"units_": "nd", "targets_": "no"}),
    "DenseHead": _Form("featx.heads.dense", {}, _NETWORK),
    "DenseRegressor": _Form("featx.heads.dense", _UNITS, _NETWORK),
    "ConvHead": _Form("featx.heads.dense", {}, _NETWORK),
    "AttentiveHead": _Form("featx.heads.attentive", {}, _NETWORK),
    "XGBoostHead": _Form("featx.heads.boosted", _PROJECTION, _ROUNDS, tuple(_PROJECTION)),
    "XGBoostRegressor": _Form("featx.heads.boosted", _PROJECTION | _UNITS, _ROUNDS, tuple(_PROJECTION)),
}


def export_state(estimator: Any) -> tuple[Meta, Arrays]:
    """Return a fitted estimator as JSON-able data and named arrays.

    Parameters
    ----------
    estimator : estimator
        One of ours.

    Raises
    ------
    OptionError
        If its class is not on the allow-list, or its state is too large to leave its table.

    Examples
    --------
    >>> from featx.heads.neighbors import CentroidHead
    >>> meta, arrays = export_state(CentroidHead().fit([[1.0, 0.0], [0.0, 1.0]], ["a", "b"]))
    >>> meta["class"], meta["classes"], arrays["centroids_"].shape
    ('CentroidHead', ['a', 'b'], (2, 2))
    """
    name = type(estimator).__name__
    if not is_exportable(estimator):
        raise OptionError(
            f"{name} cannot be saved as data alone: it is not one of {', '.join(_FORMS)}. Use --unsafe-pickle."
        )
    form = _FORMS[name]
    meta: Meta = {
        "class": name,
        "params": {key: _to_json(value) for key, value in estimator.get_params(deep=False).items()},
        "n_features": int(estimator.n_features_in_),
        "values": {key: _to_json(getattr(estimator, key)) for key in form.values},
    }
    arrays: Arrays = {}
    for key in form.arrays:
        value = getattr(estimator, key, None)
        if isinstance(value, np.ndarray):
            arrays[key] = np.ascontiguousarray(value)
        elif value is not None:
            raise OptionError(
                f"{name} consists of the rows it was fitted on, which under the memory limit stayed in their table. To "
                "save it, give --memory twice the table's size; or fit --head logreg, which is small."
            )
    if isinstance(estimator, Regressor):
        meta["n_outputs"] = int(estimator.n_outputs_)
    elif estimator.multilabel_:
        meta["n_labels"] = len(estimator.classes_)
    else:
        _export_classes(estimator.classes_, meta, arrays)
    if isinstance(estimator, Network):
        arrays |= {f"state/{key}": np.ascontiguousarray(value) for key, value in estimator.state_.items()}
    if name in ("XGBoostHead", "XGBoostRegressor"):
        meta["booster"] = json.loads(bytes(estimator.booster_.save_raw("json")))
    return meta, arrays


def restore_state(meta: Meta, arrays: Arrays) -> Any:
    """Return the estimator that `export_state` gave away.

    Raises
    ------
    ModelFileError
        If anything is not what featx itself would have written.

    Examples
    --------
    >>> from featx.heads.neighbors import CentroidHead
    >>> head = CentroidHead().fit([[1.0, 0.0], [0.0, 1.0]], ["a", "b"])
    >>> restore_state(*export_state(head)).predict([[3.0, 1.0]])
    array(['a'], dtype='<U1')
    """
    _require(isinstance(meta, dict) and meta.get("class") in _FORMS, "its class is not on the allow-list")
    name = meta["class"]
    form = _FORMS[name]
    estimator_class = getattr(importlib.import_module(form.path), name)
    estimator = estimator_class(**_read_params(estimator_class, meta.get("params")))
    remaining = dict(arrays)
    estimator.n_features_in_ = _size(meta, "n_features")
    sizes: Sizes = {"d": estimator.n_features_in_, **_read_targets(estimator, meta, remaining)}
    _require(set(meta.get("values", {})) == set(form.values), "its values are not those of its class")
    for key in form.values:
        setattr(estimator, key, _from_json(meta["values"][key]))
    several = getattr(estimator, "multilabel_", False)
    for key, letters in form.arrays.items():
        array = remaining.pop(key, None)
        _require(array is not None or key in form.optional, f"{key} is missing")
        if array is not None:
            _check_array(key, array, letters + "o" * (several and key in form.by_label), sizes)
        setattr(estimator, key, array)
    _SPECIAL.get(name, _nothing)(estimator, meta, remaining, sizes)
    _require(not remaining, f"it holds more than its class has: {', '.join(sorted(remaining)[:3])}")
    return estimator


def is_exportable(estimator: Any) -> bool:
    """Whether `export_state` takes the estimator: the very class on the allow-list, not one of the same name."""
    form = _FORMS.get(type(estimator).__name__)
    return form is not None and type(estimator).__module__.startswith(form.path)


def _restore_network(estimator: Any, _meta: Meta, arrays: Arrays, sizes: Sizes) -> None:
    shape = estimator.row_shape_
    _require(isinstance(shape, list) and 1 <= len(shape) <= 3, "row_shape_ is not a shape")
    _require(all(type(side) is int and side > 0 for side in shape), "row_shape_ is not a shape")
    estimator.row_shape_ = tuple(shape)
    _require(math.prod(shape) == sizes["d"], "row_shape_ does not fit its features")
    try:
        expected = state_shapes(estimator.network_steps())
    except OptionError as error:
        raise ModelFileError(f"The head in the model file is damaged or hostile ({error}).") from error
    estimator.state_ = {}
    for key, lengths in expected.items():
        _require(f"state/{key}" in arrays, f"{key} is missing")
        array = arrays.pop(f"state/{key}")
        _require(array.shape == lengths, f"{key} has not the shape of its layer")
        _check_numbers(key, array)
        estimator.state_[key] = array


def _restore_trees(estimator: Any, meta: Meta, _arrays: Arrays, sizes: Sizes) -> None:
    import xgboost

    projected = estimator.projection_ is not None
    _require((estimator.mean_ is not None) == projected, "its projection is not whole")
    n_features = estimator.projection_.shape[1] if projected else sizes["d"]
    check_booster(meta.get("booster"), n_features=n_features, objective=estimator.objective(), n_outputs=sizes["o"])
    rounds = len(meta["booster"]["learner"]["gradient_booster"]["model"]["trees"]) // sizes["o"]
    best = estimator.best_iteration_
    _require(type(best) is int and 0 <= best < rounds, "best_iteration_ is not a round")
    # allow_nan would let through what the check above has not seen.
    text = json.dumps(meta["booster"], allow_nan=False)
    estimator.booster_ = xgboost.Booster(model_file=bytearray(text, "utf-8"))


def _restore_neighbors(estimator: Any, _meta: Meta, _arrays: Arrays, sizes: Sizes) -> None:
    codes = estimator.codes_
    _require(codes.dtype.kind == "i" and len(codes) > 0, "codes_ are not whole numbers")
    _require(codes.min() >= 0 and codes.max() < (2 if codes.ndim == 2 else sizes["k"]), "codes_ are out of range")


def _nothing(estimator: Any, meta: Meta, arrays: Arrays, sizes: Sizes) -> None:
    """Most classes are their arrays and values."""


_SPECIAL: dict[str, Callable[[Any, Meta, Arrays, Sizes], None]] = {
    "DenseHead": _restore_network,
    "DenseRegressor": _restore_network,
    "ConvHead": _restore_network,
    "AttentiveHead": _restore_network,
    "XGBoostHead": _restore_trees,
    "XGBoostRegressor": _restore_trees,
    "KNNHead": _restore_neighbors,
}


def _export_classes(classes: Array, meta: Meta, arrays: Arrays) -> None:
    if classes.dtype.kind in "iufb":
        arrays["classes_"] = classes
    elif all(isinstance(label, str) for label in classes.tolist()):
        meta["classes"] = classes.tolist()
    else:
        raise OptionError("Labels must be numbers or text to be saved.")


def _read_targets(estimator: Any, meta: Meta, arrays: Arrays) -> Sizes:
    """Set what the estimator knows of its targets, and return the sizes that follow."""
    if isinstance(estimator, Regressor):
        estimator.n_outputs_ = _size(meta, "n_outputs")
        return {"o": estimator.n_outputs_}
    if "n_labels" in meta:
        t = _size(meta, "n_labels")
        _require(estimator.takes_labels and 2 <= t < 1 << 24, "it has no several labels")
        estimator.multilabel_, estimator.classes_ = True, np.arange(t)
        return {"k": t, "o": t}
    estimator.classes_ = _read_classes(meta, arrays)
    k = len(estimator.classes_)
    return {"k": k, "o": k if k > 2 else 1}


def _read_classes(meta: Meta, arrays: Arrays) -> Array:
    texts = meta.get("classes")
    if texts is not None:
        _require(isinstance(texts, list) and all(isinstance(text, str) for text in texts), "its classes are not text")
        classes = np.array(texts, dtype=np.str_)
    else:
        _require("classes_" in arrays, "its classes are missing")
        classes = arrays.pop("classes_")
        _require(classes.ndim == 1 and classes.dtype.kind in "iufb", "its classes are not numbers")
    _require(len(classes) >= 2, "it has fewer than two classes")
    _require((classes[:-1] < classes[1:]).all(), "its classes are not in order")
    return classes


def _read_params(estimator_class: type, params: Any) -> dict[str, Any]:
    known = inspect.signature(estimator_class).parameters
    _require(isinstance(params, dict) and set(params) <= set(known), "its settings are not those of its class")
    return {key: _from_json(value) for key, value in params.items()}


def _check_array(key: str, array: Array, letters: str, sizes: Sizes) -> None:
    _require(isinstance(array, np.ndarray) and array.ndim == len(letters), f"{key} has not {len(letters)} dimensions")
    for letter, length in zip(letters, array.shape, strict=True):
        _require(sizes.setdefault(letter, length) == length, f"{key} has the shape {array.shape}")
    _check_numbers(key, array)


def _check_numbers(key: str, array: Array) -> None:
    _require(array.dtype.kind in "if" and np.isfinite(array).all(), f"{key} is not all finite numbers")


def _size(meta: Meta, key: str) -> int:
    value = meta.get(key)
    _require(type(value) is int and value >= 1, f"{key} is not a size")
    return int(value)  # type: ignore[arg-type]


def _to_json(value: Any) -> Any:
    """Return plain data: numpy scalars as numbers, dicts as pairs (their keys may be numbers), inf and nan as text."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple | np.ndarray):
        return [_to_json(item) for item in value]
    if isinstance(value, dict):
        return {"pairs": [[_to_json(key), _to_json(item)] for key, item in value.items()]}
    # A RandomState has done its work when the head is fitted.
    return None


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    if isinstance(value, dict):
        try:
            if set(value) == {"float"}:
                return float(value["float"])
            return {_from_json(key): _from_json(item) for key, item in value["pairs"]}
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFileError(
                "The head in the model file is damaged or hostile (a value cannot be read)."
            ) from error
    return value


def _require(condition: object, complaint: str) -> None:
    if not condition:
        raise ModelFileError(f"The head in the model file is damaged or hostile ({complaint}). Fit it again.")
