"""Checks that authors of parts of their own run say what is wrong with them."""

from __future__ import annotations

import numpy as np
import pytest

from featx.datasets import open_dataset
from featx.errors import DataError, ImageError
from featx.testing import check_dataset


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
