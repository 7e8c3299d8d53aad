"""One graph in the ONNX form from a model: an image in, probabilities out, and what the file says of itself."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import io
import json
import logging
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import PIL
import torch
from torch import Tensor, nn

import featx
from featx.engines.pytorch import FromPixels
from featx.errors import FeatxError, OptionError
from featx.packing.answers import Answers
from featx.packing.fitting import FitFrame
from featx.packing.reading import IMAGES, output_names, pixel_names, row_names

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from featx.backbones import Backbone
    from featx.model import Model
    from featx.recipe import Frame, Recipe

#: Version of ONNX's operators, which every runtime since 2023 has.
OPSET = 18
#: How the number of images is called in the graph.
_ANY_NUMBER = torch.export.Dim("n")
#: The last network that was written, which takes longest: one network often gets several heads.
_LAST: dict[tuple[str, ...], Any] = {}
#: Tensors of fewer values stay in full precision: they are shapes, norms and biases, and take no room.
_LEAST_HALVED = 1024


class Source(NamedTuple):
    """A network, and which of a model's inputs it makes.

    Attributes
    ----------
    backbone : Backbone
        Loaded.
    recipes : list of Recipe
        Of its rows, all with one frame.
    places : list of int
        Which of the model's inputs each recipe is.
    """

    backbone: Backbone
    recipes: list[Recipe]
    places: list[int]


def graph_of(
    model: Model, sources: Sequence[Source], precision: str, quantize: Callable[[Any, Frame], Any] | None = None
) -> Any:
    """Return the whole of a model as an `onnx.ModelProto`, from uint8 images (n, h, w, 3) of any one size.

    Parameters
    ----------
    model : Model
    sources : sequence of Source
        Its networks.
    precision : {"fp32", "fp16", "int8"}
        Of the weights in the file.
    quantize : callable, optional
        Makes of the graph of a network one of whole numbers.

    Raises
    ------
    OptionError
        If PyTorch cannot write the network in that form.
    """
    frames, n_inputs = frames_of(sources), len(model.inputs)
    try:
        fitting = fitting_graph(frames)
        answers = answers_graph(model)
        networks = [
            network_graph(one, pixel_names(len(frames))[frames.index(one.recipes[0].frame)], n_inputs)
            for one in sources
        ]
    except FeatxError:
        raise
    except Exception as error:  # whatever PyTorch raises for what it cannot
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        names = " or ".join(one.backbone.name for one in sources)
        raise OptionError(f"PyTorch cannot write {names} as ONNX ({reason}).") from error
    if precision == "fp16":
        for part in (*networks, answers):
            _halve(part)
    if quantize is not None:
        pairs = zip(networks, sources, strict=True)
        networks = [quantize(network, one.recipes[0].frame) for network, one in pairs]
    graph = joined([fitting, *networks, answers])
    for key, value in _told(model, sources, precision).items():
        graph.metadata_props.add(key=key, value=value)
    return graph


def frames_of(sources: Sequence[Source]) -> tuple[Frame, ...]:
    """Return the frames that images are fitted to for networks, each once, in their order."""
    return tuple(dict.fromkeys(one.recipes[0].frame for one in sources))


def whole_module(model: Model, sources: Sequence[Source]) -> nn.Module:
    """Return the whole of a model as one module of PyTorch, of uint8 images (n, h, w, 3)."""
    return _Whole(model, sources)


@functools.cache
def fitting_graph(frames: tuple[Frame, ...]) -> Any:
    """Return the graph from images of any size to those of the networks', which takes seconds to make."""
    return _exported(_Fits(frames), (fitting_example(frames),), (FITTING_SIDES,), [IMAGES], pixel_names(len(frames)))


#: What may differ from image to image.
FITTING_SIDES = {0: _ANY_NUMBER, 1: torch.export.Dim("height"), 2: torch.export.Dim("width")}


def fitting_example(frames: Sequence[Frame]) -> Tensor:
    """Return two images, as one would be taken for a constant, and of sides that are neither a frame's nor equal."""
    height, width = (max(getattr(frame, side) for frame in frames) for side in ("height", "width"))
    return torch.zeros(2, height + 3, width + 5, 3, dtype=torch.uint8)


def network_graph(source: Source, pixels: str, n_inputs: int) -> Any:
    """Return the graph from images of a network's size to its rows."""
    frame = source.recipes[0].frame
    names = [row_names(n_inputs)[place] for place in source.places]
    key = (*(recipe.key for recipe in source.recipes), pixels, *names)
    if key not in _LAST:
        example = torch.zeros(2, frame.height, frame.width, 3, dtype=torch.uint8)
        _LAST.clear()
        _LAST[key] = _exported(_Rows(source), (example,), ({0: _ANY_NUMBER},), [pixels], names)
    return copy.deepcopy(_LAST[key])


