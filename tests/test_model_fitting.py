"""From a table to a model: who teaches, who chooses, who only reports."""

import json
import re

import numpy as np
import pytest
from model_tables import NAMES, digits, table
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from featx.errors import DataError, OptionError, UnknownHeadError
from featx.evaluation import evaluate
from featx.features import Features
from featx.heads import LogisticHead, RidgeHead
from featx.model import fit, load
from featx.model.rows import choose_rows
from featx.model.scaling import FeatureScaler, ScaledTable
from featx.model.scores import Calibration

#: A path of C that takes no time.
QUICK = {"tol": 1e-2}


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    return table(tmp_path_factory.mktemp("cache"), *digits())


def in_memory(**changes):
    X, y, splits = digits()
    fields = {"X": X, "y": y, "classes": NAMES, "splits": splits}
    return Features.from_arrays(**fields | changes)


def test_the_report_has_the_documented_form(features):
    model = fit(features, "logreg", settings=QUICK, test=True)
    report = json.loads(json.dumps(model.report.to_dict(), allow_nan=False))

    assert {"head", "table", "train", "val", "test", "seconds", "n_parameters", "chosen"} <= set(report)
    assert report["head"] == "logreg"
    assert report["table"] == str(features.path)
    for part in ("train", "val", "test"):
        assert set(report[part]) == {"n", "accuracy", "ci95"}
    assert report["train"]["n"] + report["val"]["n"] + report["test"]["n"] == 600
    assert report["test"]["accuracy"] > 0.9
    assert set(report["chosen"]) == {"C"}


def test_without_test_the_test_split_is_not_reported(features):
    assert fit(features, "centroid").report["test"] is None


def test_nothing_about_the_test_split_reaches_the_model(tmp_path):
    X, y, splits = digits()
    spoiled = np.where(splits == "test", (y + 1) % 10, y)
    blackened = np.where((splits == "test")[:, None], np.float32(7), X)

    honest = fit(table(tmp_path / "a", X, y, splits), "logreg", settings=QUICK)
    for name, rows, labels in (("b", X, spoiled), ("c", blackened, y)):
        model = fit(table(tmp_path / name, rows, labels, splits), "logreg", settings=QUICK, test=True)

        np.testing.assert_array_equal(model.head.coef_, honest.head.coef_)
        assert model.report["chosen"] == honest.report["chosen"]
        assert model.calibration == honest.calibration


def test_scaling_is_learned_on_train_alone(tmp_path):
    X, y, _ = digits()
    splits = np.repeat(["train", "val", "test"], 200)
    X[200:] += 100
    model = fit(table(tmp_path, X, y, splits), "ridge")

    np.testing.assert_allclose(model.scaler.mean_, X[:200].mean(axis=0), rtol=1e-5, atol=1e-6)


def test_the_tables_own_validation_split_is_used(tmp_path):
    X, y, _ = digits()
    splits = np.repeat(["train", "val", "test"], [400, 150, 50])
    model = fit(table(tmp_path, X, y, splits), "centroid")

    assert (model.report["train"]["n"], model.report["val"]["n"]) == (400, 150)
    with pytest.raises(OptionError, match="has a validation split of 150 rows: leave out --val"):
        fit(table(tmp_path, X, y, splits), "centroid", val=0.2)


def test_a_validation_split_is_drawn_stratified_from_train(features):
    rows = choose_rows(features, seed=3)

    assert not set(rows.train) & set(rows.val)
    assert set(features.splits[rows.val]) == {"train"}
    wanted = 0.1 * np.bincount(features.y[features.splits == "train"])
    assert np.abs(np.bincount(features.y[rows.val]) - wanted).max() < 1
    assert not np.array_equal(rows.val, choose_rows(features, seed=4).val)
    np.testing.assert_array_equal(rows.val, choose_rows(features, seed=3).val)


