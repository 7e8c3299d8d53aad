"""Structural validation of an XGBoost model in JSON, before the library reads it.

XGBoost trusts its files: child indices are followed and feature indices read without bounds checks,
so a hostile file reads or loops through memory. Here every array's length and every index is checked,
and that each tree is a tree. What passes cannot make prediction leave its arrays.
"""

from __future__ import annotations

import math
from typing import Any

from featx.errors import ModelFileError

#: Sizes above these are refused.
MAX_TREES, MAX_NODES = 200_000, 50_000_000

_NODE_ARRAYS = (
    "base_weights",
    "default_left",
    "left_children",
    "loss_changes",
    "parents",
    "right_children",
    "split_conditions",
    "split_indices",
    "split_type",
    "sum_hessian",
)
_EMPTY_ARRAYS = ("categories", "categories_nodes", "categories_segments", "categories_sizes")

#: Parent of the root, as XGBoost writes it.
_NO_PARENT = 2**31 - 1


def check_booster(document: Any, *, n_features: int, objective: str, n_outputs: int) -> None:
    """Check a model as `json.loads` gives it.

    Parameters
    ----------
    document : object
        Parsed JSON of ``Booster.save_raw("json")``.
    n_features : int
        Columns that rows will have at prediction.
    objective : str
        Name of the one that it was fitted with, for example ``multi:softprob``.
    n_outputs : int
        Scores a row: one a class or label, one for two classes, or one a number.

    Raises
    ------
    ModelFileError
        If anything is not what featx itself would have written.
    """
    learner = _field(document, "learner", dict)
    _check_learner(learner, n_features, objective, n_outputs)
    gradient_booster = _field(learner, "gradient_booster", dict)
    _require(gradient_booster.get("name") == "gbtree", "the booster is not gbtree")
    model = _field(gradient_booster, "model", dict)
    trees = _field(model, "trees", list)
    parameters = _field(model, "gbtree_model_param", dict)
    _require(len(trees) <= MAX_TREES, f"more than {MAX_TREES} trees")
    _require(_whole(parameters.get("num_trees")) == len(trees), "num_trees differs from the trees")
    _require(_whole(parameters.get("num_parallel_tree", 1)) == 1, "parallel trees")
    _check_rounds(model, len(trees), n_outputs)
    n_nodes = 0
    for number, tree in enumerate(trees):
        n_nodes += _check_tree(tree, number, n_features)
        _require(n_nodes <= MAX_NODES, f"more than {MAX_NODES} nodes")
    cats = model.get("cats")
    _require(cats is None or _holds_nothing(cats), "categorical features")


def _check_learner(learner: dict[str, Any], n_features: int, objective: str, groups: int) -> None:
    settings = _field(learner, "objective", dict)
    _require(settings.get("name") == objective, f"the objective is not {objective}")
    classes = groups if objective == "multi:softprob" else 0
    if classes:
        softmax = _field(settings, "softmax_multiclass_param", dict)
        _require(_whole(softmax.get("num_class")) == classes, "num_class differs from the classes")
    parameters = _field(learner, "learner_model_param", dict)
    _require(_whole(parameters.get("num_feature")) == n_features, f"num_feature is not {n_features}")
    _require(_whole(parameters.get("num_class")) == classes, "num_class differs from the classes")
    targets = 1 if classes else groups
    _require(_whole(parameters.get("num_target", 1)) == targets, "num_target differs from the targets")
    _check_base_score(parameters.get("base_score"), groups)
    for names in ("feature_names", "feature_types"):
        _require(learner.get(names, []) in ([], None), f"{names} are given")
    attributes = learner.get("attributes", {})
    _require(
        isinstance(attributes, dict) and all(isinstance(value, str) for value in attributes.values()),
        "attributes are not text",
    )


def _check_base_score(text: Any, groups: int) -> None:
    """Accept ``5E-1`` and, since XGBoost 3.1, ``[5E-1]`` with one number or one a class."""
    _require(isinstance(text, str) and len(text) < 40 * (groups + 1), "base_score is not text")
    try:
        numbers = [float(part) for part in text.strip("[]").split(",")]
    except ValueError:
        numbers = [math.nan]
    _require(len(numbers) in (1, groups) and all(map(math.isfinite, numbers)), "base_score is not a number")