def answers_graph(model: Model) -> Any:
    """Return the graph from the rows of all inputs to what the model says."""
    rows = tuple(torch.zeros(2, *made.recipe.shape) for made in model.inputs)
    names = output_names(model.outputs.task if model.outputs else None)
    if len(rows) == 1:
        answers: nn.Module = Answers(model)
        n_outputs = len(answers(*rows))
        return _exported(answers, rows, ({0: _ANY_NUMBER},), row_names(1), names[:n_outputs])
    answers = _Beside(model)
    sides = [{0: _ANY_NUMBER} for _ in rows]
    n_outputs = len(answers(list(rows)))
    return _exported(answers, (list(rows),), (sides,), row_names(len(rows)), names[:n_outputs])


class _Fits(nn.Module):
    """Images fitted to several frames."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        super().__init__()
        self.frames = nn.ModuleList(map(FitFrame, frames))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(frame(images) for frame in self.frames)


class _Rows(nn.Module):
    """A network's rows as tables keep them."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        backbone = source.backbone
        network = backbone.network(source.recipes)
        network.stops_early = False
        self.network = FromPixels(network, backbone.mean, backbone.std)
        self.halved = [recipe.dtype == "float16" for recipe in source.recipes]

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        rows = self.network(pixels)
        return tuple(row.half().float() if half else row for row, half in zip(rows, self.halved, strict=True))


class _Beside(nn.Module):
    """What a model says of the rows of several inputs, side by side."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.answers = Answers(model)

    def forward(self, rows: list[Tensor]) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = self.answers(torch.cat(rows, 1))
        return found


class _Whole(nn.Module):
    def __init__(self, model: Model, sources: Sequence[Source]) -> None:
        super().__init__()
        frames = frames_of(sources)
        self.fits = _Fits(frames)
        self.networks = nn.ModuleList(_Rows(one) for one in sources)
        self.frame_of = [frames.index(one.recipes[0].frame) for one in sources]
        self.places = [one.places for one in sources]
        self.answers = Answers(model)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        pixels = self.fits(images)
        rows: dict[int, Tensor] = {}
        for network, frame, places in zip(self.networks, self.frame_of, self.places, strict=True):
            rows.update(zip(places, network(pixels[frame]), strict=True))
        beside = [rows[place] for place in range(len(rows))]
        found: tuple[Tensor, ...] = self.answers(beside[0] if len(beside) == 1 else torch.cat(beside, 1))
        return found


def _exported(
    module: nn.Module, example: tuple[Any, ...], sides: tuple[Any, ...], inputs: list[str], outputs: list[str]
) -> Any:
    """Return a module as an `onnx.ModelProto`."""
    with silent():
        program = torch.onnx.export(
            module.eval(),
            example,
            dynamo=True,
            dynamic_shapes=sides,
            input_names=inputs,
            output_names=outputs,
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    assert not program.model_proto.functions
    return program.model_proto


def joined(parts: list[Any]) -> Any:
    """Return one graph of several, of which each takes what those before it give."""
    import onnx
    from onnx import helper

    # Not the first: names of the outer graph in the branches of a condition would not be renamed.
    for number, part in enumerate(parts[1:], start=1):
        onnx.compose.add_prefix(part, f"{number}.", rename_inputs=False, rename_outputs=False, inplace=True)
    graphs = [part.graph for part in parts]
    graph = helper.make_graph(
        [node for one in graphs for node in one.node],
        "featx",
        graphs[0].input,
        graphs[-1].output,
        [tensor for one in graphs for tensor in one.initializer],
        value_info=[value for one in graphs[:-1] for value in one.output],
    )
    return helper.make_model(
        graph,
        opset_imports={one.domain: one for part in parts for one in part.opset_import}.values(),
        ir_version=parts[0].ir_version,
        producer_name="featx",
        producer_version=featx.__version__,
    )


@contextlib.contextmanager
def silent() -> Any:
    """Keep to ourselves what PyTorch says of its own workings while it exports."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _halve(graph: Any) -> None:
    """Keep large tensors in half precision. They are made whole again when the file is opened."""
    import onnx
    from onnx import numpy_helper

    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    casts = []
    for tensor in graph.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != single or values.size < _LEAST_HALVED:
            continue
        name, short = tensor.name, f"{tensor.name}.fp16"
        tensor.CopyFrom(numpy_helper.from_array(values.astype("float16"), short))
        assert tensor.data_type == half
        casts.append(onnx.helper.make_node("Cast", [short], [name], f"{name}.fp32", to=single))
    nodes = [*casts, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)


def _told(model: Model, sources: Sequence[Source], precision: str) -> dict[str, str]:
    """Return what the file says of itself: whoever reads images for it needs the classes and the decode policy."""
    recipes = {place: recipe for one in sources for place, recipe in zip(one.places, one.recipes, strict=True)}
    told = {
        "featx": featx.__version__,
        "classes": json.dumps(list(model.columns), ensure_ascii=False),
        "head": model.head_name,
        "recipes": json.dumps([json.loads(recipes[place].to_json()) for place in sorted(recipes)]),
        "key": str(model.key),
        "precision": precision,
        "pillow": PIL.__version__,
    }
    if model.outputs is not None:
        told["outputs"] = json.dumps(dataclasses.asdict(model.outputs), ensure_ascii=False)
    return told