def test_many_small_classes_together_give_the_fraction():
    X = np.arange(900, dtype=np.float32)[:, None]
    rows = choose_rows(Features.from_arrays(X, np.arange(900) // 3), 0.1)

    assert 60 < len(rows.val) < 120


def test_the_last_rows_can_validate(features):
    rows = choose_rows(features, "last:0.25")

    train = np.flatnonzero(features.splits == "train")
    assert rows.val.tolist() == train[-120:].tolist()
    assert choose_rows(features, 0).val.size == 0


def test_identical_images_never_stand_on_both_sides(tmp_path):
    X, y, _ = digits(100)
    doubled = table(tmp_path, np.tile(X, (3, 1)), np.tile(y, 3), np.full(300, "train"))
    rows = choose_rows(doubled, 0.3)

    assert len(rows.val) > 60
    assert not {r.tobytes() for r in doubled.item_ids[rows.train]} & {r.tobytes() for r in doubled.item_ids[rows.val]}


def test_rows_without_labels_and_splits_teach_nothing(tmp_path):
    X, y, splits = digits()
    y = np.where(np.arange(600) % 2 == 0, -1, y)
    splits[:100] = ""
    rows = choose_rows(table(tmp_path, X, y, splits))

    used = np.concatenate([rows.train, rows.val, rows.test])
    assert (y[used] >= 0).all()
    assert used.min() >= 100


def test_splits_of_other_names_are_not_trained_on(tmp_path):
    X, y, splits = digits()
    splits = np.where(splits == "train", "extra", splits)

    with pytest.raises(DataError, match="the splits are 'extra', 'test', and none of them is train"):
        choose_rows(table(tmp_path, X, y, splits))


def test_one_image_a_class_trains_and_validates_nothing():
    X, y, _ = digits()
    first = np.unique(y, return_index=True)[1]
    model = fit(Features.from_arrays(X[first], y[first]), "centroid")

    assert (model.report["train"]["n"], model.report["val"], model.calibration) == (10, None, Calibration())


def test_a_class_with_validation_rows_only_is_named_and_left_out(tmp_path):
    """No head can be right there, so that neither the score nor the classes of the model have it."""
    X, y, _ = digits()
    splits = np.where(y == 9, "val", np.where(np.arange(600) % 4 == 0, "val", "train"))
    known_and_unknown = table(tmp_path, X, y, splits)
    model = fit(known_and_unknown, "mlp", settings={"epochs": 5, "early_stopping": True})

    assert model.report["val"]["n"] == ((splits == "val") & (y != 9)).sum()
    assert model.classes == NAMES[:9]
    assert model.predict_proba(known_and_unknown).shape == (600, 9)
    (warning,) = model.report["warnings"]
    assert warning.startswith(f"{(y == 9).sum()} val rows are of class 'nine', which no training row has")


@pytest.mark.parametrize("head", ["logreg", "xgboost", "knn", "centroid", "svm"])
def test_a_class_in_the_middle_that_train_lacks_moves_no_other(tmp_path, head):
    X, y, _ = digits(400)
    splits = np.where((y == 4) | (np.arange(400) % 4 == 0), "test", "train")
    features = table(tmp_path, X, y, splits)
    model = fit(features, head, test=True)
    found = load(model.save(tmp_path / "m.featx")).predict(features)
    tested = (splits == "test") & (y != 4)

    assert "four" not in model.classes
    assert (found[tested] == np.array(NAMES)[y[tested]]).mean() == pytest.approx(model.report["test"]["accuracy"])
    assert model.report["test"]["accuracy"] > 0.8


def test_equal_fits_leave_equal_bytes(features, tmp_path):
    for head in ("logreg", "mlp", "xgboost", "knn"):
        settings = {"epochs": 2} if head == "mlp" else {}
        one, two = (fit(features, head, settings=settings).save(tmp_path / f"{i}.featx").read_bytes() for i in range(2))
        assert one == two


def test_a_setting_of_the_head_among_the_arguments_says_where_it_goes(features):
    with pytest.raises(TypeError, match=r"featx.fit\(\) has no argument 'C'.*settings=\{'C': 1\}"):
        fit(features, "logreg", C=1)
    with pytest.raises(TypeError, match=r"featx.fit\(\) has no argument 'setings'. Did you mean 'settings'\?"):
        fit(features, "logreg", setings={"C": 1})


@pytest.mark.parametrize(
    ("changes", "options", "reason"),
    [
        ({"y": np.full(600, -1)}, {}, "no labels to learn from"),
        ({"y": np.zeros(600, int)}, {}, "at least two classes to train on, got one: 'zero'"),
        ({"splits": np.full(600, "test")}, {}, "No labelled row is left to train on"),
        ({"splits": np.full(600, "train")}, {"test": True}, "--test needs a test split"),
        ({"X": np.full((600, 3), np.nan)}, {}, r"Row 1 \(1\) of the features holds NaN"),
        ({"X": digits(maps=True)[0]}, {"head": "ridge"}, "maps"),
        ({"X": digits(maps=True)[0]}, {"head": "sklearn.svm.SVC"}, "maps"),
    ],
)
def test_tables_that_cannot_be_fitted_are_explained(changes, options, reason):
    with pytest.raises((DataError, OptionError), match=reason):
        fit(in_memory(**changes), **{"head": "ridge", **options})


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"val": "much"}, "--val must be a part between 0 and 1"),
        ({"val": 1.0}, "--val must be a part between 0 and 1"),
        ({"scale": "minmax"}, "--scale must be one of auto, none, standard, l2"),
        ({"head": "logreg", "settings": {"Q": 1}}, "has no setting 'Q'"),
        ({"search": "Q=1,2"}, "no setting 'Q' to search"),
        ({"search": "alpha"}, "--search takes settings"),
        ({"search": "'"}, "quote without its partner"),
        ({"search": " "}, "--search takes settings"),
        ({"search": "alpha=1,2", "val": 0}, "--search chooses on validation rows, and there are none"),
        ({"cv": 1000}, "--cv takes 2 to"),
        ({"head": LogisticHead(), "settings": {"C": 1}}, "settings belong to a head given by name"),
    ],
)
def test_options_that_cannot_be_are_explained(options, reason):
    with pytest.raises(OptionError, match=reason):
        fit(in_memory(), **{"head": "ridge", **options})


