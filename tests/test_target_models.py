"""Models of several labels, or of numbers: fitted, chosen, kept in a file, evaluated."""

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, r2_score

import featx
from featx import metrics
from featx.errors import DataError, ModelFileError, OptionError
from featx.evaluation import held_out_targets
from featx.features import Features
from featx.model.archive import read as read_archive
from featx.model.archive import write as write_archive
from featx.model.outputs import Outputs
from featx.model.rows import choose_rows
from featx.targets import Targets

N = 300
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 12)).astype(np.float32)
LINEAR = X @ RNG.normal(size=(12, 3)) + RNG.normal(size=(N, 3))
SPLITS = ["train"] * 220 + ["test"] * 80


def labels_table(**how):
    return Features.from_arrays(
        X, targets=LINEAR > [1, 0, 3], target_names=["cat", "dog", "owl"], **{"splits": SPLITS} | how
    )


def numbers_table(n=2, **how):
    return Features.from_arrays(
        X, targets=LINEAR[:, :n], target_names=["price", "size"][:n], **{"splits": SPLITS} | how
    )


@pytest.mark.parametrize("head", ["ridge", "logreg", "knn", "xgboost", "mlp", "sklearn.neighbors.KNeighborsClassifier"])
def test_labels_from_table_to_file_to_predictions(head, tmp_path):
    table = labels_table()
    settings = {"xgboost": {"n_estimators": 10}}.get(head)
    model = featx.fit(table, head, test=True, settings=settings)
    again = featx.load(model.save(tmp_path / "m.featx", unsafe_pickle="." in head), unsafe_pickle="." in head)

    proba = again.predict_proba(table.select("test"))
    assert np.array_equal(proba, model.predict_proba(table.select("test")))
    truth = table.select("test").targets
    assert model.report["task"] == again.report["task"] == "multilabel"
    assert model.report["test"]["map"] == pytest.approx(average_precision_score(truth, proba, average="macro"))
    assert model.report["test"]["map"] > 0.6
    there = proba >= again.outputs.thresholds
    assert model.report["test"]["micro_f1"] == pytest.approx(f1_score(truth, there, average="micro"))
    assert again.predict(table.select("test"))[0] == tuple(np.array(["cat", "dog", "owl"])[there[0]])
    found = featx.evaluate(again, table)
    assert found.to_dict()["map"] == model.report["test"]["map"]
    assert [scores.support for scores in found.per_label] == truth.sum(axis=0).tolist()
    assert json.dumps(found.to_dict(), allow_nan=False)
    assert "owl" in str(found)


@pytest.mark.parametrize("head", ["ridge", "knn", "xgboost", "mlp", "sklearn.tree.DecisionTreeRegressor"])
@pytest.mark.parametrize("n", [1, 2])
def test_numbers_from_table_to_file_to_predictions(head, n, tmp_path):
    table = numbers_table(n)
    settings = {"xgboost": {"n_estimators": 10}}.get(head)
    model = featx.fit(table, head, test=True, settings=settings)
    again = featx.load(model.save(tmp_path / "m.featx", unsafe_pickle="." in head), unsafe_pickle="." in head)

    test = table.select("test")
    numbers = again.predict(test)
    assert numbers.shape == ((80,) if n == 1 else (80, 2))
    assert np.array_equal(numbers, model.predict(test))
    assert model.report["test"]["r2"] == pytest.approx(r2_score(test.targets, numbers.reshape(80, n)))
    low, high = model.report["test"]["ci95"]
    assert low < model.report["test"]["r2"] < high
    found = featx.evaluate(again, table)
    assert [scores.name for scores in found.per_number] == ["price", "size"][:n]
    assert found.to_dict()["per_target"][0]["coverage"] > 0.6
    with pytest.raises(OptionError, match="numbers, which have no probabilities"):
        again.predict_proba(test)


def test_validation_chooses_among_settings_and_folds_do(tmp_path):
    model = featx.fit(numbers_table(), "ridge", search="alpha=1,1e5", cv=3, refit=True)
    assert model.report["chosen"] == {"alpha": 1}
    assert [trial["r2"] > 0.5 for trial in model.report["search"]] == [True, False]
    assert len(model.report["cv"]["scores"]) == 3
    assert featx.load(model.save(tmp_path / "m.featx")).report.cv == model.report.cv
    assert featx.fit(labels_table(), "ridge", search="alpha=1,1e5", cv=3).report["search"][0]["map"] > 0.8


