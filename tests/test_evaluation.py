"""Metrics against scikit-learn's, and what they say where scikit-learn's warn."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_tables import NAMES, digits, table
from scipy.stats import binomtest
from sklearn import metrics as reference

import featx
from featx.cli import main
from featx.errors import DataError
from featx.evaluation import evaluate, evaluate_predictions, held_out, mcnemar, read_levels
from featx.evaluation.evaluation import as_text
from featx.evaluation.metrics import reliability
from featx.features import Features
from featx.model import Accuracy, fit

CLASSES = tuple("abcdefgh")


@pytest.fixture
def rows():
    """500 rows of eight classes that a mediocre classifier saw."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 8, 500)
    logits = rng.normal(size=(500, 8)) + 1.5 * np.eye(8)[y]
    return y, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_every_number_is_scikit_learns(rows):
    y, p = rows
    labels = p.argmax(axis=1)
    result = evaluate_predictions(y, p, CLASSES)
    precision, recall, f1, support = reference.precision_recall_fscore_support(y, labels)

    assert result.accuracy.value == pytest.approx(reference.accuracy_score(y, labels))
    assert result.balanced_accuracy == pytest.approx(reference.balanced_accuracy_score(y, labels))
    assert result.top5 == pytest.approx(reference.top_k_accuracy_score(y, p, k=5))
    assert result.log_loss == pytest.approx(reference.log_loss(y, p))
    assert result.confusion.tolist() == reference.confusion_matrix(y, labels).tolist()
    assert [s.precision for s in result.per_class] == pytest.approx(precision.tolist())
    assert [s.recall for s in result.per_class] == pytest.approx(recall.tolist())
    assert [s.f1 for s in result.per_class] == pytest.approx(f1.tolist())
    assert [s.support for s in result.per_class] == support.tolist()


def test_false_positive_rates_are_over_the_other_classes(rows):
    y, p = rows
    counts = evaluate_predictions(y, p, CLASSES).confusion

    for j, scores in enumerate(evaluate_predictions(y, p, CLASSES).per_class):
        others = np.delete(counts, j, axis=0)
        assert scores.false_positive_rate == pytest.approx(others[:, j].sum() / others.sum())


@settings(deadline=None)
@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_the_interval_is_wilsons(case):
    n, n_correct = case
    expected = binomtest(n_correct, n).proportion_ci(method="wilson")

    assert Accuracy(n, n_correct).ci95 == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_labels_alone_give_no_probability_metrics(rows):
    y, p = rows
    result = evaluate_predictions(y, p.argmax(axis=1), CLASSES)

    assert result.accuracy.value == evaluate_predictions(y, p, CLASSES).accuracy.value
    assert (result.top5, result.log_loss, result.calibration_error, result.reliability) == (None, None, None, ())


def test_a_class_without_rows_is_undefined_and_not_zero():
    result = evaluate_predictions([0, 0, 1], [0, 1, 1], ("cat", "dog", "owl"))
    cat, dog, owl = result.per_class

    assert (cat.recall, dog.recall, owl.support) == (0.5, 1.0, 0)
    assert np.isnan([owl.precision, owl.recall, owl.f1]).all()
    assert result.balanced_accuracy == 0.75
    assert result.to_dict()["per_class"][2]["recall"] is None


def test_a_single_class_has_no_false_positive_rate():
    result = evaluate_predictions([0, 0], [0, 0], ("cat",))

    assert result.accuracy.value == 1
    assert result.to_dict()["per_class"][0]["false_positive_rate"] is None


def test_top5_of_constant_probabilities_earns_nothing():
    assert evaluate_predictions([0, 3, 7], np.full((3, 8), 1 / 8), CLASSES).top5 == 0


def test_top5_is_left_out_where_it_would_always_be_right():
    assert evaluate_predictions([0, 1], np.full((2, 5), 0.2), CLASSES[:5]).top5 is None


def test_most_confused_pairs_come_first():
    y = [0, 0, 0, 1, 1, 2]
    predicted = [1, 1, 0, 0, 1, 0]

    pairs = evaluate_predictions(y, predicted, ("cat", "dog", "owl")).most_confused()

    assert [(p.true, p.predicted, p.n) for p in pairs] == [("cat", "dog", 2), ("dog", "cat", 1), ("owl", "cat", 1)]


