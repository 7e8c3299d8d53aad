"""The metrics that choose: scikit-learn's by definition, and what a fit takes them for."""

import numpy as np
import pytest
from sklearn import metrics as theirs

import featx
from featx import LogisticHeadCV, metrics
from featx.errors import OptionError
from featx.features import Features

RNG = np.random.default_rng(0)
#: One row in twelve is of the rare class, on the same side as half of the others.
y = (RNG.random(900) < 1 / 12).astype(int)
X = (RNG.normal(size=(900, 6)) + 0.9 * y[:, None]).astype(np.float32)
SPLITS = np.repeat(["train", "val", "test"], 300)


@pytest.mark.parametrize("k", [2, 4])
def test_metrics_of_classes_are_those_of_scikit_learn(k):
    truth = RNG.integers(0, k, 200)
    p = RNG.dirichlet(np.ones(k), 200).round(2)  # many rows are equal
    p[:, -1] = 1 - p[:, :-1].sum(axis=1)

    for ours, other in [
        (metrics.auroc, theirs.roc_auc_score(truth, p if k > 2 else p[:, 1], multi_class="ovr")),
        (metrics.average_precision, theirs.average_precision_score(np.eye(k)[truth], p)),
        (metrics.balanced_accuracy, theirs.balanced_accuracy_score(truth, p.argmax(axis=1))),
        (metrics.class_macro_f1, theirs.f1_score(truth, p.argmax(axis=1), average="macro")),
    ]:
        assert ours(truth, p) == pytest.approx(other)


def test_a_metric_chooses_where_accuracy_would_choose_otherwise(tmp_path):
    """Nearly everything is of one class, and the penalty that finds the other costs accuracy."""
    table = Features.from_arrays(X, y, splits=SPLITS)
    weights = [None, "balanced"]
    search = "class_weight=none,balanced"
    chosen = {
        metric: featx.fit(table, "ridge", search=search, metric=metric) for metric in ("accuracy", "balanced_accuracy")
    }

    assert [weights.index(model.report.chosen["class_weight"]) for model in chosen.values()] == [0, 1]
    model = chosen["balanced_accuracy"]
    found = featx.evaluate(model, table, "val")
    assert model.report["val"]["balanced_accuracy"] == pytest.approx(found.balanced_accuracy)
    assert max(trial["balanced_accuracy"] for trial in model.report["search"]) == pytest.approx(found.balanced_accuracy)
    assert featx.load(model.save(tmp_path / "m.featx")).report.val == model.report.val
    assert {"macro_f1", "auroc", "average_precision"} < found.to_dict().keys()
    assert "AUROC" in str(found)


def test_less_is_better_of_distances():
    table = Features.from_arrays(X, targets=X[:, :2], splits=SPLITS)
    report = featx.fit(table, "ridge", search="alpha=1e5,1", metric="mae").report
    assert report.chosen == {"alpha": 1}
    assert report["search"][1]["mae"] < report["search"][0]["mae"]


def test_logreg_chooses_its_penalty_by_the_metric():
    train, val = X[:300], X[300:600]
    head = LogisticHeadCV(scoring="auroc", random_state=0).fit(train, y[:300], X_val=val, y_val=y[300:600])
    each = [
        theirs.roc_auc_score(y[300:600], featx.LogisticHead(C=C).fit(train, y[:300]).decision_function(val))
        for C in head.Cs_[::10]
    ]
    assert head.scores_[0, ::10] == pytest.approx(each, abs=1e-3)
    report = featx.fit(Features.from_arrays(X, y, splits=SPLITS), "logreg", metric="auroc", scale="none").report
    assert report["chosen"]["C"] == pytest.approx(head.C_)
    labels = np.stack([y, X[:, 0] > 0], axis=1)
    assert LogisticHeadCV(Cs=3, cv=2, scoring="map").fit(X, labels).scores_.shape == (2, 3)


def test_a_metric_of_another_task_is_refused_by_name():
    for table, metric, known in [
        (Features.from_arrays(X, y, splits=SPLITS), "map", "balanced_accuracy"),
        (Features.from_arrays(X, targets=X[:, :2], splits=SPLITS), "auroc", "rmse"),
    ]:
        with pytest.raises(OptionError, match=known):
            featx.fit(table, "ridge", metric=metric)
