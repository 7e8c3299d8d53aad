"""Real parts that several test files share."""

import logging

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def logs_as_at_the_start():
    """Commands set featx's log level, compilers switch loggers off: neither may reach the next test."""
    logging.disable(logging.NOTSET)
    for name in ["featx", *logging.root.manager.loggerDict]:
        if name.split(".")[0] == "featx":
            logging.getLogger(name).disabled = False
    logging.getLogger("featx").setLevel(logging.NOTSET)


@pytest.fixture
def photos(tmp_path):
    """A folder of 12 JPEGs of 40 to 62 pixels in three classes: noise tinted blue, green or red."""
    rng = np.random.default_rng(0)
    for channel, name in enumerate(["red", "green", "blue"]):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 120, (40 + 2 * i, 56 + 2 * channel, 3), dtype=np.uint8)
            pixels[..., channel] += 100
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.jpg")
    return tmp_path / "photos"