def test_no_mistakes_no_confused_pairs():
    assert evaluate_predictions([0, 1], [0, 1], ("cat", "dog")).most_confused() == ()


def test_baseline_is_the_most_frequent_class():
    assert evaluate_predictions([0, 1, 1, 1], [0, 0, 0, 0], ("cat", "dog")).baseline == ("dog", 0.75)


def test_reliability_bins_hold_every_row_and_give_the_error(rows):
    y, p = rows
    result = evaluate_predictions(y, p, CLASSES)

    assert sum(b.n for b in result.reliability) == len(y)
    expected = sum(b.n * abs(b.accuracy - b.confidence) for b in result.reliability) / len(y)
    assert result.calibration_error == pytest.approx(expected)


def test_perfectly_calibrated_coin():
    y = np.arange(1000) % 2
    p = np.tile([0.5 + 1e-9, 0.5 - 1e-9], (1000, 1))

    assert evaluate_predictions(y, p, ("cat", "dog")).calibration_error == pytest.approx(0, abs=1e-6)


def test_a_prompt_shows_one_line(rows):
    assert "\n" not in repr(evaluate_predictions(*rows, CLASSES))


def test_json_is_strict(rows):
    found = json.loads(json.dumps(evaluate_predictions(*rows, CLASSES).to_dict(), allow_nan=False))

    assert found["n"] == 500
    assert found["ci95"][0] < found["accuracy"] < found["ci95"][1]
    assert np.shape(found["confusion"]) == (8, 8)


def test_ten_thousand_classes_need_no_matrix():
    classes = tuple(map(str, range(10_000)))
    result = evaluate_predictions(np.arange(10_000), np.roll(np.arange(10_000), 1), classes)

    assert result.to_dict()["confusion"] is None
    assert len(result.to_dict()["most_confused"]) == 10


@pytest.mark.parametrize(
    ("y", "predicted", "reason"),
    [
        ([], np.empty((0, 2)), "no labelled row to evaluate"),
        ([0, 2], [0, 1], "indices into 2 classes"),
        ([0, -1], [0, 1], "indices into 2 classes"),
        ([0, 1], [[0.5, np.nan], [0.5, 0.5]], "2 finite probabilities"),
        ([0, 1], [[1.0], [1.0]], "2 finite probabilities"),
    ],
)
def test_what_cannot_be_evaluated_is_explained(y, predicted, reason):
    with pytest.raises(DataError, match=reason):
        evaluate_predictions(y, predicted, ("cat", "dog"))


def test_mcnemar_is_the_exact_test_on_discordant_rows():
    y = np.zeros(100, dtype=int)
    a, b = np.zeros(100, dtype=int), np.zeros(100, dtype=int)
    a[:3], b[3:15] = 1, 1

    result = mcnemar(y, a, b)

    assert (result.only_a, result.only_b) == (12, 3)
    assert result.p_value == pytest.approx(binomtest(3, 15).pvalue)


def test_mcnemar_of_equal_predictions_finds_no_difference():
    assert mcnemar([0, 1], [0, 0], [0, 0]).p_value == 1


def test_mcnemar_needs_the_same_rows():
    with pytest.raises(ValueError, match="three vectors of one length"):
        mcnemar([0, 1], [0], [0, 1])


def test_the_text_fits_its_width_and_names_what_was_left_out(rows):
    y, p = rows
    long_names = tuple(f"a rather long name of a class, number {i}" for i in range(8))
    text = as_text(
        evaluate_predictions(y, p, long_names, trained_on=("x.jpg", "y.jpg"), n_chosen_on=7, n_unreadable=2), width=60
    )
    table = text.split("\n\n")[1]

    assert max(map(len, table.splitlines())) <= 60
    assert "Left out: 2 rows that the model was trained on (x.jpg, y.jpg)." in text
    assert "7 of the rows chose the model's settings" in text
    assert "2 images that could not be read" in text


