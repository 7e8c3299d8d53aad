"""Tests of featx.heads.names, settings and layers: heads and their settings as the command line gives them."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.utils.validation import check_is_fitted

from featx.errors import OptionError, UnknownHeadError
from featx.features import Features
from featx.heads import __all__ as public
from featx.heads import list_heads, make_head
from featx.heads.layers import parse_layers, trace
from featx.heads.names import head_class_of
from featx.settings import check_number, parse_setting


def test_every_head_of_the_interface_has_a_name():
    names = {head.name for head in list_heads()}

    assert names >= {"mlp", "logreg", "xgboost", "knn", "ridge", "centroid", "svm", "conv"}


@pytest.mark.parametrize("head", list_heads(), ids=lambda head: head.name)
def test_listing_says_what_each_head_is(head):
    estimator = make_head(head.name)

    assert head.path == f"{type(estimator).__module__}:{type(estimator).__name__}"
    assert head.settings == estimator.get_params()
    assert head.summary.endswith(".")
    assert not hasattr(estimator, "classes_")
    with pytest.raises(ValueError, match="not fitted"):
        check_is_fitted(estimator)


def test_settings_arrive_as_their_values():
    head = make_head("mlp", hidden="256,128,64", dropout="0.3", batch_norm="true", lr="1e-3", class_weight="none")

    assert (head.hidden, head.dropout, head.batch_norm, head.lr, head.class_weight) == (
        (256, 128, 64), 0.3, True, 1e-3, None,
    )  # fmt: skip


def test_a_stack_of_layers_stays_text():
    assert (
        make_head("mlp", layers="256 relu 128 relu drop.3 64 relu bn").layers == "256 relu 128 relu drop.3 64 relu bn"
    )


def test_none_is_a_word_where_a_setting_takes_words():
    head = make_head("mlp", schedule="none", class_weight="none")

    assert (head.schedule, head.class_weight) == ("none", None)


def test_values_that_are_no_text_are_taken_as_they_are():
    assert make_head("mlp", hidden=[8, 4]).hidden == [8, 4]


@pytest.mark.parametrize("name", ["sklearn.ensemble.RandomForestClassifier", "sklearn.ensemble:RandomForestClassifier"])
def test_scikit_learn_classes_by_path(name):
    head = make_head(name, n_estimators="7", max_features="sqrt")

    assert isinstance(head, RandomForestClassifier)
    assert (head.n_estimators, head.max_features) == (7, "sqrt")


def test_classes_of_the_users_own(tmp_path, monkeypatch):
    (tmp_path / "my_heads.py").write_text(
        "class Constant:\n    def __init__(self, label=0): self.label = label\n"
        "    def fit(self, X, y): return self\n    def predict(self, X): return [self.label] * len(X)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    assert make_head("my_heads:Constant", label="3").predict([1, 2]) == [3, 3]
    sys.modules.pop("my_heads")


def test_plug_ins_are_found_by_their_entry_point(tmp_path, monkeypatch):
    info = tmp_path / "plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[featx.heads]\ntree = sklearn.tree:DecisionTreeClassifier\nmlp = sklearn.tree:DecisionTreeClassifier\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    assert type(make_head("tree")).__name__ == "DecisionTreeClassifier"
    assert type(make_head("mlp")).__name__ == "DenseHead"  # ours cannot be taken over


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("logrg", "Unknown head 'logrg'. Did you mean 'logreg'\\? All names: featx heads"),
        ("quantum", "Unknown head 'quantum'. All names: featx heads"),
        ("sklearn.ensemble.Forest", "Head 'sklearn.ensemble.Forest' cannot be imported: .*Forest"),
        ("no_such_module:Head", "Head 'no_such_module:Head' cannot be imported: No module"),
        ("math:sqrt", "'math:sqrt' is not a class with fit and predict"),
        (":", "Head ':' cannot be imported"),
    ],
)
def test_unknown_heads_are_explained(name, message):
    with pytest.raises(UnknownHeadError, match=message):
        make_head(name)


def test_unknown_settings_are_explained():
    with pytest.raises(OptionError, match="Head 'mlp' has no setting 'dropot'. Did you mean 'dropout'\\? Its settings"):
        make_head("mlp", dropot=0.1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("inf", float("inf")), ("True", True), ("None", None), ("balanced", "balanced"), ("1,10", (1, 10)),
        ("0.1,none", (0.1, None)), ("a,b", ("a", "b")), ("[1, 2]", [1, 2]), ("", ""), (",", ","), ("__import__('os')", "__import__('os')"),
    ],
)  # fmt: skip
def test_texts_become_values(text, value):
    assert parse_setting(text) == value


@pytest.mark.parametrize("value", [True, "3", None, [1], float("nan")])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(OptionError, match="k must be a number, at least 1; got"):
        check_number("k", value, least=1)


@pytest.mark.parametrize("word", ["0", "relu6", "drop1", "drop1.5", "conv", "bn2", "conv0", "max3", "-5", "leaky5"])
def test_words_that_are_no_layer_are_refused(word):
    with pytest.raises(OptionError, match=f"Unknown layer '{word}'"):
        parse_layers(f"64 {word}")


def test_the_walkthrough_with_a_convolutional_top():
    """C of the walkthroughs: two convolutions with pooling over 7x7 maps of VGG-16, then dense layers."""
    steps = trace(parse_layers("conv32 relu max conv64 relu max flat 128 relu"), (512, 7, 7), 3)

    assert [step.after for step in steps if step.layer.kind in ("max", "flat", "dense")] == [
        (32, 3, 3), (64, 1, 1), (64,), (128,), (3,),
    ]  # fmt: skip


def test_maps_cannot_come_back():
    with pytest.raises(OptionError, match="Layer 'conv' needs a map, but comes after the map was flattened"):
        trace(parse_layers("conv8 flat conv8"), (3, 4, 4), 2)


def test_public_names_can_be_imported():
    import featx.heads

    for name in public:
        assert getattr(featx.heads, name).__name__ == name


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "knn",
            {"n_neighbors": 5},
            "'n_neighbors'. Here it is called 'k'. Its settings: k, class_weight, weights, temperature, device.",
        ),
        ("ridge", {"alphas": (1, 2)}, "'alphas'. Here it is called 'alpha'."),
        ("mlp", {"hidden_layer_sizes": 64}, "'hidden_layer_sizes'. Here it is called 'hidden'."),
        ("mlp", {"learning_rate": 1e-3}, "'learning_rate'. Here it is called 'lr'."),
        ("logreg", {"max_iters": 5}, "'max_iters'. Did you mean 'max_iter'?"),
        ("xgboost", {"eta": 0.1}, "'eta'. Here it is called 'learning_rate'."),
    ],
)
def test_settings_by_the_names_of_other_libraries_are_answered_with_ours(name, settings, message):
    with pytest.raises(OptionError, match=re.escape(message)):
        make_head(name, **settings)
    with pytest.raises(TypeError, match=re.escape(message)):
        head_class_of(name)(**settings)


def test_heads_are_fitted_to_small_tables_without_torch(tmp_path):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 200)
    table = Features.from_arrays(rng.standard_normal((200, 16), np.float32) + y[:, None], y).export(tmp_path / "t.h5")
    code = (
        "import sys; from featx.cli import main\n"
        "for head in ('ridge', 'centroid', 'knn', 'logreg', 'svm', 'logreg-cv', 'xgboost', 'mlp'):\n"
        "    assert main(['fit', sys.argv[1], '--head', head, '-o', sys.argv[2], '-q']) == 0\n"
        "    assert 'torch' not in sys.modules, head"
    )

    subprocess.run([sys.executable, "-c", code, table, tmp_path / "m.featx"], check=True, cwd=tmp_path)


def test_libraries_that_scikit_learn_hardly_uses_wait_until_they_are_used():
    code = (
        "import sys, featx.heads, numpy, scipy, sklearn.utils.fixes as fixes\n"
        "assert not {'pandas', 'scipy.stats', 'numpy.f2py', 'sklearn.model_selection'} & {*sys.modules}\n"
        "assert fixes.scipy.stats.mode([1, 1, 2]).mode == 1 and numpy.f2py.run_main and scipy.stats.norm\n"
        "assert not hasattr(fixes, 'pd') or isinstance(fixes.pd.DataFrame, type)\n"
        "import pandas; from scipy import stats\n"
        "assert type(pandas) is type(stats) is type(sys) and sys.modules['pandas'] is pandas"
    )

    subprocess.run([sys.executable, "-c", code], check=True)