def test_an_unknown_head_gets_a_suggestion():
    with pytest.raises(UnknownHeadError, match="Did you mean 'logreg'"):
        fit(in_memory(), "logrge")


def test_logreg_chooses_c_unless_it_is_given(features):
    chosen = fit(features, "logreg", settings=QUICK)
    given = fit(features, "logreg", settings={"C": "0.001"})

    assert chosen.report["chosen"]["C"] == chosen.head.C_
    assert given.report["chosen"] == {}
    assert given.head.C == 0.001
    assert chosen.report["val"]["accuracy"] >= given.report["val"]["accuracy"]


def test_what_a_head_chose_by_itself_is_told_and_what_was_given_is_not(features):
    assert fit(features, "ridge").report["chosen"] == {}
    assert fit(features, "ridge", settings={"alpha": (0.1, 1000.0)}).report["chosen"].keys() == {"alpha"}


def test_search_takes_the_best_on_validation_rows(features):
    model = fit(features, "knn", settings={"weights": "uniform"}, search="k=1,200")
    trials = {t["settings"]["k"]: t["accuracy"] for t in model.report["search"]}

    assert trials[1] > trials[200]
    assert model.report["chosen"] == {"k": 1}
    assert model.head.k == 1
    assert trials[1] == model.report["val"]["accuracy"]


def test_none_is_a_word_among_the_alternatives_of_a_word(features):
    model = fit(features, "mlp", settings={"epochs": "1"}, search="schedule=none,cosine")

    assert [trial["settings"]["schedule"] for trial in model.report["search"]] == ["none", "cosine"]


