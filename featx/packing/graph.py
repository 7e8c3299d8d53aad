"""One graph in the ONNX form from a model: an image in, probabilities out, and what the file says of itself."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import warnings
from typing import TYPE_CHECKING, Any

import PIL
import torch
from torch import Tensor, nn

import featx
from featx.engines.pytorch import FromPixels
from featx.errors import FeatxError, OptionError
from featx.packing.fitting import FitFrame
from featx.packing.heads import Classifier
from featx.packing.reading import IMAGES, OUTPUTS, PIXELS

if TYPE_CHECKING:
    from featx.backbones import Backbone
    from featx.model import Model
    from featx.recipe import Frame, Recipe

#: Version of ONNX's operators, which every runtime since 2023 has.
OPSET = 18
_ROWS = "rows"
#: How the number of images is called in the graph.
_ANY_NUMBER = torch.export.Dim("n")
#: Tensors of fewer values stay in full precision: they are shapes, norms and biases, and take no room.
_LEAST_HALVED = 1024


def graph_of(model: Model, backbone: Backbone, recipe: Recipe, precision: str) -> Any:
    """Return the whole of a model as an `onnx.ModelProto`, from uint8 images (n, h, w, 3) of any one size.

    Parameters
    ----------
    model : Model
    backbone : Backbone
        The model's own, loaded.
    recipe : Recipe
        Of its rows, as `backbone` resolves it.
    precision : {"fp32", "fp16"}
        Of the weights in the file.

    Raises
    ------
    OptionError
        If PyTorch cannot write the network in that form.
    """
    rows = torch.zeros(2, *recipe.shape)
    try:
        parts = [
            fitting_graph(recipe.frame),
            network_graph(backbone, recipe),
            classifier_graph(Classifier(model), rows),
        ]
    except FeatxError:
        raise
    except Exception as error:  # whatever PyTorch raises for what it cannot
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise OptionError(f"PyTorch cannot write {backbone.name} as ONNX ({reason}).") from error
    if precision == "fp16":
        for part in parts[1:]:
            _halve(part)
    graph = joined(parts)
    for key, value in _told(model, recipe, precision).items():
        graph.metadata_props.add(key=key, value=value)
    return graph


@functools.cache
def fitting_graph(frame: Frame) -> Any:
    """Return the graph from images of any size to those of the network's, which takes seconds to make."""
    # Two images, as one would be taken for a constant, and of sides that are neither the frame's nor equal.
    images = torch.zeros(2, frame.height + 3, frame.width + 5, 3, dtype=torch.uint8)
    sides = {0: _ANY_NUMBER, 1: torch.export.Dim("height"), 2: torch.export.Dim("width")}
    return _exported(FitFrame(frame), images, sides, IMAGES, [PIXELS])


def network_graph(backbone: Backbone, recipe: Recipe) -> Any:
    """Return the graph from images of the network's size to rows."""
    network, frame = backbone.network([recipe]), recipe.frame
    network.stops_early = False
    pixels = torch.zeros(2, frame.height, frame.width, 3, dtype=torch.uint8)
    kept = nn.Sequential(FromPixels(network, backbone.mean, backbone.std), _Kept(half=recipe.dtype == "float16"))
    return _exported(kept, pixels, {0: _ANY_NUMBER}, PIXELS, [_ROWS])


def classifier_graph(classifier: nn.Module, rows: Tensor) -> Any:
    """Return the graph from rows such as `rows` to what a classifier says."""
    outputs = list(OUTPUTS[: len(classifier(rows))])
    return _exported(classifier, rows, {0: _ANY_NUMBER}, _ROWS, outputs)


class _Kept(nn.Module):
    """The only one of a network's rows, as a table keeps it."""

    def __init__(self, *, half: bool) -> None:
        super().__init__()
        self.halved = half

    def forward(self, rows: tuple[Tensor, ...]) -> Tensor:
        return rows[0].half().float() if self.halved else rows[0]


def _exported(module: nn.Module, example: Tensor, sides: dict[int, Any], name: str, outputs: list[str]) -> Any:
    """Return a module of one input as an `onnx.ModelProto`."""
    with _silent():
        program = torch.onnx.export(
            module.eval(),
            (example,),
            dynamo=True,
            dynamic_shapes=(sides,),
            input_names=[name],
            output_names=outputs,
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    assert not program.model_proto.functions
    return program.model_proto


def joined(parts: list[Any]) -> Any:
    """Return one graph of several, of which each takes what the one before gives."""
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
        opset_imports=parts[0].opset_import,
        ir_version=parts[0].ir_version,
        producer_name="featx",
        producer_version=featx.__version__,
    )


@contextlib.contextmanager
def _silent() -> Any:
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


def _told(model: Model, recipe: Recipe, precision: str) -> dict[str, str]:
    """Return what the file says of itself: whoever reads images for it needs the classes and the decode policy."""
    return {
        "featx": featx.__version__,
        "classes": json.dumps(list(model.classes), ensure_ascii=False),
        "head": model.head_name,
        "recipe": recipe.to_json(),
        "key": recipe.key,
        "precision": precision,
        "pillow": PIL.__version__,
    }
