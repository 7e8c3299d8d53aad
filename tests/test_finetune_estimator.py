"""`FineTuneClassifier` inside scikit-learn: cloning, pickling, cross-validation, and any kind of label."""

import inspect
import pickle
import warnings

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import check_estimator

import featx
from featx import FineTuneClassifier
from featx.errors import DataError, OptionError


@pytest.fixture
def classifier():
    return FineTuneClassifier(
        "scratch/leaky", weights="none", image_size=8, head_layers="flat", lr=3e-3, epochs=4, batch_size=8, workers=0
    )


@pytest.fixture(scope="module")
def images():
    """30 images of 10×10 pixels: noise tinted red, green or blue."""
    rng = np.random.default_rng(0)
    colours = np.arange(30) % 3
    pixels = rng.integers(0, 100, (30, 10, 10, 3), dtype=np.uint8)
    pixels[np.arange(30), :, :, colours] += 150
    return pixels, colours


def test_it_passes_the_checks_that_its_input_type_allows(classifier):
    """scikit-learn's suite feeds numeric tables (n, d), which are no images; what is left of it must pass."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Can't test estimator FineTuneClassifier")
        results = check_estimator(classifier, on_fail="raise", on_skip=None)

    assert {result["status"] for result in results} == {"passed"}


def test_labels_of_any_kind_come_back(classifier, images):
    pixels, colours = images
    for labels in (colours * 10 - 5, np.array(["red", "green", "blue"])[colours]):
        classifier.fit(pixels, labels)

        assert classifier.classes_.tolist() == sorted(set(labels.tolist()))
        assert classifier.score(pixels, labels) > 0.9
        assert classifier.predict_proba(pixels).shape == (30, 3)
        assert classifier.predict(pixels).dtype == labels.dtype


def test_paths_and_pil_images_are_taken_too(classifier, images, tmp_path):
    pixels, colours = images
    paths = [tmp_path / f"{i}.png" for i in range(30)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    expected = classifier.fit(pixels, colours).predict_proba(pixels)

    np.testing.assert_allclose(classifier.predict_proba(paths), expected, rtol=1e-6)
    np.testing.assert_allclose(classifier.predict_proba([Image.open(path) for path in paths]), expected, rtol=1e-6)
    (tmp_path / "0.png").write_text("no image")
    with pytest.raises(DataError, match="1 of 30 images cannot be read; row 0: not an image"):
        classifier.predict(paths)


def test_cross_validation_clones_and_pickles_behave_alike(classifier, images):
    pixels, colours = images
    assert cross_val_score(classifier, pixels, colours, cv=2).mean() > 0.5

    expected = classifier.fit(pixels, colours).predict_proba(pixels)
    np.testing.assert_array_equal(clone(classifier).fit(pixels, colours).predict_proba(pixels), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(classifier)).predict_proba(pixels), expected)
    assert len(classifier.history_["val_loss"]) == 4


def test_predict_before_fit_says_so(classifier):
    with pytest.raises(NotFittedError):
        classifier.predict(["a.jpg"])


def test_function_estimator_and_command_take_the_same_settings():
    """An option is named at its field alone; what is missing on one of the three was left out on purpose."""
    from featx.cli.compare import compare
    from featx.cli.finetune import finetune as command

    function = set(inspect.signature(featx.finetune).parameters)
    estimator = set(FineTuneClassifier().get_params())
    typed = {option.name for option in command.params}
    prefixed = {option.name.removeprefix("ft_") for option in compare.params if option.name.startswith("ft_")}

    assert typed - {"output", "as_json", "quiet", "verbose", "debug", "threads"} == function - {
        "labels", "groups", "items", "slots", "times", "checkpoint", "on_progress"
    }  # fmt: skip
    assert function - estimator == {
        "data", "labels", "images", "image_column", "label_column", "split_column", "allow_outside", "name",
        "groups", "group_column", "group_regex", "group_by", "label_separator", "task",
        "items", "item_column", "item_by", "slots", "slot_column", "times", "time_column",
        "max_errors", "test", "resume", "checkpoint", "checkpoint_minutes", "on_progress",
    }  # fmt: skip
    assert estimator <= function
    assert prefixed == estimator - {"backbone", "seed", "device", "workers", "cache", "val"} | {"shots"}


def test_parameters_are_checked_when_fitting_and_not_before(images):
    pixels, colours = images
    classifier = FineTuneClassifier("scratch/leaky", weights="none", optimizer="adagrad")

    with pytest.raises(OptionError, match="--optimizer must be one of adamw, adam, adamax, sgd"):
        classifier.fit(pixels, colours)
    with pytest.raises(TypeError, match="Did you mean 'epochs'"):
        FineTuneClassifier(epoch=3)
