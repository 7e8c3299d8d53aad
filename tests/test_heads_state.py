"""Tests of featx.heads.state and booster_json: heads as data, and data that is not what it says."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.tree import DecisionTreeClassifier

from featx.errors import FeatxError, ModelFileError, OptionError
from featx.features import Features
from featx.heads.boosted import XGBoostHead
from featx.heads.booster_json import check_booster
from featx.heads.dense import ConvHead, DenseHead
from featx.heads.lda import LDAHead
from featx.heads.linear import LogisticHead, SVMHead
from featx.heads.logistic_cv import LogisticHeadCV
from featx.heads.neighbors import CentroidHead, KNNHead
from featx.heads.ridge import RidgeHead
from featx.heads.state import export_state, is_exportable, restore_state

X, Y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)

HEADS = [
    LogisticHead(C=np.float64(0.1), class_weight={0: 2.0, 1: 0.5}),
    LogisticHead(C=np.inf, max_iter=20, tol=0.1),
    LogisticHeadCV(Cs=2, cv=2),
    SVMHead(),
    RidgeHead(),
    RidgeHead((0.1, 1.0)),
    LDAHead(),
    CentroidHead(),
    KNNHead(k=3),
    DenseHead(hidden=(8, 4), batch_norm=True, epochs=1, random_state=np.random.RandomState(0)),
    ConvHead("conv4 relu gap", epochs=1, random_state=0),
    XGBoostHead(n_estimators=2, components=5, random_state=0),
    XGBoostHead(n_estimators=3, components=None, random_state=0),
]


def through_files(meta, arrays):
    return json.loads(json.dumps(meta, allow_nan=False)), load(save(arrays))


@pytest.mark.parametrize("labels", ["numbers", "texts", "two"])
@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
def test_a_head_predicts_the_same_after_a_file(head, labels):
    y = {"numbers": Y, "texts": np.char.add("class ", Y.astype(str)), "two": Y > 4}[labels]
    y = y.astype(int) if labels == "two" else y
    head = clone(head).set_params(**{"class_weight": None} if "class_weight" in head.get_params() else {}).fit(X, y)

    again = restore_state(*through_files(*export_state(head)))

    np.testing.assert_array_equal(again.predict_proba(X), head.predict_proba(X))
    np.testing.assert_array_equal(again.classes_, head.classes_)
    assert again.n_features_in_ == 64
    clone(again).fit(X, y)  # its settings are whole, too


def test_maps_after_a_file():
    maps = X.reshape(-1, 1, 8, 8)
    head = ConvHead("conv4 relu max flat 8", epochs=1, random_state=0).fit(maps, Y)

    np.testing.assert_array_equal(restore_state(*export_state(head)).predict_proba(maps), head.predict_proba(maps))


def test_what_a_fit_reports_is_kept():
    head = LogisticHead(C=0.1, class_weight={0: 2.0}).fit(X, Y)
    again = restore_state(*through_files(*export_state(head)))

    assert (again.objective_, again.gradient_norm_, again.n_iter_) == (
        head.objective_, head.gradient_norm_, head.n_iter_,
    )  # fmt: skip
    assert again.get_params() == head.get_params()


def test_classes_off_the_list_need_a_pickle():
    tree = DecisionTreeClassifier().fit(X, Y)

    assert not is_exportable(tree)
    with pytest.raises(OptionError, match="DecisionTreeClassifier cannot be saved as data alone.*--unsafe-pickle"):
        export_state(tree)


def test_a_class_of_the_same_name_is_not_the_class():
    impostor = type("RidgeHead", (RidgeHead,), {"__module__": "somewhere.else"})

    assert not is_exportable(impostor().fit(X, Y))


def test_a_head_that_reads_its_table_cannot_leave_it():
    head = KNNHead().fit(Features.from_arrays(X, Y), memory=X.nbytes // 4)

    with pytest.raises(
        OptionError, match="under the memory limit stayed in their table. To save it, give --memory twice"
    ):
        export_state(head)


@pytest.fixture(scope="module")
def states():
    heads = [
        clone(head).set_params(**{"class_weight": None} if "class_weight" in head.get_params() else {})
        for head in HEADS
    ]
    return [export_state(head.fit(X, Y)) for head in heads]


def of(states, name):
    return copy.deepcopy(next(state for state in states if state[0]["class"] == name))


@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        ("RidgeHead", lambda m, a: m.update({"class": "os.system"}), "allow-list"),
        ("RidgeHead", lambda m, a: m.update({"params": {"alpha": 1, "evil": 2}}), "settings"),
        ("RidgeHead", lambda m, a: m.update({"n_features": 65}), "coef_ has the shape"),
        ("RidgeHead", lambda m, a: m.update({"n_features": "64"}), "n_features is not a size"),
        ("RidgeHead", lambda m, a: m["values"].update({"predict": 3}), "values"),
        ("RidgeHead", lambda m, a: a.update({"coef_": a["coef_"][:9]}), "coef_ has the shape"),
        ("RidgeHead", lambda m, a: a.update({"coef_": a["coef_"] * np.nan}), "finite"),
        ("RidgeHead", lambda m, a: a.update({"extra": a["coef_"]}), "holds more"),
        ("RidgeHead", lambda m, a: a.pop("intercept_"), "intercept_ is missing"),
        ("RidgeHead", lambda m, a: a.update({"classes_": a["classes_"][::-1].copy()}), "not in order"),
        ("RidgeHead", lambda m, a: a.pop("classes_"), "classes are missing"),
        ("LogisticHead", lambda m, a: a.update({"classes_": a["classes_"][:1]}), "fewer than two"),
        ("KNNHead", lambda m, a: a.update({"codes_": a["codes_"] + 1}), "codes_ are out of range"),
        ("KNNHead", lambda m, a: a.update({"codes_": a["codes_"][:-1]}), "codes_ has the shape"),
        ("DenseHead", lambda m, a: m["params"].update({"hidden": [16, 4]}), "0.weight has not the shape"),
        ("DenseHead", lambda m, a: m["params"].update({"layers": "9999999"}), "Unknown layer"),
        ("DenseHead", lambda m, a: m["values"].update({"row_shape_": [4, 4, 2, 2]}), "row_shape_ is not a shape"),
        ("ConvHead", lambda m, a: m["values"].update({"row_shape_": [4, 4, 5]}), "row_shape_ does not fit"),
        ("DenseHead", lambda m, a: a.pop("state/0.bias"), "0.bias is missing"),
        ("XGBoostHead", lambda m, a: m.pop("booster"), "learner is missing"),
        ("XGBoostHead", lambda m, a: a.pop("mean_"), "projection is not whole"),
        ("XGBoostHead", lambda m, a: m["values"].update({"best_iteration_": 2}), "best_iteration_ is not a round"),
    ],
)
def test_hostile_state_is_refused(states, name, change, complaint):
    meta, arrays = of(states, name)
    change(meta, arrays)

    with pytest.raises(ModelFileError, match=f"damaged or hostile.*{complaint}"):
        restore_state(meta, arrays)


def model_of(document):
    return document["learner"]["gradient_booster"]["model"]


def tree_of(document):
    return model_of(document)["trees"][3]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda b: tree_of(b)["left_children"].__setitem__(0, 10**6), "node 0 has child 1000000"),
        (lambda b: tree_of(b)["left_children"].__setitem__(0, -5), "node 0 has child -5"),
        (lambda b: tree_of(b)["left_children"].__setitem__(1, 0), "child 0"),
        (lambda b: tree_of(b)["right_children"].__setitem__(0, tree_of(b)["left_children"][0]), "one child twice"),
        (lambda b: tree_of(b)["left_children"].__setitem__(0, -1), "one child|out of reach"),
        (lambda b: tree_of(b)["parents"].__setitem__(2, 1), "hangs on two nodes"),
        (lambda b: tree_of(b)["parents"].__setitem__(0, 3), "the root has a parent"),
        (lambda b: tree_of(b)["left_children"].__setitem__(0, 1.0), "not whole numbers"),
        (lambda b: tree_of(b)["split_indices"].__setitem__(0, 5), "split_indices is out of range"),
        (lambda b: tree_of(b)["split_indices"].__setitem__(0, -1), "split_indices is out of range"),
        (lambda b: tree_of(b)["split_conditions"].pop(), "split_conditions has not"),
        (lambda b: tree_of(b)["split_conditions"].__setitem__(0, "x"), "split_conditions is not all numbers"),
        (lambda b: tree_of(b)["base_weights"].__setitem__(0, float("nan")), "base_weights is not all numbers"),
        (lambda b: tree_of(b)["tree_param"].__setitem__("num_nodes", "4000000000"), "num_nodes"),
        (lambda b: tree_of(b)["tree_param"].__setitem__("num_feature", "6"), "num_feature is not 5"),
        (lambda b: tree_of(b)["tree_param"].__setitem__("size_leaf_vector", "10"), "vector leaves"),
        (lambda b: tree_of(b)["categories"].append(1), "categorical"),
        (lambda b: tree_of(b)["split_type"].__setitem__(0, 1), "categorical"),
        (lambda b: tree_of(b).__setitem__("id", 7), "id out of turn"),
        (lambda b: model_of(b)["trees"].pop(), "num_trees"),
        (lambda b: model_of(b)["tree_info"].__setitem__(0, 99), "tree_info is out of range"),
        (lambda b: model_of(b)["tree_info"].__setitem__(0, 1), "tree_info is not in turn"),
        (lambda b: model_of(b)["iteration_indptr"].__setitem__(-1, 40), "iteration_indptr"),
        (lambda b: b["learner"]["gradient_booster"].__setitem__("name", "dart"), "not gbtree"),
        (lambda b: b["learner"]["objective"].__setitem__("name", "rank:ndcg"), "the objective is not multi:softprob"),
        (
            lambda b: b["learner"]["objective"].__setitem__("name", "binary:logistic"),
            "the objective is not multi:softprob",
        ),
        (lambda b: b["learner"]["learner_model_param"].__setitem__("num_class", "11"), "num_class"),
        (lambda b: b["learner"]["learner_model_param"].__setitem__("base_score", "[nan]"), "base_score"),
        (lambda b: b["learner"].__setitem__("feature_names", ["a"] * 5), "feature_names"),
        (lambda b: b["learner"]["attributes"].__setitem__("a", {}), "attributes"),
    ],
)
def test_hostile_trees_are_refused_before_the_library_reads_them(states, change, complaint):
    booster = of(states, "XGBoostHead")[0]["booster"]
    change(booster)

    with pytest.raises(ModelFileError, match=complaint):
        check_booster(booster, n_features=5, objective="multi:softprob", n_outputs=10)


def test_a_cycle_is_refused():
    """Node 1 names node 0's other child and itself as children: every index is in range, and yet it loops."""
    head = XGBoostHead(n_estimators=1, components=None, max_depth=2, random_state=0).fit(X, Y > 4)
    booster = export_state(head)[0]["booster"]
    tree = model_of(booster)["trees"][0]
    tree["left_children"][1], tree["parents"][1] = 1, 1

    with pytest.raises(ModelFileError, match="hangs on two nodes|cycle"):
        check_booster(booster, n_features=64, objective="binary:logistic", n_outputs=1)