def test_the_text_shows_the_worst_of_many_classes():
    y = np.arange(100)
    predicted = np.where(y == 42, 43, y)
    text = str(evaluate_predictions(y, predicted, tuple(f"c{i:02}" for i in y)))

    assert "worst 30 of 100" in text
    assert "c42 taken for c43" in text
    assert text.split("\n\n")[1].splitlines()[1].startswith("c42")


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_a_class_is_right_on_a_level_if_its_ancestor_is(tmp_path):
    path = written(
        tmp_path / "classes.csv",
        "name;genus;family\nwolf;Canis;dogs\nlynx;;cats\ndog;Canis ;dogs\ncat;;cats\nyak;Bos;-\n",
    )
    levels = read_levels(path, ("cat", "dog", "lynx", "wolf"))
    groups = np.array([0, 0, 0, 1, 1])
    found = evaluate_predictions(
        [0, 1, 1, 2, 3], [2, 3, 0, 2, 1], ("cat", "dog", "lynx", "wolf"), levels=levels, groups=groups
    )

    assert found.accuracy.n_correct == 1
    assert [(s.level, s.n_ancestors, s.accuracy.n_correct) for s in found.per_level] == [
        ("genus", 3, 3),
        ("family", 2, 4),
    ]
    right = np.array([True, True, False, True, True])
    assert found.per_level[1].accuracy == Accuracy.of(right, groups)
    said = json.loads(json.dumps(found.to_dict(), allow_nan=False))["levels"]
    assert [(level["level"], level["accuracy"]) for level in said] == [("genus", 0.6), ("family", 0.8)]
    assert [line.split()[:4] for line in str(found).split("\n\n")[1].splitlines()[1:]] == [
        ["genus", "3", "60.0", "%"],
        ["family", "2", "80.0", "%"],
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("class,genus\ncat,Felis\n", r"no line for 1 of the model's 2 classes, the first of them 'dog'"),
        ("class,genus\ncat,Felis\ndog,Canis\ncat,Lynx\n", "gives 'cat' other ancestors on a second line"),
        ("class\ncat\ndog\n", "needs a header that names the class and"),
        ("class,genus,genus\ncat,a,a\ndog,b,b\n", "needs a header that names the class and"),
        ("", "is not a CSV with a header"),
    ],
)
def test_a_hierarchy_that_says_too_little_or_two_things_is_refused(text, said, tmp_path):
    with pytest.raises(DataError, match=said):
        read_levels(written(tmp_path / "classes.csv", text), ("cat", "dog"))


