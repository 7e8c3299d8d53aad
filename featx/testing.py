"""Checks that authors of datasets and networks run on their own: whether these keep what extraction relies on.

To be called in a test: ``featx.testing.check_dataset(MyDataset("photos/"))``, ``check_backbone(MyNetwork())``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from featx.datasets import item_id, open_dataset
from featx.errors import DataError, ImageError, OptionError
from featx.images import decode
from featx.recipe import Request

#: Bytes that tell whether an image's file has changed.
_STAMP_BYTES = 16


def check_dataset(dataset: Any, *, n_images: int = 20) -> None:
    """Check that a dataset of one's own class gives what `featx.extract` asks of it.

    It has `ids` and `labels` of one length and ``read(i)``; `classes`, `splits`, `name`, ``iterate(indices)`` and
    ``stamps()`` are used where it has them. An image is the bytes of a file, or uint8 pixels (h, w), (h, w, 1|3|4), and
    always the same one; ``read`` raises an `ImageError` or an `OSError` for one that cannot be read.

    Parameters
    ----------
    dataset : object
        With at least one row.
    n_images : int
        Images to read, spread over the rows.

    Raises
    ------
    DataError
        If it breaks the contract; the message says how, and what to do.

    Examples
    --------
    >>> class Squares:
    ...     ids, labels = ["a", "b"], ["dark", "light"]
    ...     def read(self, i):
    ...         return np.full((8, 8), 200 * i, np.uint8)
    >>> check_dataset(Squares())
    """
    for name in ("ids", "labels", "read"):
        _require(hasattr(dataset, name), f"has no {name!r}. It needs ids, labels and read(i).")
    ids = dataset.ids
    _require(isinstance(ids, Sequence | np.ndarray), f"ids must be a sequence, got {type(ids).__name__}.")
    _require(len(ids) > 0, "has no rows to check. Give a small one with some.")
    strange = next((one for one in ids if not isinstance(one, str)), None)
    _require(strange is None, f"ids must be str, got {strange!r}. Write str(i).")
    twice = next((one for one in ids if list(ids).count(one) > 1), None) if len(set(ids)) < len(ids) else None
    _require(twice is None, f"has the id {twice!r} more than once. Give each row one of its own.")
    for name in ("labels", "splits"):
        column = getattr(dataset, name, ids)
        _require(len(column) == len(ids), f"{name} has {len(column):,} entries, ids has {len(ids):,}. One a row each.")
    opened = open_dataset(dataset)  # names labels that are none of its classes
    rows = np.unique(np.linspace(0, len(ids) - 1, min(n_images, len(ids))).astype(int)).tolist()
    contents = {i: _content(dataset, i) for i in rows}
    for i in reversed(rows):
        _require(
            _content(dataset, i) == contents[i],
            f"read({i}) gave another image the second time. An image must not be random, nor depend on what was read "
            "before: leave changes at random to --augment.",
        )
    _check_iterate(dataset, rows, contents)
    _check_stamps(opened.stamps(), len(ids))


def _content(dataset: Any, i: int) -> bytes | None:
    """Return the hash of an image, None of one that cannot be read."""
    try:
        data = dataset.read(i)
    except (ImageError, OSError):
        return None
    except Exception as error:
        raise DataError(
            f"The dataset: read({i}) raised {type(error).__name__}: {error}. Raise featx.errors.ImageError(reason) "
            "for an image that cannot be read."
        ) from error
    fitting = isinstance(data, bytes | np.ndarray)
    _require(fitting, f"read({i}) gave {type(data).__name__}. Return the bytes of a file, or an array of uint8.")
    try:
        decode(data)
    except ImageError as error:
        _require(isinstance(data, bytes), f"read({i}): {error}.")  # a damaged file is a row of errors, and no fault
    return item_id(data)


def _check_iterate(dataset: Any, rows: list[int], contents: dict[int, bytes | None]) -> None:
    if not hasattr(dataset, "iterate"):
        return
    given = list(dataset.iterate(rows))
    _require(
        all(isinstance(one, tuple) and len(one) == 2 for one in given),
        "iterate(indices) must yield (index, image) pairs.",
    )
    found = [int(index) for index, _ in given]
    _require(
        found == rows, f"iterate({rows[:5]}) yielded rows {found[:5]}. Yield each row that was asked for, in order."
    )
    for index, data in given:
        content = None if isinstance(data, ImageError) else item_id(data)
        _require(content == contents[index], f"iterate and read give different images of row {index}.")


def _check_stamps(stamps: Any, n: int) -> None:
    if stamps is None:
        return
    shape, dtype = getattr(stamps, "shape", None), getattr(stamps, "dtype", None)
    _require(
        shape == (n, _STAMP_BYTES) and dtype == np.uint8,
        f"stamps() must return uint8 of shape ({n}, {_STAMP_BYTES}) or None, got {dtype} of shape {shape}.",
    )
    different = len(np.unique(stamps, axis=0)) == n
    _require(different, "stamps() gives several rows the same stamp: hash the row's number or path into it.")


def _require(kept: bool, broken: str) -> None:
    if not kept:
        raise DataError(f"The dataset {broken}" if broken.startswith("has ") else f"The dataset: {broken}")


def check_backbone(
    backbone: Any, *, transform: Any = None, layers: Sequence[str] = (), image_size: int | None = None
) -> None:
    """Check that a network of one's own gives what `featx.extract` asks of it.

    It is one module that computes the same from the same images, whatever comes with them, in evaluation mode; that
    runs on random images of its size; and whose layers give tensors with the batch first.

    Parameters
    ----------
    backbone : str, torch.nn.Module or callable
        As in `featx.extract`.
    transform : callable or mapping, optional
        As in `featx.extract`.
    layers : sequence of str
        To be checked, by the names of `featx layers`; by default what the network itself pools.
    image_size : int, optional
        Side of the input in pixels.

    Raises
    ------
    OptionError
        If it breaks the contract; the message says how.

    Examples
    --------
    >>> check_backbone("alexnet", image_size=64)
    """
    from featx import backbones
    from featx.engines import open_engine
    from featx.probe import distance, tolerance

    name, version = (backbone, "1") if isinstance(backbone, str) else backbones.hand_over(backbone, transform, "check")
    weights = "none" if isinstance(backbone, str) else "imagenet"
    request = Request(backbone=name, weights=weights, layers=tuple(layers), image_size=image_size, version=version)
    network, recipes = backbones.resolve(request)
    again, recipes_again = backbones.resolve(request)

    def require(kept: bool, broken: str) -> None:
        if not kept:
            raise OptionError(f"{name} {broken}")

    require(
        network.weights_digest == again.weights_digest,
        "is built with other weights each time. Draw them from torch's generator, which featx seeds, or load them.",
    )
    require(recipes == recipes_again, "comes to other layers or shapes each time.")
    frame, digest = recipes[0].frame, network.weights_digest
    pixels = np.random.default_rng(0).integers(0, 256, (4, frame.height, frame.width, 3), dtype=np.uint8)
    engine = open_engine(network, recipes, engine="eager", device="cpu", batch_size=4)
    first, second = engine.run(pixels), engine.run(pixels)
    alone = [np.concatenate(rows) for rows in zip(*(engine.run(pixels[i : i + 1]) for i in range(4)), strict=True)]
    for recipe, rows, repeated, single in zip(recipes, first, second, alone, strict=True):
        layer = recipe.layer or "output"
        require(rows.shape == (4, *recipe.shape), f"layer {layer!r} gives {rows.shape[1:]} instead of {recipe.shape}.")
        require(bool(np.isfinite(rows).all()), f"layer {layer!r} gives numbers that are not finite on noise.")
        require(
            np.array_equal(rows, repeated),
            f"layer {layer!r} gives other features the second time. Nothing in it may be random in evaluation mode.",
        )
        require(
            distance(rows, single) <= tolerance("fp32"),
            f"layer {layer!r} gives other features when an image comes alone. Batch norm must use its own statistics.",
        )
    require(backbones.weights.digest(network.module) == digest, "changes its weights or buffers when it runs.")