@pytest.mark.parametrize("pruning", [{"gamma": 5.0}, {"max_leaves": 5, "grow_policy": "lossguide"}, {"max_depth": 1}])
def test_every_tree_that_xgboost_grows_is_let_through(pruning):
    head = XGBoostHead(n_estimators=3, components=None, random_state=0, **pruning).fit(X, Y)

    np.testing.assert_array_equal(restore_state(*export_state(head)).predict_proba(X), head.predict_proba(X))


SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5)
JSON = st.recursive(SCALARS, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x, max_size=3))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_change_of_a_state_does_more_than_be_refused(states, data):
    """Any one place of any head's data is replaced: it is refused, or predicts finite probabilities."""
    meta, arrays = copy.deepcopy(data.draw(st.sampled_from(states)))
    holder, key = meta, data.draw(st.sampled_from(sorted(meta)))
    while isinstance(holder[key], dict | list) and holder[key] and data.draw(st.booleans()):
        holder = holder[key]
        key = data.draw(
            st.sampled_from(sorted(holder)) if isinstance(holder, dict) else st.integers(0, len(holder) - 1)
        )
    holder[key] = data.draw(JSON)
    try:
        head = restore_state(meta, arrays)
        probabilities = head.predict_proba(X[:5])
    except (FeatxError, TypeError, ValueError, KeyError, AttributeError, OverflowError):
        return  # what constructors and numpy say of impossible settings refuses just as well
    assert probabilities.shape == (5, 10)
