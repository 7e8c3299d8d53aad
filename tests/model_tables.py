"""Real tables of scikit-learn's digits, for the tests of models."""

import dataclasses
import hashlib

import numpy as np
from sklearn.datasets import load_digits

from featx.features import Features
from featx.recipe import Frame, Recipe, Request
from featx.store import Store, TableContent

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def recipe_for(shape, **changes):
    """A recipe whose rows have `shape`."""
    fields = {
        "backbone": "torchvision/alexnet",
        "weights": "random-0",
        "weights_digest": "0" * 64,
        "layer": "features",
        "pool": "avg" if len(shape) == 1 else "none",
        "shape": shape,
        "dtype": "float32",
        "precision": "fp32",
        "frame": Frame(height=64, width=64, resize="crop", shorter=64, interpolation="bilinear"),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
    }
    return Recipe(**fields | changes)


def digits(n=600, *, splits=None, y=None, maps=False):
    """Pixels of the first `n` digits as features, every fifth row in the test split."""
    X, labels = load_digits(return_X_y=True)
    X = (X[:n] / 16).astype(np.float32)
    X = X.reshape(-1, 1, 8, 8) if maps else X
    y = labels[:n] if y is None else np.asarray(y)
    splits = np.where(np.arange(len(y)) % 5 == 0, "test", "train") if splits is None else np.asarray(splits)
    return X, y, splits


def table(cache, X, y, splits, *, classes=NAMES, recipe=None, request=None, name="digits", errors=()):
    """Publish rows as a table of the cache and open it."""
    recipe = recipe or recipe_for(X.shape[1:])
    request = request or Request(backbone="alexnet", weights="none", image_size=64)
    item_ids = np.stack([np.frombuffer(hashlib.sha256(row.tobytes()).digest(), np.uint8) for row in X])
    store = Store(cache)
    store.commit(recipe.key, item_ids, X)
    content = TableContent(
        key=recipe.key,
        recipe=recipe.to_json(),
        request=request.to_json(),
        ids=[f"{i:04}.png" for i in range(len(X))],
        item_ids=item_ids,
        y=np.asarray(y, np.int64),
        classes=classes,
        splits=list(splits),
        errors=errors,
    )
    return Features.open(store.publish(name, "alexnet-features-avg", content))


def item_of(number):
    """A content hash of its own for each number."""
    return np.frombuffer(hashlib.sha256(b"%d" % number).digest(), np.uint8)


def beside(*columns, y, splits):
    """Tables in memory of the same rows, one for each array of columns."""
    parts = []
    for layer, X in enumerate(columns):
        own = Features.from_arrays(np.float32(X), y, splits=list(splits))
        ids = np.stack([item_of(row) for row in range(len(y))])
        recipe = recipe_for(own.shape[1:], layer=f"layer{layer}")
        made = {"key": recipe.key, "recipe": recipe.to_json(), "request": Request(layers=(recipe.layer,)).to_json()}
        parts.append(Features(dataclasses.replace(own.whole(), item_ids=ids, **made)))
    return parts