def test_a_search_may_try_no_penalty_at_all(features, tmp_path):
    model = fit(features, "logreg", search="C=inf", settings={"max_iter": 20})
    again = load(model.save(tmp_path / "m.featx"))

    assert model.report["chosen"] == again.report["chosen"] == {"C": "inf"}
    assert np.isinf(again.head.C)


def test_search_scores_are_those_of_fits_on_train_alone(features):
    model = fit(features, "logreg", search="C=0.0001,0.01,1")

    for trial in model.report["search"]:
        alone = fit(features, "logreg", settings=trial["settings"])
        assert trial["accuracy"] == alone.report["val"]["accuracy"]


def test_folds_report_mean_and_spread_and_choose_in_a_search(features):
    model = fit(features, "knn", cv=3)
    searched = fit(features, "knn", settings={"weights": "uniform"}, cv=3, search="k=1,200")

    assert len(model.report["cv"]["accuracies"]) == model.report["cv"]["k"] == 3
    assert model.report["cv"]["accuracy"] == pytest.approx(np.mean(model.report["cv"]["accuracies"]))
    assert model.report["cv"]["sd"] == pytest.approx(np.std(model.report["cv"]["accuracies"], ddof=1))
    assert searched.report["chosen"] == {"k": 1}
    assert searched.report["cv"]["accuracy"] == max(t["accuracy"] for t in searched.report["search"])


def test_folds_keep_identical_images_together(tmp_path):
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(60, 5)).astype(np.float32), 4, axis=0)
    y = np.repeat(rng.integers(0, 2, 60), 4)
    model = fit(table(tmp_path, X, y, np.full(240, "train")), "knn", settings={"k": 1}, cv=3)

    assert model.report["train"]["accuracy"] == 1
    assert model.report["cv"]["accuracy"] < 0.75  # noise: only a twin in another fold would give it away


def test_any_sklearn_classifier_is_a_head(features):
    by_path = fit(features, "sklearn.neighbors.KNeighborsClassifier", settings={"n_neighbors": "3"}, test=True)
    instance = fit(features, KNeighborsClassifier(3), test=True)

    assert by_path.report["test"] == instance.report["test"]
    assert instance.head_name == "KNeighborsClassifier"
    assert by_path.report["test"]["accuracy"] > 0.9


def test_scaling_and_head_equal_a_plain_sklearn_pipeline(features):
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = choose_rows(features)
    X, y = features.X, features.y
    plain = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, tol=1e-8, max_iter=5000))
    plain.fit(X[rows.train], y[rows.train])
    model = fit(features, "logreg", settings={"C": 0.01, "tol": 1e-7}, scale="standard")

    np.testing.assert_allclose(model.head.coef_, plain[1].coef_, atol=1e-3)
    np.testing.assert_allclose(model.head.intercept_, plain[1].intercept_, atol=1e-2)


