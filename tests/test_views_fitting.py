"""Heads learn from all views of training images; all else looks at the images as they are, unless told to average."""

import json

import numpy as np
import pytest
from test_views import SMALL, run

import featx
from featx.cli import main
from featx.errors import DataError, ModelFileError, OptionError
from featx.features import Features
from featx.heads import make_head
from featx.model.fitter import HeadFitter
from featx.model.fitting import fit
from featx.model.manifest import Manifest
from featx.model.report import FitReport
from featx.model.rows import Parts, choose_rows
from featx.model.scaling import FeatureScaler

N = 60


@pytest.fixture(scope="module")
def images():
    """Sixty images of noise, tinted by their class."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 200, (N, 24, 24, 3), dtype=np.uint8)
    pixels[np.arange(N), ..., np.arange(N) % 3] += 20
    return pixels


@pytest.fixture(scope="module")
def source(images, tmp_path_factory):
    """The images as a file, without splits."""
    path = tmp_path_factory.mktemp("data") / "images.npz"
    np.savez(path, X=images, y=np.arange(N) % 3)
    return path


@pytest.fixture(scope="module")
def table(source, tmp_path_factory):
    """Three views of each of the sixty."""
    return run(source, tmp_path_factory.mktemp("cache"), 3, "flip,crop=2", batch_size=20).tables[0]


def test_a_head_is_fitted_on_all_views_of_the_training_rows(table):
    rows = choose_rows(table)
    stacked = np.concatenate([table.view(number)[rows.train] for number in range(3)])
    expected = fit(
        Features.from_arrays(stacked, np.tile(table.y[rows.train], 3)), "ridge", settings={"alpha": 1}, val=0
    )

    model = fit(table, "ridge", settings={"alpha": 1})

    np.testing.assert_allclose(model.head.coef_, expected.head.coef_, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model.scaler.mean_, expected.scaler.mean_, rtol=1e-5)


def test_the_report_counts_images_and_says_how_many_views(table):
    report = fit(table, "logreg", cv=3).report

    assert (report["views"], report["augment"]) == (3, "flip,crop=2")
    assert report["train"]["n"] + report["val"]["n"] == N
    assert len(fit(table, "ridge", refit=True).trained_on) == N


def test_fewer_views_may_be_used_than_there_are(table):
    splits = np.where(np.isin(np.arange(N), choose_rows(table).val), "val", "train")
    plain = Features.from_arrays(table.X, table.y, splits=splits)
    one, two = fit(table, "ridge", views=1), fit(table, "ridge", views=2)

    np.testing.assert_array_equal(one.head.coef_, fit(plain, "ridge").head.coef_)
    assert (one.views, one.report["views"], one.report["augment"]) == (None, 1, None)
    assert (two.views.n, two.report["views"]) == (2, 2)


@pytest.mark.parametrize(("n", "error"), [(4, DataError), (0, OptionError)])
def test_views_that_are_not_there_are_refused(table, n, error):
    with pytest.raises(error, match="views"):
        fit(table, "ridge", views=n)


def test_the_table_of_one_view_is_no_table_to_fit_on(table):
    (path,) = table.path.parent.glob("*-view1-*.h5")

    with pytest.raises(DataError, match="holds an augmented view"):
        fit(path, "ridge")


def test_a_table_without_views_says_how_to_add_them(table):
    with pytest.raises(OptionError, match="featx extract DATA --views 4"):
        fit(Features.from_arrays(table.X, table.y), "ridge", views=4)


def test_a_head_that_draws_folds_itself_keeps_the_views_of_an_image_together():
    """Random labels of random rows, each there six times: whoever has seen a row knows its label."""
    rng, n = np.random.default_rng(0), 60
    origin = np.tile(np.arange(n), 6)
    rows, labels = rng.standard_normal((n, 40)).astype(np.float32), rng.permutation(np.arange(n) % 2)
    fitter = HeadFitter(Features.from_arrays(rows[origin], labels[origin]), FeatureScaler("none"), "", None, 0, origin)
    head = fitter.fit(make_head("logreg-cv", Cs=5), np.arange(n), np.arange(0)).head

    assert head.scores_.mean(0).max() < 0.75


def folded(rows, labels, origin):
    """Accuracy of the nearest neighbour over four folds of the plain rows, which come first."""
    fitter = HeadFitter(Features.from_arrays(rows, labels[origin]), FeatureScaler("none"), "knn", None, 0, origin)
    nobody = np.arange(0)
    return fitter.try_settings(featx.KNNHead(k=1), Parts(np.arange(len(labels)), nobody, nobody), None, 4).cv.score


def test_no_view_of_an_image_is_on_the_other_side_of_a_fold():
    """Labels are drawn at random: a view of the image on the other side would give every one of them away."""
    random = np.random.default_rng(1)
    rows, labels, origin = random.normal(size=(200, 16)), random.integers(0, 2, 200), np.tile(np.arange(200), 3)

    assert folded(rows[origin] + 1e-3 * random.normal(size=(600, 16)), labels, origin) < 0.7


def test_folds_learn_from_all_views_and_are_scored_on_plain_rows():
    """A view lies where the other class is: who learns from views is misled by them, about plain rows alone."""
    labels, origin = np.arange(40) % 2, np.tile(np.arange(40), 2)
    plain, views = np.eye(2)[labels], np.eye(2)[1 - labels]

    rows = np.concatenate([np.hstack([plain, np.eye(40)]), np.hstack([views, np.zeros((40, 40))])])

    assert folded(rows, labels, origin) == 0
    assert folded(rows[:40], labels, origin[:40]) == 1


def test_what_a_view_gives_away_is_not_counted_as_learned():
    """Labels are drawn at random: nothing can be learned, but the nearest row is another view of the same image."""
    random = np.random.default_rng(1)
    rows, labels, origin = random.normal(size=(200, 16)), random.integers(0, 2, 200), np.tile(np.arange(200), 3)
    views = rows[origin] + 1e-3 * random.normal(size=(600, 16))
    train = np.arange(0, 200, 2)
    fitter = HeadFitter(Features.from_arrays(views, labels[origin]), FeatureScaler("l2"), "knn", None, 0, origin)

    fitted = fitter.fit(featx.KNNHead(k=1), train, train[:0])

    assert fitted.accuracy(train).value == 1
    assert fitted.train_accuracy(train, 0).value < 0.7


def test_views_of_a_table_larger_than_memory_are_streamed(table):
    whole, streamed = fit(table, "ridge"), fit(table, "ridge", memory=1 << 16)

    np.testing.assert_allclose(streamed.head.coef_, whole.head.coef_, rtol=1e-3, atol=1e-5)


def test_a_search_chooses_on_plain_validation_rows(table):
    report = fit(table, "ridge", search="alpha=1,100").report

    assert report["val"]["accuracy"] == max(trial["accuracy"] for trial in report["search"])


# Averaging over views


def test_averages_over_the_views_of_images_equal_those_over_cached_views(table, images):
    model = fit(table, "ridge")

    cached = model.classify(table, tta=True)
    fresh = model.classify(images, tta=True, workers=0, engine="eager")

    np.testing.assert_allclose(fresh.probabilities, cached.probabilities, atol=1e-5)
    np.testing.assert_allclose(
        cached.probabilities, np.mean([model.classify(table.view(v)).probabilities for v in range(3)], axis=0)
    )
    assert np.abs(cached.probabilities - model.classify(table).probabilities).max() > 1e-3


def test_the_average_of_an_image_does_not_depend_on_its_neighbours(table, images):
    model = fit(table, "ridge")
    how = {"tta": True, "workers": 0, "engine": "eager"}

    together = model.predict_proba(images[:6], **how)

    np.testing.assert_allclose(model.predict_proba(images[[4, 1]], **how), together[[4, 1]], atol=1e-6)


def test_a_bad_image_has_its_reason_and_no_average(table, images, tmp_path):
    from PIL import Image

    (tmp_path / "bad.png").write_text("no image")
    Image.fromarray(images[0]).save(tmp_path / "good.png")

    found = fit(table, "ridge").classify(tmp_path, tta=True, workers=0, engine="eager")

    assert (list(found.errors), np.isnan(found.probabilities).any(axis=1).tolist()) == ([0], [True, False])


def test_a_saved_model_remembers_its_views(table, images, tmp_path):
    model = fit(table, "ridge")
    loaded = featx.load(model.save(tmp_path / "m.featx"), allow_code=True)
    how = {"tta": True, "workers": 0, "engine": "eager"}

    assert loaded.views == model.views
    np.testing.assert_array_equal(loaded.predict_proba(images[:4], **how), model.predict_proba(images[:4], **how))


@pytest.mark.parametrize(
    "views",
    [
        {"n": 1, "augment": "flip", "seed": 0},
        {"n": 10**9, "augment": "flip", "seed": 0},
        {"n": 3, "augment": "", "seed": 0},
        {"n": 3, "augment": "crop=999999", "seed": 0},
        {"n": 3, "augment": "light", "seed": 0},
        {"n": 3, "augment": "flip", "seed": "0"},
        {"n": 3, "augment": "flip"},
    ],
)
def test_views_in_a_model_file_are_not_believed(table, views):
    model = fit(table, "ridge")
    card = Manifest(
        featx="0",
        inputs=(),
        classes=model.classes,
        scale="none",
        head_name="ridge",
        head={},
        calibration=model.calibration,
        report=FitReport(),
        views=model.views,
    )
    fields = json.loads(card.to_json({}))
    assert Manifest.from_json(json.dumps(fields).encode(), {}).views == model.views

    with pytest.raises((ModelFileError, OptionError)):
        Manifest.from_json(json.dumps(fields | {"views": views}).encode(), {})


def test_averaging_without_views_is_refused(table, images):
    plain = fit(table, "ridge", views=1)
    with pytest.raises(OptionError, match="featx extract DATA --views 4"):
        plain.classify(images, tta=True)

    class_of_its_own = Features.from_arrays(table.X, table.y)
    with pytest.raises(DataError, match="60 of the table's 60 rows have none"):
        fit(class_of_its_own, "ridge").classify(class_of_its_own, tta=True)


# Commands


def command(capsys, *words):
    code = main([*map(str, words), "--json", "-q"])
    out = capsys.readouterr().out
    return code, json.loads(out)


@pytest.fixture
def network_words():
    words = ["--backbone", SMALL.backbone, "--backbone-version", "1", "--weights", "none", "--image-size", "24"]
    return [*words, "--engine", "eager", "--workers", "0"]


def test_commands_go_from_views_to_averages(source, images, network_words, tmp_path, capsys):
    cache = ["--cache", tmp_path / "cache"]
    views = ["--views", "3", "--augment", "flip,crop=2"]
    model = tmp_path / "m.featx"
    np.savez(tmp_path / "new.npz", X=images[:5])

    _, planned = command(capsys, "extract", source, *network_words, *views, *cache, "--dry-run")
    _, done = command(capsys, "extract", source, *network_words, *views, *cache)
    _, again = command(capsys, "extract", source, *network_words, *views, *cache)
    _, fitted = command(capsys, "fit", "--head", "ridge", "-o", model, *cache)
    _, one = command(capsys, "fit", "--head", "ridge", "--views", "1", "-o", tmp_path / "one.featx", *cache)
    _, plain = command(capsys, "fit", source, *network_words, "--head", "ridge", "-o", tmp_path / "p.featx", *cache)
    how = ["--allow-code", "--engine", "eager", "--workers", "0", *cache]
    code, found = command(capsys, "predict", model, tmp_path / "new.npz", "--tta", *how)

    assert (planned["to_compute"], done["computed"], done["views"], again["computed"]) == (3 * N, 3 * N, 3, 0)
    assert (fitted["views"], one["views"], plain["views"]) == (3, 1, 1)
    assert (code, len(found["predictions"])) == (0, 5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["extract", "digits", "--views", "4"], "--augment flip,rotate=2"),
        (["extract", "digits", "--augment", "flip"], "--views 4"),
        (["extract", "digits", "--views", "4", "--augment", "flp"], "Did you mean 'flip'"),
        (["fit", "--augment", "flip"], "--augment makes views of DATA"),
        (["fit", "--protocol", "clip-lp", "--views", "2"], "--protocol decides what --views is for"),
    ],
)
def test_mistakes_are_answered_in_one_line(words, message, tmp_path, capsys):
    code, answer = command(capsys, *words, "--cache", tmp_path / "cache")

    assert code == 1
    assert message in answer["error"]["message"]
    assert "\n" not in answer["error"]["message"]
