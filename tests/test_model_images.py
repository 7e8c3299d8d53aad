"""From image files to labels: the same line as extraction, with a model at its end."""

import copy
import dataclasses
import gc
import json
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import featx
from featx import backbones, engines
from featx.errors import DataError, ModelFileError, OptionError, ProbeError, WeightsError
from featx.evaluation import evaluate
from featx.extraction import rows
from featx.images import pool as pool_module
from featx.model import archive, fit, load

HOW = {"workers": 0, "engine": "eager"}
SMALL = {"backbone": "squeezenet1_1", "weights": "none", "image_size": 64, **HOW}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of 12 PNGs in three classes: noise tinted blue, green or red. Nobody changes it."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for channel, name in enumerate(["red", "green", "blue"]):
        (folder / name).mkdir()
        for i in range(4):
            pixels = rng.integers(0, 120, (40, 50, 3), dtype=np.uint8)
            pixels[..., channel] += 100
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def features(photos, tmp_path_factory):
    return featx.extract(photos, cache=tmp_path_factory.mktemp("cache"), **SMALL)


@pytest.fixture(scope="module")
def saved(features, tmp_path_factory):
    return fit(features, "ridge", val=0).save(tmp_path_factory.mktemp("models") / "m.featx")


def changed(model, **fields):
    """The same model, whose one input is made in another way."""
    return dataclasses.replace(model, inputs=(dataclasses.replace(model.inputs[0], **fields),))


def test_images_and_their_table_get_the_same_predictions(photos, features, saved):
    model = load(saved)
    from_images = model.classify(photos, **HOW)
    from_table = model.classify(features)

    assert from_images.ids == tuple(features.ids)
    assert from_images.labels == from_table.labels
    np.testing.assert_allclose(from_images.probabilities, from_table.probabilities, atol=1e-4)


def test_the_colours_are_learned(photos, saved):
    model = load(saved)

    assert model.predict([photos / "red" / "0.png", photos / "blue" / "1.png"], **HOW).tolist() == ["red", "blue"]
    assert model.top([photos / "green" / "3.png"], 1, **HOW)[0][0][0] == "green"


def test_a_bad_image_is_a_row_with_its_reason_and_moves_nobody(photos, features, saved, tmp_path):
    mixed = shutil.copytree(photos, tmp_path / "mixed")
    (mixed / "green" / "1.png").write_bytes(b"no image")
    model = load(saved)
    found = model.classify(mixed, **HOW)
    bad = found.ids.index("green/1.png")

    assert set(found.errors) == {bad}
    assert found.labels[bad] is None
    assert found.to_dict()["predictions"][bad]["error"]
    good = np.arange(12) != bad
    np.testing.assert_allclose(found.probabilities[good], model.predict_proba(features)[good], atol=1e-4)


def test_only_bad_images_are_all_reasons(tmp_path, saved):
    (tmp_path / "x.png").write_bytes(b"")
    found = load(saved).classify([tmp_path / "x.png"], **HOW)

    assert found.labels == (None,)
    assert found.errors[0]