def test_refit_learns_from_validation_rows_too(features):
    model = fit(features, "logreg", settings=QUICK, refit=True)
    rows = choose_rows(features)

    assert model.report["refit"] is True
    assert len(model.trained_on) == len(rows.train) + len(rows.val)
    assert model.report["chosen"] == {"C": model.head.C}
    np.testing.assert_allclose(model.scaler.mean_, features[rows.train_and_val].mean(axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("head", ["mlp", "xgboost", "sklearn.ensemble.RandomForestClassifier"])
def test_the_seed_decides(features, head):
    settings = {"epochs": 3} if head == "mlp" else {"n_estimators": 5}
    once, again, other = (
        fit(features, head, settings=settings, seed=seed).predict_proba(features) for seed in (1, 1, 2)
    )

    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, other)


@pytest.mark.parametrize(("head", "settings"), [("logreg", {"C": 0.01}), ("ridge", {}), ("centroid", {})])
def test_a_small_memory_limit_streams_to_the_same_optimum(features, head, settings):
    whole = fit(features, head, settings=settings)
    streamed = fit(features, head, settings=settings, memory="200KB")

    np.testing.assert_allclose(streamed.predict_proba(features), whole.predict_proba(features), atol=2e-3)


def test_heads_that_cannot_stream_say_so(features):
    with pytest.raises(OptionError, match=r"reads the table whole and needs 0\.0 GiB, more than --memory allows"):
        fit(features, "sklearn.svm.SVC", memory="10KB")
    with pytest.raises(OptionError, match="reads the table whole"):
        fit(features, "sklearn.svm.SVC", memory="10KB", cv=3)


def test_searches_and_folds_stream_as_fits_do(features):
    searched = [fit(features, "ridge", search="alpha=1,100", cv=3, memory=size).report for size in (None, "96KiB")]

    assert searched[0]["search"] == searched[1]["search"]


def test_mlp_keeps_its_curves_for_train_and_validation(features):
    history = fit(features, "mlp", settings={"epochs": 3}).report["history"]

    assert len(history["accuracy"]) == len(history["val_accuracy"]) == 3


def test_conv_heads_take_maps(tmp_path):
    X, y, splits = digits(maps=True)
    maps = table(tmp_path, X, y, splits)
    model = fit(maps, "conv", settings={"layers": "conv8 relu max flat 32 relu", "lr": 1e-2, "epochs": 10}, test=True)

    assert model.scaler.kind == "none"
    assert model.report["test"]["accuracy"] > 0.8
    assert fit(maps, "conv", scale="standard", settings={"layers": "conv2 flat", "epochs": 1}).scaler.mean_.shape == (
        1,
        1,
        1,
    )


@pytest.mark.parametrize(
    ("head", "kind"), [("mlp", "standard"), ("knn", "l2"), ("centroid", "l2"), ("xgboost", "none"), ("svm", "standard")]
)
def test_automatic_scaling_suits_the_head(features, head, kind):
    settings = {"epochs": 1} if head == "mlp" else {"n_estimators": 2} if head == "xgboost" else {}

    assert fit(features, head, settings=settings).scaler.kind == kind


def test_standard_scaling_over_blocks_equals_that_of_the_whole():
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(1000, 7)) * [1, 10, 0.1, 1e3, 1, 1, 0] + [0, 5, 100, 1e4, -3, 0, 8]).astype(np.float32)
    scaler = FeatureScaler("standard").fit_blocks([X[:1], X[1:300], X[300:]])

    np.testing.assert_allclose(scaler.mean_, X.mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(scaler.scale_[:-1], X.std(axis=0, dtype=np.float64)[:-1], rtol=1e-5)
    assert scaler.scale_[-1] == 1
    assert np.abs(scaler.transform(X)[:, -1]).max() == 0


def test_l2_scaling_leaves_zeros():
    X = np.array([[3, 4], [0, 0]], np.float32)

    assert FeatureScaler("l2").fit_transform(X).tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0]]


def test_a_scaled_table_is_the_scaled_rows(features):
    scaler = FeatureScaler("standard").fit(features.X)
    scaled = ScaledTable(features, scaler)
    expected = scaler.transform(features.X)

    np.testing.assert_array_equal(scaled.X, expected)
    np.testing.assert_array_equal(scaled[[5, 3]], expected[[5, 3]])
    np.testing.assert_array_equal(scaled.select(np.arange(10, 20)).X, expected[10:20])
    seen = np.empty_like(expected)
    for positions, block in scaled.blocks(10_000, shuffle=True, seed=1):
        seen[positions] = block
    np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize("far", [600.0, 700.0, 740.0])
def test_scores_far_apart_have_a_temperature_without_overflow(far):
    scores = np.array([[0.0, -far], [-far, 0.0]] * 4)
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        assert np.isfinite(Calibration.fit(scores, np.array([0, 1] * 3 + [1, 1])).temperature)


