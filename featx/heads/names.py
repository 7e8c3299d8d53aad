"""Heads by name: ours, those of installed plug-ins, and any scikit-learn class."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from featx.errors import OptionError, UnknownHeadError
from featx.heads.estimator import explain_setting
from featx.settings import check_choice, parse_setting

#: Name → class, as ``module:Class``. Plug-ins add theirs by the entry point group ``featx.heads``.
REGISTRY = {
    "mlp": "featx.heads.dense:DenseHead",
    "logreg": "featx.heads.linear:LogisticHead",
    "logreg-cv": "featx.heads.logistic_cv:LogisticHeadCV",
    "xgboost": "featx.heads.boosted:XGBoostHead",
    "knn": "featx.heads.neighbors:KNNHead",
    "ridge": "featx.heads.ridge:RidgeHead",
    "centroid": "featx.heads.neighbors:CentroidHead",
    "lda": "featx.heads.lda:LDAHead",
    "svm": "featx.heads.linear:SVMHead",
    "attentive": "featx.heads.attentive:AttentiveHead",
    "conv": "featx.heads.dense:ConvHead",
    "auto": "featx.model.auto_head:AutoHead",
}

#: The same of those that tell numbers instead of classes, by the same names.
REGRESSORS = {
    "mlp": "featx.heads.dense:DenseRegressor",
    "xgboost": "featx.heads.boosted:XGBoostRegressor",
    "knn": "featx.heads.neighbors:KNNRegressor",
    "ridge": "featx.heads.ridge:RidgeRegressor",
    "auto": "featx.model.auto_head:AutoRegressor",
}

#: What there is to tell of a row: its class, several labels of 0 or 1, or numbers.
TASKS = ("classify", "multilabel", "regress")


@dataclass(frozen=True)
class HeadInfo:
    """One line of ``featx heads``.

    Attributes
    ----------
    name : str
        As ``--head`` takes it.
    path : str
        ``module:Class``.
    summary : str
        First line of the class's documentation.
    settings : dict of str to object
        Name → default, as ``--set`` takes them.
    tasks : tuple of str
        Which of `TASKS` it can do.
    """

    name: str
    path: str
    summary: str
    settings: dict[str, Any]
    tasks: tuple[str, ...]


def list_heads() -> list[HeadInfo]:
    """Return every head that has a name, ours first.

    Examples
    --------
    >>> [head.name for head in list_heads()][:3]
    ['mlp', 'logreg', 'logreg-cv']
    """
    found = []
    for name, path in _named_paths().items():
        head_class = head_class_of(name)
        summary = (inspect.getdoc(head_class) or "").partition("\n")[0]
        found.append(HeadInfo(name, path, summary, _defaults(head_class), _tasks(name)))
    return found


def make_head(name: str, *, task: str = "classify", **settings: Any) -> Any:
    """Return an unfitted head.

    Parameters
    ----------
    name : str
        A name from ``featx heads``, ``package.module:Class``, or a dotted path in scikit-learn such as
        ``sklearn.ensemble.RandomForestClassifier``.
    task : {"classify", "multilabel", "regress"}
        Whether it tells the class of a row, several labels of 0 or 1, or numbers.
    **settings
        Constructor arguments. Text is read as on the command line (`featx.settings.parse_setting`).

    Raises
    ------
    UnknownHeadError
        If there is no such head, or it cannot do the task.
    OptionError
        If it has no such setting.

    Examples
    --------
    >>> make_head("mlp", hidden="64,32", dropout="0.3")
    DenseHead(dropout=0.3, hidden=(64, 32))
    >>> make_head("ridge", task="regress")
    RidgeRegressor()
    """
    head_class = head_class_of(name, task)
    known = _defaults(head_class)
    for setting in settings:
        if known and setting not in known:
            meant = explain_setting(setting, list(known))
            raise OptionError(f"Head {name!r} has no setting {setting!r}. {meant} See: featx heads")
    return head_class(
        **{
            key: parse_setting(given, known.get(key)) if isinstance(given, str) else given
            for key, given in settings.items()
        }
    )


def head_class_of(name: str, task: str = "classify") -> type:
    """Return the class that `name` stands for; see `make_head`."""
    check_choice("task", task, TASKS)
    if task != "classify" and name in REGISTRY and task not in _tasks(name):
        able = ", ".join(other for other in REGISTRY if task in _tasks(other))
        raise UnknownHeadError(f"Head {name!r} does not do --task {task}. Heads that do: {able}.")
    path = (REGRESSORS if task == "regress" else REGISTRY).get(name) or _named_paths().get(name, name)
    if ":" not in path and path.startswith("sklearn."):
        path = ":".join(path.rsplit(".", 1))
    module, colon, attribute = path.partition(":")
    if not colon:
        raise UnknownHeadError.among("head", name, _named_paths(), "featx heads")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownHeadError(f"Head {name!r} cannot be imported: {error}. All names: featx heads") from error
    if not (inspect.isclass(found) and hasattr(found, "fit") and hasattr(found, "predict")):
        raise UnknownHeadError(f"{name!r} is not a class with fit and predict. All names: featx heads")
    return found


def _tasks(name: str) -> tuple[str, ...]:
    """Return what a head that has a name can do."""
    several = getattr(head_class_of(name), "takes_labels", False)
    return ("classify", *(("multilabel",) if several else ()), *(("regress",) if name in REGRESSORS else ()))


def _named_paths() -> dict[str, str]:
    plugged = {point.name: point.value for point in entry_points(group="featx.heads")}
    return plugged | REGISTRY


def _defaults(head_class: type) -> dict[str, Any]:
    parameters = inspect.signature(head_class).parameters.values()
    return {
        p.name: None if p.default is p.empty else p.default
        for p in parameters
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }
