"""`pack`: a model becomes one ONNX file, once the file has been seen to say what the model says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from featx.errors import DataError, FeatxError, MissingExtraError, OptionError, ProbeError
from featx.files import whole_file
from featx.heads.boosted import XGBoostHead
from featx.images import decode
from featx.packing.reading import PackedModel
from featx.packing.settings import Packing
from featx.probe import PROBE
from featx.settings import keywords

if TYPE_CHECKING:
    from featx.datasets import Dataset
    from featx.model import Model
    from featx.recipe import Recipe

#: How far a probability may be from featx's, and where something is not fp32 or a head is not continuous.
TOLERANCE, LOOSE_TOLERANCE = 1e-4, 2e-2
#: Photos of the model's own table that the file is checked on where nobody names others.
_MOST_CHECKED = 16
#: Parts of the built-in photo (width, height): panoramas, a tall strip, and images that are smaller than any input.
_SHAPES = ((300, 40), (40, 300), (31, 17), (2, 3))
#: What one protobuf message can hold; ONNX has larger networks in several files.
_MOST_BYTES = 2**31 - 1


class Packed(NamedTuple):
    """What came of packing.

    Attributes
    ----------
    path : Path
        The file.
    n_checked : int
        Images on which it was held against the model.
    apart : float
        The farthest that a probability was from the model's.
    """

    path: Path
    n_checked: int
    apart: float


@keywords(Packing)
def pack(model: Model, path: str | Path, how: Packing) -> Packed:
    """Write a model as one ONNX file that any ONNX runtime reads: from a uint8 image of any size to probabilities.

    The graph resizes as Pillow does, to the bit, and holds the network up to the layer, the pooling, the scaling, the
    head and its calibration. Decoding a file, turning it upright and filling what is transparent stay outside.

    Parameters
    ----------
    model : Model
        On a backbone, with one of featx's heads.
    path : path-like
        Where to, ``….onnx``. The file takes that name once it has given the model's probabilities.
    {options}

    Returns
    -------
    Packed

    Raises
    ------
    OptionError
        If the model has no recipe, or a head, a filter or a network that ONNX does not take.
    ProbeError
        If the file says something else than the model: more than 1e-4 apart (2e-2 at fp16, and for
        boosted trees).
    MissingExtraError
        If onnx, onnxscript or onnxruntime is not installed.
    """
    _check_installed()
    if len(model.inputs) > 1:
        raise OptionError(
            f"A model on several layers cannot be packed ({model.made_of}): fit one on one table, or keep the model "
            "file."
        )
    if model.recipe is None:
        raise OptionError(
            "This model was fitted on rows without a recipe, so there is no network to pack. Fit it on a table of "
            "featx extract."
        )
    if model.outputs is not None:
        raise OptionError("A model of several labels an image, or of numbers, cannot be packed: keep the model file.")
    graph = _graph(model, how.precision)
    with whole_file(Path(path)) as temporary:
        temporary.write_bytes(graph.SerializeToString())
        n_checked, apart = _compare(model, temporary, how)
    return Packed(Path(path), n_checked, apart)


def _check_installed() -> None:
    import importlib.util

    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError.of(package, "onnx", "featx pack")


def _graph(model: Model, precision: str) -> Any:
    from featx import backbones
    from featx.packing.graph import graph_of

    assert model.recipe is not None
    with model.loadable_requests() as (request,):
        backbone, recipes = backbones.resolve(request)
    recipe = next((one for one in recipes if one.layer == model.recipe.layer), recipes[0])
    graph = graph_of(model, backbone, recipe, precision)
    if graph.ByteSize() > _MOST_BYTES:
        raise OptionError(f"{backbone.name} is larger than the 2 GiB that one ONNX file holds. Try --precision fp16.")
    return graph


def _compare(model: Model, path: Path, how: Packing) -> tuple[int, float]:
    """Hold the file against the model on images of several sizes; return on how many, and how far they are apart."""
    assert model.recipe is not None
    images = _built_in(model.recipe) + _given(model, how.check)
    expected = model.predict_proba([Image.fromarray(image) for image in images], workers=0, engine="eager")
    packed = PackedModel(path)
    found = np.concatenate([packed.run(image[None])[0] for image in images])
    apart = np.abs(found - expected).max(axis=1)
    # Boosted trees hold rounded numbers against thresholds that are training rows: one last bit may turn a split.
    exact = how.precision == model.recipe.precision == "fp32" and not isinstance(model.head, XGBoostHead)
    allowed = TOLERANCE if exact else LOOSE_TOLERANCE
    if not (apart <= allowed).all():
        worst = int(np.argmax(apart))
        lower = how.precision != "fp32"
        advice = "Try --precision fp32." if lower else "Pack another head, such as logreg, or keep the model file."
        raise ProbeError(
            f"The packed model says something else than featx about {int((apart > allowed).sum())} of {len(images)} "
            f"images, by up to {apart[worst]:.1e} ({allowed:.0e} is allowed), so it was not written. {advice}"
        )
    return len(images), float(apart.max())


def _built_in(recipe: Recipe) -> list[np.ndarray]:
    """Return the probe's images, and parts of its photo, of many shapes."""
    whole = [decode(data, background=recipe.frame.background) for data in PROBE.values()]
    photo = decode(PROBE["photo"])
    parts = [photo.resize((400, 400)).crop((50, 50, 50 + width, 50 + height)) for width, height in _SHAPES]
    return [np.asarray(image) for image in (*whole, *parts)]


def _given(model: Model, data: Any) -> list[np.ndarray]:
    """Return the images of `data`, or some of those that the model was fitted on, as far as they can be read."""
    from featx.datasets import open_dataset

    dataset = _own_images(model) if data is None else open_dataset(data)
    if dataset is None:
        return []
    n = len(dataset)
    rows = range(n) if data is not None else np.linspace(0, n - 1, min(n, _MOST_CHECKED)).astype(int).tolist()
    assert model.recipe is not None
    frame, images = model.recipe.frame, []
    for _, image in dataset.iterate(rows):
        if isinstance(image, FeatxError):
            continue
        try:
            images.append(np.asarray(decode(image, background=frame.background, white=frame.white)))
        except DataError:
            continue
    return images


def _own_images(model: Model) -> Dataset | None:
    from featx.reporting.thumbnails import reopen

    try:
        table = model.table()
        source = None if table is None else table.provenance.get("source")
        return reopen(source) if source else None
    except FeatxError:
        return None
