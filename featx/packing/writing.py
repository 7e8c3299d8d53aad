"""`pack`: a model becomes one file for elsewhere, once the file has been seen to say what the model says."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from featx.errors import MissingExtraError, OptionError
from featx.files import whole_file
from featx.packing.checking import OwnImages, compare
from featx.packing.reading import PackedModel
from featx.packing.settings import Packing
from featx.settings import keywords

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from featx.model import Model
    from featx.packing.graph import Source
    from featx.recipe import Frame, Recipe

#: What one protobuf message can hold; ONNX has larger networks in several files.
_MOST_BYTES = 2**31 - 1
#: What each format needs installed.
_PACKAGES = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "onnxruntime", "openvino"),
    "exported": (),
}


class Packed(NamedTuple):
    """What came of packing.

    Attributes
    ----------
    path : Path
        The file.
    n_checked : int
        Images on which it was held against the model.
    apart : float
        The farthest that a probability was from the model's; of numbers, as a share of the largest.
    same : float
        Share of the images with the model's label, of several labels those of all decisions; 1 for numbers.
    what : {"probabilities", "numbers"}
        What it says of an image.
    paths : tuple of Path
        All files that were written; of OpenVINO's two.
    """

    path: Path
    n_checked: int
    apart: float
    same: float
    what: str
    paths: tuple[Path, ...]


@keywords(Packing)
def pack(model: Model, path: str | Path, how: Packing) -> Packed:
    """Write a model as one file for other runtimes: from a uint8 image of any size to probabilities.

    The graph resizes as Pillow does, to the bit, and holds the networks up to their layers, the pooling, the scaling,
    the head and its calibration. Decoding a file, turning it upright and filling what is transparent stay outside.

    Parameters
    ----------
    model : Model
        On one backbone or several, with featx's own heads.
    path : path-like
        Where to, ``….onnx``, ``….xml`` or ``….pt2``. The file takes that name once it has given the model's
        probabilities.
    {options}

    Returns
    -------
    Packed

    Raises
    ------
    OptionError
        If the model has no recipe, or a head, a filter or a network that cannot be packed; or at int8 there are too few
        images to calibrate and check it on.
    ProbeError
        If the file says something else than the model: more than 1e-4 apart (2e-2 at fp16, for OpenVINO, and for
        boosted trees), or at int8 another label for more than 1 % of the images.
    MissingExtraError
        If what writes and checks the format is not installed.
    """
    if model.items is not None:
        raise OptionError("A packed model takes one image, and this one predicts items of several. Predict with featx.")
    path = Path(path)
    form = how.format_of(path)
    for package in _PACKAGES[form]:
        if importlib.util.find_spec(package) is None:
            extra = "openvino" if package == "openvino" else "onnx"
            raise MissingExtraError.of(package, extra, "featx pack")
    if not model.inputs or any(made.request is None for made in model.inputs):
        raise OptionError(
            "This model was fitted on rows without a recipe, so there is no network to pack. Fit it on a table of "
            "featx extract."
        )
    images = OwnImages.of(model, how)
    with _sources(model) as sources, tempfile.TemporaryDirectory(prefix="featx-") as folder:
        written = Path(folder) / f"model{path.suffix}"
        run = _written(model, sources, images, how, form, written)
        found = compare(model, run, images, how.precision, exact=form != "openvino")
        files = sorted(Path(folder).iterdir())
        for file in files:
            with whole_file(path.with_suffix(file.suffix)) as temporary:
                shutil.move(file, temporary)
    what = "numbers" if model.outputs is not None and model.outputs.task == "regress" else "probabilities"
    return Packed(path, *found, what, tuple(path.with_suffix(file.suffix) for file in files))


@contextlib.contextmanager
def _sources(model: Model) -> Iterator[list[Source]]:
    """Hold the networks of a model, loaded."""
    from featx import backbones
    from featx.packing.graph import Source

    with model.loadable_requests() as requests:
        sources, left = [], dict(enumerate(made.recipe for made in model.inputs))
        for request in requests:
            backbone, recipes = backbones.resolve(request)
            taken = [next((place for place, one in left.items() if _is(one, recipe)), None) for recipe in recipes]
            mine = [(recipe, place) for recipe, place in zip(recipes, taken, strict=True) if place is not None]
            left = {place: one for place, one in left.items() if place not in taken}
            sources.append(Source(backbone, [recipe for recipe, _ in mine], [place for _, place in mine]))
        if left:
            lost = ", ".join(f"{one.backbone} {one.layer}" for one in left.values())
            raise OptionError(f"Another network is loaded here than the model was fitted on ({lost}). Fit it again.")
        yield sources


def _is(one: Recipe, other: Recipe) -> bool:
    parts = ("backbone", "weights_digest", "layer", "pool", "frame", "dtype")
    return all(getattr(one, part) == getattr(other, part) for part in parts)


def _written(
    model: Model, sources: list[Source], images: OwnImages, how: Packing, form: str, path: Path
) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Write a file, and return what runs it."""
    from featx.packing import exported
    from featx.packing.graph import graph_of, whole_module

    if form == "exported":
        return exported.write_exported(whole_module(model, sources), path)
    quantize = None
    if how.precision == "int8":
        from featx.packing.quantizing import quantized

        def quantize(network: Any, frame: Frame) -> Any:
            return quantized(network, images.calibration(frame))

    graph = graph_of(model, sources, how.precision, quantize)
    if graph.ByteSize() > _MOST_BYTES:
        names = " and ".join(one.backbone.name for one in sources)
        raise OptionError(f"{names} take more than the 2 GiB that one ONNX file holds. Try --precision fp16.")
    if form == "openvino":
        return exported.write_openvino(graph, path, half=how.precision == "fp16")
    path.write_bytes(graph.SerializeToString())
    packed = PackedModel(path)
    return lambda pixels: packed.run(pixels)[0]