def test_images_that_cannot_be_read_are_an_error_or_masked(photos, saved, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    model, images = load(saved), [photos / "red" / "0.png", tmp_path / "bad.png"]

    for predict in (model.predict, model.predict_proba):
        with pytest.raises(DataError, match=r"1 of 2 images cannot be read, the first at position 1 \(.*bad.png\): "):
            predict(images, **HOW)
        assert predict(images, errors="mask", **HOW).mask.reshape(2, -1).all(axis=1).tolist() == [False, True]
        with pytest.raises(OptionError, match="errors must be one of raise, mask"):
            predict(images, errors="ignore")
        with pytest.raises(TypeError, match=r"batch_sise.*batch_size"):
            predict(images, batch_sise=3)
    assert model.predict(images, errors="mask", **HOW)[0] == "red"


def test_rows_that_a_cache_has_are_not_computed(photos, saved, features, monkeypatch):
    model = load(saved)
    monkeypatch.setattr("featx.backbones.resolve", lambda *_: pytest.fail("the network was loaded"))
    found = model.classify(photos, cache=features.path.parents[1], **HOW)

    np.testing.assert_allclose(found.probabilities, model.predict_proba(features), atol=1e-6)


def test_arrays_and_pillow_images_are_images(photos, saved):
    image = Image.open(photos / "red" / "0.png")
    model = load(saved)

    assert model.predict([image], **HOW).tolist() == ["red"]
    assert model.predict(np.asarray(image)[None], **HOW).tolist() == ["red"]


def test_a_new_photo_in_another_process(photos, saved, tmp_path):
    Image.new("RGB", (50, 40), (200, 30, 30)).save(tmp_path / "photo.png")
    script = (
        "import json, sys; from featx.model import load; "
        "print(json.dumps(load(sys.argv[1]).classify([sys.argv[2]], workers=0, engine='eager').to_dict()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(saved), str(tmp_path / "photo.png")],
        capture_output=True,
        text=True,
        check=True,
    )
    here = load(saved).classify([tmp_path / "photo.png"], **HOW).to_dict()

    assert json.loads(done.stdout)["predictions"][0]["label"] == here["predictions"][0]["label"]


def test_rows_that_were_trained_on_are_left_out_of_the_evaluation(photos, features, saved, tmp_path):
    grown, rng = shutil.copytree(photos, tmp_path / "grown"), np.random.default_rng(7)
    for i in range(3):
        pixels = rng.integers(0, 120, (40, 40, 3), dtype=np.uint8)
        pixels[..., 0] += 100
        Image.fromarray(pixels).save(grown / "red" / f"new{i}.png")
    more = featx.extract(grown, cache=tmp_path / "cache", **SMALL)
    found = evaluate(load(saved), more)

    assert found.accuracy.n == 3
    assert len(found.trained_on) == 12
    assert "red/0.png" in found.trained_on
    with pytest.raises(DataError, match="trained on all 12 rows: nothing is left"):
        evaluate(load(saved), features)


def test_other_weights_are_refused(features, photos, tmp_path):
    model = fit(features, "ridge", val=0)
    other = changed(model, request=dataclasses.replace(model.request, seed=1))

    with pytest.raises(WeightsError, match="other weights here"):
        other.predict(photos, **HOW)


def test_a_machine_that_computes_other_features_is_refused(features, photos):
    model = fit(features, "ridge", val=0)
    drifted = {"pixels": model.probe["pixels"], "features": model.probe["features"] * 1.01}

    with pytest.raises(ProbeError, match="computes other features"):
        changed(model, probe=drifted).predict(photos, **HOW)
    shifted = {"pixels": model.probe["pixels"] ^ 1, "features": model.probe["features"]}
    with pytest.raises(ProbeError, match="other pixels"):
        changed(model, probe=shifted).predict(photos, **HOW)


def test_a_bundled_model_needs_no_weights_elsewhere(photos, tmp_path):
    import torch

    weights = tmp_path / "weights.pth"
    torch.manual_seed(0)
    from torchvision.models import squeezenet1_1

    torch.save(squeezenet1_1().state_dict(), weights)
    table = featx.extract(photos, cache=tmp_path / "cache", **SMALL | {"weights": str(weights)})
    model = fit(table, "ridge", val=0)
    expected = model.predict_proba(photos, **HOW)
    lean, whole = model.save(tmp_path / "lean.featx"), model.save(tmp_path / "whole.featx", bundle=True)
    weights.unlink()

    np.testing.assert_allclose(load(whole).predict_proba(photos, **HOW), expected, atol=1e-6)
    assert load(whole).save(tmp_path / "again.featx").read_bytes() == whole.read_bytes()
    with pytest.raises(featx.FeatxError, match="No weights file at"):
        load(lean).predict(photos, **HOW)
    assert "network.safetensors" not in archive.read(lean)


def test_a_bundled_model_keeps_the_preprocessing_of_its_weights(photos, tmp_path):
    import torch
    from torchvision.models import mobilenet_v2

    # Torchvision's name for weights that go with a resize to 256; its default for this network is 232.
    weights = tmp_path / "mobilenet_v2-b0353104.pth"
    torch.manual_seed(0)
    torch.save(mobilenet_v2().state_dict(), weights)
    how = {**SMALL, "backbone": "mobilenet_v2", "weights": str(weights), "image_size": None}
    table = featx.extract(photos, cache=tmp_path / "cache", **how)
    model = fit(table, "ridge", val=0)
    expected = model.predict_proba(photos, **HOW)
    path = model.save(tmp_path / "m.featx", bundle=True)
    weights.unlink()

    assert (table.recipe.weights, table.recipe.frame.shorter) == ("IMAGENET1K_V1", 256)
    np.testing.assert_allclose(load(path).predict_proba(photos, **HOW), expected, atol=1e-6)


@pytest.mark.parametrize("has_probe", [True, False])
def test_a_converted_network_that_computes_something_else_is_left(features, photos, saved, tmp_path, has_probe):
    """What tells is the probe: without one, nothing converted is opened."""
    plain = load(saved)
    whole = load(plain.save(tmp_path / "whole.featx", bundle=True))
    weights = np.frombuffer(whole.network.converted["network.bin"], np.float32).copy()
    weights[::7] *= 1.5
    network = dataclasses.replace(whole.network, converted=whole.network.converted | {"network.bin": weights.tobytes()})
    changed_network = dataclasses.replace(whole, network=network)
    model = changed_network if has_probe else changed(changed_network, probe={})
    photo = [photos / "red" / "0.png"]

    found = model.predict_proba(photo, workers=0)
    np.testing.assert_allclose(found, plain.predict_proba(photo, **HOW), atol=1e-4)


def test_weights_that_changed_cannot_be_bundled(features, tmp_path):
    model = fit(features, "ridge", val=0)
    other = changed(model, request=dataclasses.replace(model.request, seed=1))

    with pytest.raises(ModelFileError, match="no longer those that the model was fitted on"):
        other.save(tmp_path / "m.featx", bundle=True)


def test_one_of_several_layers_predicts_from_images(photos, tmp_path):
    tables = featx.extract(photos, layer=["features.5", "features.12"], cache=tmp_path / "cache", **SMALL)
    model = fit(tables[0], "ridge", val=0)

    assert model.request.layers == (tables[0].recipe.layer,)
    np.testing.assert_allclose(model.predict_proba(photos, **HOW), model.predict_proba(tables[0]), atol=1e-4)
    with pytest.raises(
        DataError, match=r"Make the matching table: featx extract DATA --backbone squeezenet1_1 --layer"
    ):
        model.predict(tables[1])


def test_the_command_for_a_matching_table_is_the_models_request(features):
    model = fit(features, "ridge", val=0)
    again = featx.Request(**model.extract_options())

    assert again == model.request


def test_the_network_stays_open_from_call_to_call(photos, saved, monkeypatch):
    model, image = load(saved), photos / "red" / "0.png"
    first = model.predict_proba([image], **HOW)

    def closed(*_, **__):
        raise AssertionError("the network was loaded once more")

    monkeypatch.setattr(backbones, "resolve", closed)
    monkeypatch.setattr(engines, "open_engine", closed)
    assert np.array_equal(model.predict_proba([image], **HOW), first)
    with pytest.raises(AssertionError, match="once more"):  # it was opened for another batch size
        model.predict_proba([image], batch_size=2, **HOW)
    with pytest.raises(AssertionError, match="once more"):  # and by this model alone
        load(saved).predict_proba([image], **HOW)


def test_a_job_more_than_twice_as_long_may_be_worth_another_engine(photos, saved, monkeypatch):
    asked = []
    opened = engines.open_engine

    def watched(*args, **options):
        asked.append(options["n_images"])
        return opened(*args, **{**options, "engine": "eager"})

    monkeypatch.setattr(engines, "open_engine", watched)
    monkeypatch.setattr(rows, "FEW_IMAGES", 1)
    model, images = load(saved), sorted(photos.glob("*/*"))
    for n in (2, 1, 3, 5, 5):
        model.predict(images[:n], workers=0)

    assert asked == [2, 5]


def test_one_image_costs_the_network_one_image(photos, saved, monkeypatch):
    seen, opened = [], engines.open_engine

    def watched(*args, **options):
        engine = opened(*args, **options)
        compute = engine._compute
        engine._compute = lambda pixels: seen.append(len(pixels)) or compute(pixels)
        return engine

    model, images = load(saved), sorted(photos.glob("*/*"))
    model.predict_proba(images[:1])
    monkeypatch.setattr(engines, "open_engine", watched)
    model = load(saved)
    together = model.predict_proba(images[:5])
    del seen[:]
    alone = [model.predict_proba([image]) for image in images[:5]]
    model.predict_proba(images[:3])

    assert seen == [1, 1, 1, 1, 1, 4]
    np.testing.assert_allclose(np.concatenate(alone), together, atol=1e-5)


def test_one_decoder_stays_from_call_to_call_and_goes_with_the_model(photos, saved, monkeypatch):
    started, decoder = [], pool_module.Decoder
    monkeypatch.setattr(
        pool_module, "Decoder", lambda *args, **how: started.append(decoder(*args, **how)) or started[-1]
    )
    model, images = load(saved), sorted(photos.glob("*/*"))
    for image in images[:3]:
        model.predict_proba([image])
    assert len(started) == 1
    process = started[0].process
    assert process.poll() is None
    del model
    gc.collect()

    assert process.wait(timeout=30) is not None


def test_a_model_that_has_predicted_can_be_pickled_and_copied(photos, saved):
    model, image = load(saved), photos / "blue" / "0.png"
    before = model.predict_proba([image], **HOW)
    again = pickle.loads(pickle.dumps(copy.deepcopy(model)))

    assert np.array_equal(again.predict_proba([image], **HOW), before)


def test_threads_take_turns(photos, saved):
    model, images = load(saved), sorted(photos.glob("*/*"))
    expected = [model.predict_proba([image], **HOW) for image in images]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda image: model.predict_proba([image], **HOW), images))

    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