def test_temperature_calms_a_head_that_is_too_sure():
    rng = np.random.default_rng(0)
    true_logits = rng.normal(size=(4000, 5))
    y = (true_logits + rng.gumbel(size=true_logits.shape)).argmax(axis=1)

    scores = true_logits - true_logits.max(axis=1, keepdims=True)
    assert Calibration.fit(scores * 3, y).temperature == pytest.approx(3, rel=0.1)
    assert Calibration.fit(scores / 3, y).temperature == pytest.approx(1 / 3, rel=0.1)


def test_votes_of_zero_do_not_spoil_the_rest(tmp_path):
    X, y, splits = digits(1797)
    rng = np.random.default_rng(0)
    noisy = np.where(rng.random(len(y)) < 0.25, rng.integers(0, 10, len(y)), y)
    features = table(tmp_path, X, noisy, splits)
    model = fit(features, "knn", settings={"k": 10, "weights": "uniform"}, val=0.3)

    # With a temperature alone, which must make room for impossible classes that occur, it is 0.4.
    assert evaluate(model, features).calibration_error < 0.1


@pytest.mark.parametrize("votes", [False, True])
def test_calibration_keeps_the_order_of_all_classes(votes):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(30, 4)) * 4
    scores -= scores.max(axis=1, keepdims=True)

    calibrated = Calibration.fit(scores, scores.argmax(axis=1), votes=votes).probabilities(scores)

    np.testing.assert_array_equal(calibrated.argsort(axis=1), scores.argsort(axis=1))
    assert all(len(set(row)) == 4 for row in calibrated.tolist())


def test_a_few_right_rows_do_not_make_certainty():
    scores = np.array([[0.0, -2.2]] * 5)

    assert Calibration.fit(scores, np.zeros(5, int)).probabilities(scores)[0, 0] < 0.97


def test_a_model_says_in_one_line_what_it_is(features):
    assert re.fullmatch(
        r"<Model: ridge on torchvision/alexnet features avg, 10 classes, val \d+\.\d\d %>", repr(fit(features, "ridge"))
    )


def test_calibration_of_scores_keeps_classes_far_below_the_best_in_order():
    scores = np.array([[0.0, -50.0, -60.0, -900.0]] * 20)
    fitted = Calibration.fit(scores, np.array([0] * 15 + [1] * 5))
    p = fitted.probabilities(scores[:1])[0]

    assert p[0] > p[1] > p[2] > 0


def test_a_refit_keeps_what_was_chosen(features):
    settings = {"early_stopping_rounds": 2, "n_estimators": 120}
    chosen = fit(features, "xgboost", settings=settings).head.best_iteration_
    refitted = fit(features, "xgboost", settings=settings, refit=True).head

    assert chosen < 119
    assert refitted.best_iteration_ == chosen
    ridge = fit(features, "ridge", settings={"alpha": (0.1, 1, 10, 100, 1000)}, refit=True)
    assert ridge.head.alpha_ == ridge.report["chosen"]["alpha"]


def test_settings_that_are_sequences_are_no_obstacle(features):
    fit(features, RidgeHead(alpha=np.logspace(0, 4, 5)))


def test_a_feature_that_hardly_varies_in_few_rows_is_not_blown_up():
    X = np.random.default_rng(0).normal(size=(400, 40)).astype("float32")
    few, all_rows = X[:4], X

    plain, careful = (np.ptp(FeatureScaler("standard", prior=prior).fit(few).scale_) for prior in (0, 10))
    assert careful < plain / 2
    exact, near = (FeatureScaler("standard", prior=prior).fit(all_rows).scale_ for prior in (0, 10))
    np.testing.assert_allclose(near, exact, rtol=0.02)


def test_a_prior_is_of_each_block_by_itself():
    X = np.random.default_rng(0).normal(size=(5, 6)) * np.repeat([1.0, 1000.0], 3)

    together = FeatureScaler("standard", [(3, 1.0), (3, 1.0)], prior=10).fit(X).scale_
    apart = [FeatureScaler("standard", prior=10).fit(part).scale_ for part in (X[:, :3], X[:, 3:])]

    np.testing.assert_allclose(together, np.concatenate(apart))
