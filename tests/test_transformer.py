"""`FeatureExtractor` inside scikit-learn: pipelines, cross-validation, cloning, and one forward pass an image, ever."""

import pickle
import warnings

import numpy as np
import pytest
from PIL import Image
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

import featx
from featx import CentroidHead, FeatureExtractor, LogisticHeadCV
from featx.errors import DataError, OptionError


@pytest.fixture
def extractor(tmp_path):
    return FeatureExtractor(image_size=32, cache=tmp_path / "cache", workers=0, engine="eager")


def paths_and_labels(photos):
    paths = sorted(str(path) for path in photos.rglob("*.jpg"))
    return paths, [path.split("/")[-2] for path in paths]


def test_it_passes_the_checks_that_its_input_type_allows(extractor):
    """scikit-learn's suite feeds numeric tables (n, d), which are no images; what is left of it must pass."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Can't test estimator FeatureExtractor")
        results = check_estimator(extractor, on_fail="raise", on_skip=None)

    assert {result["status"] for result in results} == {"passed"}


def test_paths_pil_images_and_arrays_give_the_same_rows(extractor, photos):
    paths, _ = paths_and_labels(photos)
    images = [Image.open(path) for path in paths]

    from_paths = extractor.fit_transform(paths)
    from_images = extractor.transform(images)
    from_array = extractor.transform(np.stack([np.asarray(images[0])] * 2))

    assert from_paths.shape == (12, 1280)
    np.testing.assert_array_equal(from_images, from_paths)
    np.testing.assert_array_equal(from_array, from_paths[[0, 0]])


def test_rows_equal_those_of_extract(extractor, photos, tmp_path):
    table = featx.extract(photos, image_size=32, cache=tmp_path / "other", workers=0, engine="eager")

    rows = extractor.fit_transform([photos / name for name in table.ids])

    np.testing.assert_array_equal(rows, table.X)


def test_cross_validation_and_grid_search_run_each_image_once(extractor, photos, monkeypatch):
    from featx.engines import Engine

    forwards = []
    run = Engine.run
    monkeypatch.setattr(Engine, "run", lambda self, pixels: forwards.append(len(pixels)) or run(self, pixels))
    paths, labels = paths_and_labels(photos)
    pipe = make_pipeline(extractor, CentroidHead())

    scores = cross_val_score(pipe, paths, labels, cv=2)
    after_first = len(forwards)
    search = GridSearchCV(pipe, {"centroidhead__metric": ["cosine", "euclidean"]}, cv=2).fit(paths, labels)

    assert scores.mean() > 0.5
    assert search.best_score_ > 0.5
    assert after_first > 0
    assert len(forwards) == after_first


def test_clones_and_pickles_behave_alike(extractor, photos):
    paths, _ = paths_and_labels(photos)
    rows = extractor.fit_transform(paths)

    np.testing.assert_array_equal(clone(extractor).fit_transform(paths), rows)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(extractor)).transform(paths), rows)


def test_feature_names_tell_layer_and_place(extractor, photos):
    paths, _ = paths_and_labels(photos)
    extractor.fit(paths)

    names = extractor.get_feature_names_out()

    assert len(names) == extractor.n_features_out_ == 1280
    assert len(set(names)) == 1280


def test_an_image_that_cannot_be_read_is_an_error_that_names_row_and_reason(extractor, photos):
    paths, _ = paths_and_labels(photos)
    (photos / "red" / "bad.jpg").write_text("no image")

    with pytest.raises(DataError, match=r"1 of 2 images cannot be read; row 1: not an image"):
        extractor.fit(paths).transform([paths[0], str(photos / "red" / "bad.jpg")])


def test_transform_before_fit_says_so(extractor):
    with pytest.raises(NotFittedError):
        extractor.transform(["a.jpg"])


def test_several_layers_are_refused_with_what_to_use(extractor):
    with pytest.raises(OptionError, match=r"featx\.extract"):
        extractor.set_params(layer=["a", "b"]).fit(["a.jpg"])


def test_groups_and_weights_reach_the_head_behind_it(extractor, photos):
    """Folds by group cannot be drawn without groups, so that each fit says whether they arrived."""
    paths, labels = paths_and_labels(photos)
    head = LogisticHeadCV(Cs=2, cv=GroupKFold(2), max_iter=20)
    told = {"groups": np.arange(12) // 2, "sample_weight": np.ones(12)}
    with config_context(enable_metadata_routing=True):
        head.set_fit_request(groups=True, sample_weight=True).set_score_request(sample_weight=True)
        pipe = make_pipeline(extractor, head)

        found = cross_validate(pipe, paths, labels, cv=GroupKFold(2), params=told, error_score="raise")
        with pytest.raises(ValueError, match="groups"):
            pipe.fit(paths, labels, sample_weight=told["sample_weight"])

    assert len(found["test_score"]) == 2


def test_pandas_gets_a_column_for_each_value(extractor, photos):
    paths, _ = paths_and_labels(photos)

    frame = extractor.set_output(transform="pandas").fit_transform(paths[:2])

    assert list(frame.columns) == list(extractor.get_feature_names_out())
    assert frame.shape == (2, 1280)