def test_a_ridge_on_numbers_chooses_its_penalty_where_none_is_named():
    """Of about as many features as rows, a weak penalty makes predictions that are worse than the mean."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 300)).astype(np.float32)
    y = X[:, :20].sum(axis=1) + 4 * rng.standard_normal(400)
    table = Features.from_arrays(X, targets=y[:, None], splits=np.repeat(["train", "val"], [320, 80]))

    weak = featx.fit(table, "ridge", settings={"alpha": 1}).report
    chosen = featx.fit(table, "ridge").report

    assert weak["val"]["r2"] < 0 < chosen["val"]["r2"]
    assert dict(chosen["chosen"])["alpha"] in (100, 1000)
    assert not weak["chosen"]


@pytest.mark.parametrize("n", [1, 3])
def test_a_logistic_regression_on_labels_chooses_its_penalty_by_what_is_reported(n):
    """Of rare labels, that most are rightly absent says little: a strong penalty finds none and is often right."""
    rng = np.random.default_rng(16)
    X = rng.standard_normal((200, 20)).astype(np.float32)
    scores = X @ rng.standard_normal((20, 3)) / 2 + 1.5 * rng.standard_normal((200, 3)) - 2.2
    table = Features.from_arrays(X, targets=scores[:, :n] > 0, splits=np.repeat(["train", "val"], [120, 80]))

    plain, named = featx.fit(table, "logreg"), featx.fit(table, "logreg", metric="map")
    by_rows = featx.fit(table, "logreg-cv", settings={"scoring": "accuracy"})

    assert plain.report["path"] == named.report["path"]
    assert plain.report["val"]["map"] > by_rows.report["val"]["map"]
    path = plain.report["path"]
    assert max(path, key=lambda step: step["score"])["C"] == dict(plain.report["chosen"])["C"]
    assert max(step["score"] for step in path) == pytest.approx(plain.report["val"]["map"])


def test_a_penalty_is_chosen_where_no_validation_row_has_a_label():
    train = np.arange(200) < 150
    labels = (LINEAR[:200] > 1) & train[:, None]
    table = Features.from_arrays(X[:200], targets=labels, splits=np.where(train, "train", "val"))
    path = featx.fit(table, "logreg").report["path"]
    assert all(0 <= step["score"] <= 1 for step in path)


def test_files_of_classifiers_say_nothing_new(tmp_path):
    model = featx.fit(Features.from_arrays(X, (LINEAR[:, 0] > 0).astype(int)), "ridge")
    fields = json.loads(read_archive(model.save(tmp_path / "m.featx"))["model.json"])
    assert "outputs" not in fields
    assert "task" not in fields["report"]
    assert model.report["task"] == featx.load(tmp_path / "m.featx").report["task"] == "classify"


@pytest.mark.parametrize(
    "change",
    [
        {"task": "rank"}, {"names": []}, {"names": ["price", "price"]}, {"thresholds": [0.5, 0.5]}, {"margins": [1.0]},
        {"margins": [-1.0, 1.0]}, {"names": ["price"]}, None,
    ],
)  # fmt: skip
def test_outputs_out_of_a_strangers_file_are_checked(tmp_path, change):
    members = read_archive(featx.fit(numbers_table(), "ridge").save(tmp_path / "m.featx"))
    fields = json.loads(members["model.json"])
    fields["outputs"] = change if change is None else fields["outputs"] | change
    write_archive(tmp_path / "m.featx", members | {"model.json": json.dumps(fields).encode()})
    with pytest.raises(ModelFileError):
        featx.load(tmp_path / "m.featx")


def test_groups_stay_whole_and_make_intervals_wider():
    groups = np.repeat(np.arange(N // 10), 10)
    effect = np.repeat(np.random.default_rng(1).normal(size=N // 10) * 5, 10)
    grouped = Features.from_arrays(X, targets=LINEAR[:, 0] + effect, groups=list(map(str, groups)))
    rows = choose_rows(grouped, 0.2, targets=Targets("regress", ("a",), grouped.targets))
    assert len(rows.val)
    assert not set(groups[rows.val]) & set(groups[rows.train])
    model = featx.fit(grouped, "ridge", val=0.3, cv=3)
    assert not {*groups[rows.val]} & {*groups[rows.train]}
    alone = featx.fit(Features.from_arrays(X, targets=LINEAR[:, 0] + effect), "ridge", val=0.3)
    width = [high - low for low, high in (model.report["val"]["ci95"], alone.report["val"]["ci95"])]
    assert width[0] > width[1]


def test_labels_that_train_does_not_have_are_named_and_left_out():
    array = (LINEAR > [1, 0, 3]).astype(float)
    array[:220, 2] = 0
    array[3] = np.nan
    array[5, 0] = np.nan
    model = featx.fit(
        Features.from_arrays(X, targets=array, target_names=["cat", "dog", "owl"], splits=SPLITS), "ridge"
    )
    assert model.columns == ("cat", "dog")
    owls = int(array[220:, 2].sum())
    assert model.report.warnings[:2] == (
        f"The label 'owl' is one that no training row has (and {owls} of validation and test): it is left out of the model.",
        "Rows that lack some of their 3 targets are left out of the fit: 1.",
    )
    array[:220] = 0
    with pytest.raises(DataError, match="There is nothing to learn. The label '0' is one that no training row has"):
        featx.fit(Features.from_arrays(X, targets=array, splits=SPLITS), "ridge")


@pytest.mark.parametrize(
    ("table", "how", "said"),
    [
        (numbers_table, {"head": "logreg"}, "logreg"),
        (numbers_table, {"head": "ridge", "task": "classify"}, "The table is labelled to regress, not to classify"),
        (labels_table, {"head": "ridge", "task": "regress"}, "labelled to multilabel, not to regress"),
        (lambda: Features.from_arrays(X, targets=np.full(N, np.nan), task="regress"), {"head": "ridge"}, "no labels"),
        (lambda: Features.from_arrays(X, [0, 1] * (N // 2), classes=["a", "b"]), {"head": "ridge", "task": "regress"}, "'a'"),
    ],
)  # fmt: skip
def test_what_cannot_be_fitted_gets_one_line(table, how, said):
    with pytest.raises(featx.FeatxError, match=said) as raised:
        featx.fit(table(), **how)
    assert "\n" not in str(raised.value)


def test_classes_called_by_numbers_are_fitted_as_numbers():
    rooms = np.clip(np.round(LINEAR[:, 0]), -3, 3).astype(int) + 3
    table = Features.from_arrays(X, rooms, splits=SPLITS)
    model = featx.fit(table, "ridge", task="regress", test=True)
    assert model.report["test"]["r2"] > 0.5
    assert featx.evaluate(model, table).score.value == model.report["test"]["r2"]


def test_evaluation_takes_targets_by_name_and_says_when_they_are_not_there():
    model = featx.fit(numbers_table(), "ridge")
    turned = Features.from_arrays(X, targets=LINEAR[:, 1::-1], target_names=["size", "price"], splits=SPLITS)
    assert featx.evaluate(model, turned).score.value == featx.evaluate(model, numbers_table()).score.value
    header, rows = held_out_targets(model, turned).records(featx.evaluate(model, turned))
    assert header == ["file", "price", "price_predicted", "size", "size_predicted"]
    assert len(rows) == 80
    with pytest.raises(DataError, match="The model predicts price, size, and the table has cat, dog, owl"):
        featx.evaluate(model, labels_table())


def test_thresholds_and_margins_are_those_of_validation():
    assert Outputs.learn("multilabel", ("a",), np.empty((0, 1)), np.empty((0, 1))).thresholds == (0.5,)
    assert Outputs.learn("regress", ("a",), np.empty((0, 1)), np.empty((0, 1))).margins == (None,)
    rng = np.random.default_rng(0)
    y, p = rng.random((200, 4)) < 0.3, rng.random((200, 4))
    p[y] += 0.3
    best = metrics.choose_thresholds(y, p)
    at_best = f1_score(y, p >= best, average=None)
    for cut in np.linspace(0, 1.3, 60):
        assert (f1_score(y, p >= cut, average=None) <= at_best + 1e-12).all()
    covered = []
    for seed in range(200):
        errors = np.random.default_rng(seed).exponential(size=140)
        margin = metrics.conformal_margins(errors[:40], np.zeros(40))
        covered.append((errors[40:] <= margin).mean())
    assert 0.89 < np.mean(covered) < 0.92


def test_a_model_takes_its_thresholds_from_validation():
    table = labels_table(splits=["train"] * 220 + ["val"] * 80)
    model = featx.fit(table, "logreg")
    val = table.select("val")
    thresholds = metrics.choose_thresholds(val.targets, model.predict_proba(val))

    np.testing.assert_allclose(model.outputs.thresholds, thresholds, atol=1e-6)
    assert (thresholds != 0.5).all()


def test_metrics_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    y, p = rng.random((60, 5)) < 0.3, rng.integers(0, 9, (60, 5)) / 9  # many ties
    expected = [average_precision_score(y[:, k], p[:, k]) for k in range(5)]
    assert metrics.average_precisions(y, p) == pytest.approx(expected)
    assert np.isnan(metrics.average_precisions(np.zeros((3, 1)), np.ones((3, 1)))).all()
    assert metrics.mean_average_precision(np.zeros((3, 1)), np.ones((3, 1))) != metrics.mean_average_precision(y, p)
    assert metrics.f1_score(y, p > 0.5) == pytest.approx(f1_score(y, p > 0.5, average="macro"))
    a, b = rng.normal(size=(2, 30, 3))
    assert metrics.r2_score(a, b) == pytest.approx(r2_score(a, b))
    assert np.isnan(metrics.r2_score([1.0, 1.0], [1.0, 2.0]))
    inside = [
        low <= 0 <= high
        for seed in range(100)
        for low, high in [metrics.bootstrap_interval(lambda t, f: float(t.mean()), *np.random.default_rng(seed).normal(size=(2, 40)), n_draws=200)]
    ]  # fmt: skip
    assert 88 <= sum(inside) <= 99
    assert metrics.bootstrap_interval(lambda t, f: 0.0, a, b, np.zeros(30)) is None