def test_a_hierarchy_is_named_by_its_file(model, tmp_path, capsys):
    lines = [f"{name},{'even' if i % 2 == 0 else 'odd'}\n" for i, name in enumerate(NAMES)]
    path, features = written(tmp_path / "digits.csv", "digit,parity\n" + "".join(lines)), table(tmp_path, *digits(300))
    found = evaluate(model, features, hierarchy=path)
    file = str(model.save(tmp_path / "m.featx"))

    assert found.per_level[0].accuracy.value == np.mean(found.y_true % 2 == found.y_pred % 2) > found.accuracy.value
    assert main(["evaluate", file, str(features.path), "--hierarchy", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["levels"] == found.to_dict()["levels"]
    assert main(["evaluate", file, str(features.path), "--hierarchy", str(tmp_path / "no.csv")]) == 1
    assert "No hierarchy at" in capsys.readouterr().err


@pytest.fixture
def model(tmp_path):
    X, y, splits = digits(300)
    return fit(table(tmp_path / "fitted", X, y, splits), "ridge")


def test_the_test_split_is_evaluated_by_default(model, tmp_path):
    features = table(tmp_path, *digits(300), errors=[("broken.png", "truncated")])
    result = evaluate(model, features)

    assert result.accuracy.n == 60
    assert (result.trained_on, result.n_chosen_on, result.n_unreadable) == ((), 0, 1)
    assert result.accuracy.value == (model.predict(features.select("test")) == named(features.select("test"))).mean()


def named(features):
    return np.array(features.classes, dtype=object)[features.y]


def test_rows_trained_on_are_known_by_content_and_left_out(model, tmp_path):
    X, y, _ = digits(400)
    result = evaluate(model, table(tmp_path, X, y, np.full(400, "")))

    assert result.accuracy.n == 400 - len(model.trained_on)
    assert len(result.trained_on) == len(model.trained_on)
    assert result.n_chosen_on == len(model.chosen_on) > 0
    assert result.to_dict()["trained_on"]["n"] == len(model.trained_on)


def test_a_model_and_a_table_may_be_named_by_their_files(model, tmp_path):
    path = model.save(tmp_path / "m.featx")
    features = table(tmp_path / "other", *digits(300))

    assert featx.evaluate(path, features.path).to_dict() == evaluate(featx.load(path), features).to_dict()
    assert featx.evaluate(path).accuracy.n == 60


def test_a_split_of_a_table_without_splits_says_that_the_fit_drew_its_own(model, tmp_path):
    X, y, _ = digits(300)

    with pytest.raises(
        DataError, match=r"no split 'train'.*the fit drew its validation rows itself. Leave --split out"
    ):
        evaluate(model, table(tmp_path, X, y, np.full(300, "")), split="train")


def test_a_table_of_nothing_but_training_rows_is_refused(model, tmp_path):
    X, y, splits = digits(300)
    splits = np.where(splits == "test", "test", "mine")
    features = table(tmp_path, X, y, splits)
    only = features.select(np.flatnonzero(np.isin(features.item_ids, model.trained_on[:1]).all(axis=1)))

    with pytest.raises(DataError, match=r"trained on all 1 rows of split 'mine': nothing is left"):
        evaluate(model, only, split="mine")


def test_classes_are_matched_by_name(model, tmp_path):
    X, y, splits = digits(300)
    backwards = table(tmp_path, X, 9 - y, splits, classes=NAMES[::-1])

    assert evaluate(model, backwards).accuracy.value > 0.8


def test_rows_of_a_class_that_the_model_does_not_know_are_left_out_and_counted(model, tmp_path):
    X, y, splits = digits(300)
    owls = (y == 0) & (splits == "test")
    found = evaluate(model, table(tmp_path, X, y, splits, classes=("owl", *NAMES[1:])))

    assert found.accuracy.n == ((splits == "test") & ~owls).sum()
    assert found.to_dict()["unknown"] == {"owl": owls.sum()}
    assert f"rows of classes that the model does not know ({owls.sum()} of 'owl')" in str(found)


def test_a_table_of_unknown_classes_alone_is_refused(model, tmp_path):
    X, y, splits = digits(300)

    with pytest.raises(DataError, match="rows are of classes that the model does not know, the first of 'x0'"):
        evaluate(model, table(tmp_path, X, y, splits, classes=[f"x{i}" for i in range(10)]))


def test_each_row_is_told_right_or_wrong_the_most_surely_wrong_first(model, tmp_path):
    X, y, splits = digits(300)
    held = held_out(model, table(tmp_path, X, np.where(np.arange(300) == 5, (y + 1) % 10, y), splits))
    found = held.evaluate(model)
    header, rows = held.records(found)

    assert header == ["file", "true", "predicted", "probability", "right"]
    assert len(rows) == found.accuracy.n
    (told,) = [row for row in rows if row[0] == "0005.png"]
    assert (told[1], told[4]) == (NAMES[(y[5] + 1) % 10], False)
    wrong = [row[3] for row in rows if not row[4]]
    assert [row[4] for row in rows[: len(wrong)]] == [False] * len(wrong)
    assert wrong == sorted(wrong, reverse=True)
    assert sum(row[4] for row in rows) == found.accuracy.n_correct


def test_unlabelled_rows_are_not_evaluated(model, tmp_path):
    X, _, splits = digits(300)

    with pytest.raises(DataError, match="has a label to evaluate on"):
        evaluate(model, table(tmp_path, X, np.full(300, -1), splits))


def test_rows_of_ones_own_arrays_have_no_content_to_compare():
    X, y, _ = digits(300)
    own = fit(Features.from_arrays(X, y, classes=NAMES), "ridge")

    assert evaluate(own, Features.from_arrays(X, y, classes=NAMES)).accuracy.n == 300


def test_a_wide_terminal_shows_scores_as_bars_too():
    found = evaluate_predictions([0, 0, 1, 1], [0, 0, 1, 0], ("cat", "dog"))
    wide, narrow = as_text(found, width=100).splitlines(), as_text(found, width=50).splitlines()
    bars = {line.split()[0]: line.count("█") for line in wide if line.startswith(("cat", "dog"))}

    assert bars == {"cat": 16, "dog": 13}  # of 20, F1 of 0.8 and 0.67
    assert not any("█" in line for line in narrow)


def test_confidences_fall_into_the_bins_that_hold_them():
    bins = reliability(np.array([0.05, 0.15, 0.1, 0.95, 1.0]), np.array([True, False, True, True, False]), n_bins=10)

    assert [(b.low, b.n, b.accuracy) for b in bins] == [(0.0, 2, 1.0), (0.1, 1, 0.0), (0.9, 2, 0.5)]
