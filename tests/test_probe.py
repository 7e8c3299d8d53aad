"""The probe: other pixels or other features are noticed, rounding is not."""

import io

import numpy as np
import pytest
from PIL import Image

from featx import backbones, probe
from featx.engines import open_engine
from featx.errors import ProbeError
from featx.recipe import Frame, Request

FRAME = Frame(height=32, width=32, resize="squash", shorter=0, interpolation="bilinear")


def prepare(data, frame):
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return np.array(image.resize((frame.width, frame.height), Image.Resampling.BILINEAR))


def drawn():
    """The arrays that the built-in images were encoded from."""
    y, x = np.mgrid[0:48, 0:64]
    waves = np.stack([x * 4 % 256, (x * y) % 256, 255 * ((x // 4 + y // 4) % 2)], -1).astype(np.uint8)
    y, x = np.mgrid[0:288, 0:250]
    disc = 255 * (((x - 125) ** 2 + (y - 140) ** 2) < 8000)
    photo = np.stack([127 + 120 * np.sin(x / 40 + y / 60), disc, 255 * x / 249], -1).astype(np.uint8)
    y, x = np.mgrid[0:57, 0:33]
    alpha = 255 * (x > y / 2) * (1 - y / 80)
    glass = np.stack([x * 7 % 256, y * 4 % 256, (x + y) * 2 % 256, alpha], -1).astype(np.uint8)
    y, x = np.mgrid[0:40, 0:90]
    turned = (127 + 127 * np.cos(x * x / 200 + y / 9)).astype(np.uint8)
    return {"waves": waves, "photo": photo, "glass": glass, "turned": turned}


class Averages:
    """An engine whose features are the mean colour."""

    def __init__(self, shift=0.0):
        self.shift = shift

    def run(self, pixels):
        return [(pixels.mean((1, 2)) * (1 + self.shift)).astype(np.float32)]


def measured(shift=0.0, prepare=prepare):
    return probe.measure(prepare, Averages(shift), FRAME)[0]


def test_the_images_are_what_their_code_draws():
    for name, array in drawn().items():
        image = Image.open(io.BytesIO(probe.PROBE[name]))
        distance = np.abs(np.asarray(image, float) - array)

        assert image.mode == {"glass": "RGBA", "turned": "L"}.get(name, "RGB")
        assert distance.max() == 0 if image.format == "PNG" else distance.mean() < 6
    assert Image.open(io.BytesIO(probe.PROBE["turned"])).getexif()[0x0112] == 6


def test_the_same_machine_passes():
    stored = measured()

    assert stored["pixels"].shape == (4, 32)
    assert stored["pixels"].dtype == np.uint8
    assert stored["features"].shape == (4, 3)
    probe.compare(stored, measured(), "fp32")


def test_one_grey_level_in_one_image_is_noticed_and_named():
    def drifted(data, frame):
        pixels = prepare(data, frame)
        if data == probe.PROBE["glass"]:
            pixels[3, 4, 1] ^= 1
        return pixels

    with pytest.raises(ProbeError, match="other pixels of the probe images glass than.*--refresh"):
        probe.compare(measured(), measured(prepare=drifted), "fp32")


@pytest.mark.parametrize(("precision", "allowed", "refused"), [("fp32", 9e-5, 1.1e-4), ("bf16", 1.9e-2, 2.1e-2)])
def test_features_may_differ_by_rounding_and_no_more(precision, allowed, refused):
    probe.compare(measured(), measured(allowed), precision)
    with pytest.raises(ProbeError, match="other features than those of the table.*--refresh"):
        probe.compare(measured(), measured(refused), precision)


@pytest.mark.parametrize("features", [np.full((4, 3), np.nan), np.zeros((4, 5)), np.zeros((4, 3))])
def test_features_that_are_not_comparable_are_refused(features):
    with pytest.raises(ProbeError):
        probe.compare(measured(), measured() | {"features": features}, "fp32")


def test_a_probe_of_another_number_of_images_is_refused():
    stored = {name: rows[:2] for name, rows in measured().items()}

    with pytest.raises(ProbeError):
        probe.compare(stored, measured(), "fp32")


def test_each_recipe_of_an_engine_has_its_features():
    backbone, recipes = backbones.resolve(
        Request(backbone="timm/test_resnet", weights="none", layers=("layer1", "layer4"), image_size=32)
    )
    results = probe.measure(prepare, open_engine(backbone, recipes, engine="eager", device="cpu"), recipes[0].frame)

    assert [result["features"].shape for result in results] == [(4, *recipe.shape) for recipe in recipes]
    for stored, again in zip(results, results, strict=True):
        probe.compare(stored, again, "fp32")
