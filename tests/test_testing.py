"""Checks that authors of parts of their own run say what is wrong with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from featx.datasets import open_dataset
from featx.errors import DataError, ImageError, OptionError
from featx.testing import check_backbone, check_dataset


class Squares:
    """Five grey squares, one of which cannot be read."""

    def __init__(self, **others):
        self.ids = [f"{k}.png" for k in range(5)]
        self.labels = [0, 1, 0, 1, -1]
        self.classes = ["dark", "light"]
        vars(self).update(others)

    def read(self, i):
        if i == 3:
            raise ImageError("lost")
        return np.full((8, 8), 20 * i, np.uint8)

    def iterate(self, indices):
        for i in indices:
            try:
                yield i, self.read(i)
            except ImageError as error:
                yield i, error


def test_a_dataset_that_keeps_the_contract_passes(tmp_path):
    check_dataset(Squares())
    check_dataset(Squares(stamps=lambda: np.eye(5, 16, dtype=np.uint8)))
    check_dataset(open_dataset("digits"))


drawn = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"ids": [1, 2, 3, 4, 5]}, r"ids must be str, got 1\. Write str\(i\)"),
        ({"ids": list("aabcd")}, "has the id 'a' more than once"),
        ({"ids": []}, "has no rows to check"),
        ({"labels": [0]}, "labels has 1 entries, ids has 5"),
        ({"labels": [0, 1, 2, 0, 0]}, "label 2 is none of the 2 classes"),
        ({"read": lambda _: drawn.integers(0, 255, (8, 8), np.uint8)}, "gave another image the second time"),
        ({"read": lambda _: np.zeros((8, 8))}, "must be uint8 of shape"),
        ({"read": lambda _: "a.png"}, "gave str. Return the bytes of a file"),
        ({"read": lambda i: {}[i]}, r"raised KeyError: 0\. Raise featx\.errors\.ImageError"),
        ({"iterate": lambda rows: ((i, b"") for i in rows[::-1])}, r"yielded rows \[4, 3"),
        ({"iterate": lambda rows: ((i, b"") for i in rows)}, "iterate and read give different images of row 0"),
        ({"iterate": list}, r"must yield \(index, image\) pairs"),
        ({"stamps": lambda: np.zeros((5, 8), np.uint8)}, r"must return uint8 of shape \(5, 16\)"),
        ({"stamps": lambda: np.zeros((5, 16), np.uint8)}, "the same stamp"),
    ],
)
def test_what_is_wrong_is_said(others, message):
    with pytest.raises(DataError, match=message):
        check_dataset(Squares(**others))


def test_an_object_without_a_way_to_read_is_no_dataset():
    with pytest.raises(DataError, match="has no 'read'"):
        check_dataset(type("Nothing", (), {"ids": ["a"], "labels": [None]})())


# networks


class Net(nn.Module):
    """A network that keeps the contract, or breaks it in the way that its name says."""

    def __init__(self, breaks=""):
        super().__init__()
        self.breaks, self.conv = breaks, nn.Conv2d(3, 4, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        maps = self.conv(x)
        if self.breaks == "random":
            return maps + torch.rand_like(maps)
        if self.breaks == "company":
            return maps - maps.mean(0)
        if self.breaks == "infinite":
            return maps / 0
        if self.breaks == "counts":
            self.calls += 1
        return maps


HANDED = {"transform": {"height": 16, "resize": "squash"}}


def test_a_network_that_keeps_the_contract_passes():
    check_backbone(Net(), layers=("conv", "output"), **HANDED)
    check_backbone("squeezenet1_1", image_size=64)


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        ("random", "other features the second time"),
        ("company", "other features when an image comes alone"),
        ("infinite", "numbers that are not finite"),
        ("counts", "changes its weights or buffers"),
    ],
)
def test_a_network_that_breaks_the_contract_is_told_how(breaks, message):
    with pytest.raises(OptionError, match=f"python:Net@check .*{message}"):
        check_backbone(Net(breaks), **HANDED)


def test_a_function_must_build_the_same_network_each_time(tmp_path, monkeypatch):
    code = "import itertools, torch\nn = itertools.count()\ndef net():\n    m = torch.nn.Conv2d(3, 4, 3)\n"
    (tmp_path / "fickle_network.py").write_text(f"{code}    m.bias.data.fill_(next(n))\n    return m\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(OptionError, match="is built with other weights each time"):
        check_backbone("fickle_network:net", image_size=16)