def _check_rounds(model: dict[str, Any], n_trees: int, groups: int) -> None:
    """Trees go round the classes in turn, one each a round."""
    info = _indices(model, "tree_info", n_trees, below=groups)
    _require(info == [number % groups for number in range(n_trees)], "tree_info is not in turn")
    bounds = _field(model, "iteration_indptr", list)
    _require(bounds == list(range(0, n_trees + 1, groups)), "iteration_indptr does not fit the trees")


def _check_tree(tree: Any, number: int, n_features: int) -> int:
    """Check one tree and return its number of nodes."""
    where = f"tree {number}: "
    parameters = _field(tree, "tree_param", dict)
    n = _whole(parameters.get("num_nodes"))
    _require(1 <= n <= MAX_NODES, where + "bad num_nodes")
    _require(_whole(parameters.get("num_feature")) == n_features, where + f"num_feature is not {n_features}")
    _require(_whole(parameters.get("size_leaf_vector", 1)) in (0, 1), where + "vector leaves")
    _require(_whole(parameters.get("num_deleted", 0)) == 0, where + "deleted nodes")
    _require(_whole(tree.get("id", number)) == number, where + "id out of turn")
    for name in _NODE_ARRAYS:
        _require(len(_field(tree, name, list)) == n, where + f"{name} has not {n} entries")
    for name in _EMPTY_ARRAYS:
        _require(tree.get(name, []) == [], where + "categorical splits")
    for name in ("base_weights", "split_conditions", "loss_changes", "sum_hessian"):
        _require(all(_is_number(value) for value in tree[name]), where + f"{name} is not all numbers")
    _require(all(value in (0, 1) for value in tree["default_left"]), where + "default_left is not all 0 or 1")
    _require(not any(tree["split_type"]), where + "categorical splits")
    _indices(tree, "split_indices", n, below=n_features)
    _check_shape(tree, n, where)
    return n


def _check_shape(tree: dict[str, Any], n: int, where: str) -> None:
    """Every node but the root is the child of one node that names it as such, and all hang on the root."""
    left, right, parents = tree["left_children"], tree["right_children"], tree["parents"]
    _require(
        all(type(i) is int for side in (left, right, parents) for i in side), where + "indices are not whole numbers"
    )
    _require(parents[0] in (_NO_PARENT, -1), where + "the root has a parent")
    reached, stack = 1, [0]
    while stack:
        node = stack.pop()
        if left[node] == -1 or right[node] == -1:
            _require(left[node] == right[node] == -1, where + f"node {node} has one child")
            continue
        for child in (left[node], right[node]):
            _require(0 < child < n, where + f"node {node} has child {child} of {n} nodes")
            # A node knows one parent, and a parent names two different children: no node is reached twice.
            _require(parents[child] == node, where + f"node {child} hangs on two nodes")
        _require(left[node] != right[node], where + f"node {node} has one child twice")
        reached += 2
        _require(reached <= n, where + "a cycle")
        stack += [left[node], right[node]]
    _require(reached == n, where + "nodes out of reach")


def _indices(holder: dict[str, Any], name: str, n: int, *, below: int) -> list[int]:
    values: list[int] = _field(holder, name, list)
    _require(len(values) == n, f"{name} has {len(values)} entries instead of {n}")
    _require(all(type(value) is int and 0 <= value < below for value in values), f"{name} is out of range")
    return values


def _field(holder: Any, name: str, kind: type) -> Any:
    value = holder.get(name) if isinstance(holder, dict) else None
    _require(isinstance(value, kind), f"{name} is missing")
    return value


def _whole(value: Any) -> int:
    """Return a number that XGBoost writes as text; -1 for anything else."""
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else -1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _holds_nothing(value: Any) -> bool:
    """Whether nested lists and dicts hold no values at all."""
    if isinstance(value, dict):
        return all(map(_holds_nothing, value.values()))
    return value == [] or value is None


def _require(condition: object, complaint: str) -> None:
    if not condition:
        raise ModelFileError(f"The boosted trees in the model file are damaged or hostile ({complaint}). Fit it again.")
