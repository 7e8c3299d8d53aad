"""`PackedModel`: predictions from a packed model through onnxruntime, without PyTorch."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.datasets import open_dataset
from featx.engines import Engine
from featx.errors import MissingDataError, MissingExtraError, ModelFileError, OptionError
from featx.extraction.executors import n_decoders
from featx.extraction.options import Options
from featx.extraction.plan import Segment
from featx.extraction.segments import compute_segments
from featx.images import DecodePool
from featx.machine import n_cores
from featx.model.manifest import read_recipe
from featx.model.model import readable
from featx.model.predictions import Predictions, check_familiarity
from featx.model.settings import Classify, Predict
from featx.settings import keywords, part_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Names of the input, of its images once they have the network's size, and of the outputs, in order.
IMAGES, PIXELS, OUTPUTS = "images", "pixels", ("probabilities", "familiarity")
#: Images that go through the network together.
_BATCH = 32


class PackedModel:
    """A model as `featx.pack` wrote it.

    Images are read, and fitted to the network's size, by the same decoders as for a model file, in processes of their
    own; the rest of the graph is run by onnxruntime on the CPU.

    Parameters
    ----------
    path : path-like
        The ``.onnx`` file.

    Attributes
    ----------
    classes : tuple of str
        Names of the classes.
    recipe : Recipe
        How rows are made from images.
    head_name : str
        As the user called it.

    Raises
    ------
    MissingExtraError
        If onnxruntime or onnx is not installed.
    MissingDataError
        If there is no such file.
    ModelFileError
        If it is damaged, or was not written by `featx.pack`.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        graph = _read(self._path)
        told = {entry.key: entry.value for entry in graph.metadata_props}
        try:
            self.classes = tuple(json.loads(told["classes"]))
            self.recipe = read_recipe(json.loads(told["recipe"]))
            self.head_name = told["head"]
            _check(graph, self.classes)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ModelFileError(f"{path} is no model that featx packed ({error}). Write one: featx pack") from error
        self._graph = graph
        self._outputs = [output.name for output in graph.graph.output]
        self._whole: Any = None
        self._engine: Engine | None = None

    @keywords(Classify)
    def classify(self, source: Any, how: Classify) -> Predictions:
        """Predict images, with a reason for every one that cannot be read.

        Parameters
        ----------
        source : path, sequence of paths or PIL images, uint8 array (n, h, w[, c]), or Dataset
            As `featx.Model.classify` takes images.
        {options}

        Raises
        ------
        OptionError
            If something is asked for that only a model file can do.
        """
        _refuse(how)
        check_familiarity(how, known=len(self._outputs) > 1)
        dataset = open_dataset(source)
        n = len(dataset)
        found = [np.full((n, len(self.classes)), np.nan), np.full(n, np.nan)]
        n_workers = n_decoders(Options(workers=how.workers), n)
        with DecodePool(self.recipe.frame, n_workers=n_workers, n_images=n) as pool:
            segment = Segment(self._recipes, np.arange(n))
            (computed,) = compute_segments(dataset, [segment], self._opened(how.batch_size), pool)
        for number in range(len(self._outputs)):
            good, values = computed.of(number)
            found[number][good] = values
        return Predictions(
            ids=tuple(dataset.ids),
            classes=self.classes,
            probabilities=found[0],
            errors={index: str(error) for index, error in computed.failures.items()},
            familiarity=found[1] if len(self._outputs) > 1 else None,
            min_probability=how.min_probability,
            min_familiarity=how.min_familiarity,
        )

    @keywords(Predict)
    def predict(self, source: Any, how: Predict) -> NDArray[np.object_]:
        """Return the label of each image, object array of shape (n,). See `featx.Model.predict`.

        Parameters
        ----------
        {options}
        """
        found = self.classify(source, **vars(part_of(Classify, how)))
        return readable(found, np.array(found.labels, dtype=object), how.errors)

    @keywords(Predict)
    def predict_proba(self, source: Any, how: Predict) -> NDArray[np.float64]:
        """Return probabilities, float64 of shape (n, k), columns in the order of `classes`.

        Parameters
        ----------
        {options}
        """
        found = self.classify(source, **vars(part_of(Classify, how)))
        return readable(found, found.probabilities, how.errors)

    def run(self, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Return what the whole graph gives, its own resizing included: what every other runtime does with the file.

        Parameters
        ----------
        images : ndarray of uint8, shape (n, h, w, 3)
            Upright, RGB.

        Returns
        -------
        list of ndarray of float32
            Probabilities (n, k), and familiarity (n,) where the model knows it.
        """
        if self._whole is None:
            self._whole = _session(self._graph)
        outputs: list[NDArray[np.float32]] = self._whole.run(None, {IMAGES: images})
        return outputs

    def __repr__(self) -> str:
        """Say what it is in one line."""
        return f"<PackedModel: {self.head_name} on {self.recipe.backbone}, {len(self.classes)} classes>"

    @property
    def _recipes(self) -> list[Any]:
        """What each output is, in the terms in which an engine is asked for rows."""
        shapes = ((len(self.classes),), ())
        return [
            dataclasses.replace(self.recipe, shape=shape, dtype="float32")
            for shape, _ in zip(shapes, self._outputs, strict=False)
        ]

    def _opened(self, batch_size: int | None) -> Engine:
        """Return the engine of images that are fitted already, opened once."""
        size = batch_size or _BATCH
        if self._engine is None or self._engine.batch_size != size:
            session = _session(_without_fitting(self._graph))

            def compute(pixels: np.ndarray) -> list[np.ndarray]:
                outputs: list[np.ndarray] = session.run(None, {PIXELS: pixels})
                return outputs

            self._engine = Engine(
                compute, self._recipes, name="onnxruntime", batch_size=size, why="a packed model", padded=False
            )
        return self._engine


def _read(path: Path) -> Any:
    try:
        import onnx
        import onnxruntime  # noqa: F401 - before the user waits
    except ImportError as error:
        raise MissingExtraError.of(error.name or "onnxruntime", "onnx", f"Predicting with {path}") from error
    try:
        # What it has elsewhere stays there: a file of featx has all within.
        return onnx.load_model(path, load_external_data=False)
    except FileNotFoundError as error:
        raise MissingDataError(f"No model at {path}. Write one: featx pack model.featx -o {path}") from error
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from error
    except Exception as error:  # protobuf's errors share no type
        raise ModelFileError(f"{path} is no ONNX file, or a damaged one. Write it again: featx pack") from error


def _check(graph: Any, classes: tuple[Any, ...]) -> None:
    """Raise ValueError where a graph is none of featx's by its names and classes."""
    names = [output.name for output in graph.graph.output]
    if names not in ([*OUTPUTS], [*OUTPUTS[:1]]) or [one.name for one in graph.graph.input] != [IMAGES]:
        raise ValueError("its inputs and outputs have other names")
    if len(set(classes)) != len(classes) or not all(isinstance(name, str) for name in classes):
        raise ValueError("its classes are not a list of different names")
    if graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value != len(classes):
        raise ValueError("its classes are not as many as its probabilities")
    if not any(PIXELS in node.output for node in graph.graph.node):
        raise ValueError("it does not fit images to a network")


def _without_fitting(graph: Any) -> Any:
    """Return the graph from where images have the network's size."""
    import onnx

    rest = onnx.ModelProto()
    rest.CopyFrom(graph)
    used, nodes = {output.name for output in graph.graph.output}, []
    for node in reversed(graph.graph.node):
        if used & set(node.output) and PIXELS not in node.output:
            nodes.append(node)
            used |= set(node.input)
    kept = [tensor for tensor in graph.graph.initializer if tensor.name in used]
    pixels = [value for value in graph.graph.value_info if value.name == PIXELS]
    parts = ((rest.graph.node, nodes[::-1]), (rest.graph.initializer, kept), (rest.graph.input, pixels))
    for field, values in parts:
        del field[:]
        field.extend(values)
    return rest


def _session(graph: Any) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_cores()
    options.log_severity_level = 3  # what it says below errors is about its own workings
    try:
        return onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no type
        reason = " ".join(str(error).split())[:120]
        raise ModelFileError(
            f"onnxruntime does not take the packed model ({reason}). Write it again: featx pack"
        ) from error


def _refuse(how: Classify) -> None:
    if how.tta:
        raise OptionError("--tta averages over views, which a packed model does not make. Give it the model file.")
    if how.engine != "auto" or how.device not in ("auto", "cpu"):
        raise OptionError("A packed model runs on onnxruntime, on the CPU: leave out --engine and --device.")
