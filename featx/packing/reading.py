"""`PackedModel`: predictions from a packed model through onnxruntime, without PyTorch."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.datasets import open_dataset
from featx.engines import Engine
from featx.errors import ModelFileError, OptionError
from featx.extraction.executors import n_decoders
from featx.extraction.options import ComputeOptions, Options
from featx.extraction.plan import Segment
from featx.extraction.segments import compute_segments
from featx.images import DecodePool
from featx.model.fields import OUTPUTS, given_outputs, read_recipe
from featx.model.hub import fetch, is_address
from featx.model.predictions import Predictions, check_thresholds, readable
from featx.model.settings import Classify, Predict, Thresholds
from featx.model.target_predictions import LabelPredictions, NumberPredictions, answers
from featx.packing.onnx_files import part_between, read, session
from featx.settings import keywords, part_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from featx.datasets import Dataset
    from featx.recipe import Frame, Recipe

    Rows = list[NDArray[Any]]

#: Name of the input.
IMAGES = "images"
#: Images that go through a network together, and of which rows of several networks are held at once.
_BATCH, _HELD = 32, 512


def pixel_names(n: int) -> list[str]:
    """Return how a graph calls images that are fitted to each of `n` frames."""
    return ["pixels", *(f"pixels.{number}" for number in range(1, n))]


def row_names(n: int) -> list[str]:
    """Return how a graph calls the rows of each of `n` inputs."""
    return ["rows", *(f"rows.{number}" for number in range(1, n))]


def output_names(task: str | None) -> list[str]:
    """Return how a graph calls what it says of an image for a task, None for classes; the last not everywhere."""
    return ["numbers" if task == "regress" else "probabilities", "familiarity"]


class PackedModel:
    """A model as `featx.pack` wrote it.

    Images are read, and fitted to the networks' sizes, by the same decoders as for a model file, in processes of their
    own; the rest of the graph is run by onnxruntime on the CPU.

    Parameters
    ----------
    path : path-like
        The ``.onnx`` file, or ``hf://owner/name/model.onnx`` for one on the Hugging Face Hub.

    Attributes
    ----------
    classes : tuple of str
        Names of the classes; of a model of several labels or of numbers, names of these.
    outputs : Outputs or None
        What labels and numbers are, as in `featx.Model`; None for classes.
    recipes : tuple of Recipe
        How the rows of each input are made from images.
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
        self._path = fetch(path) if is_address(path) else Path(path)
        graph = read(self._path)
        told = {entry.key: entry.value for entry in graph.metadata_props}
        try:
            self.classes = tuple(json.loads(told["classes"]))
            self.recipes: tuple[Recipe, ...] = tuple(map(read_recipe, json.loads(told["recipes"])))
            self.head_name = told["head"]
            outputs = json.loads(told.get("outputs", "null"))
            if outputs is not None and not OUTPUTS.holds(outputs):
                raise ValueError("its outputs are not as featx writes them")
            self.outputs = given_outputs(outputs)
            self._check(graph)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ModelFileError(f"{path} is no model that featx packed ({error}). Write one: featx pack") from error
        self._graph = graph
        self._outputs = [output.name for output in graph.graph.output]
        self._whole: Any = None
        self._engines: dict[int, list[_Network]] = {}

    @property
    def frames(self) -> tuple[Frame, ...]:
        """What images are fitted to, each frame once."""
        return tuple(dict.fromkeys(recipe.frame for recipe in self.recipes))

    @keywords(Classify)
    def classify(self, source: Any, how: Classify) -> Predictions | LabelPredictions | NumberPredictions:
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
        check_thresholds(how, self.columns, self.outputs, known=len(self._outputs) > 1)
        dataset = open_dataset(source)
        said, reasons = self._said(dataset, how)
        found: dict[str, Any] = {
            "ids": tuple(dataset.ids),
            "errors": reasons,
            "familiarity": said[1] if len(said) > 1 else None,
            **vars(part_of(Thresholds, how)),
        }
        if self.outputs is not None:
            kind = LabelPredictions if self.outputs.task == "multilabel" else NumberPredictions
            return kind(outputs=self.outputs, array=said[0], **found)
        return Predictions(classes=self.classes, probabilities=said[0], **found)

    @keywords(Predict)
    def predict(self, source: Any, how: Predict) -> NDArray[Any]:
        """Return the label of each image, object array of shape (n,), or labels or numbers as `featx.Model.predict`.

        Parameters
        ----------
        {options}
        """
        found = self.classify(source, **vars(part_of(Classify, how)))
        return answers(found, how.errors)

    @keywords(Predict)
    def predict_proba(self, source: Any, how: Predict) -> NDArray[np.float64]:
        """Return probabilities, float64 of shape (n, k), columns in the order of `classes`.

        Parameters
        ----------
        {options}
        """
        found = self.classify(source, **vars(part_of(Classify, how)))
        if isinstance(found, NumberPredictions):
            raise OptionError("This model predicts numbers, which have no probabilities: model.predict(source)")
        return readable(found, found.array if isinstance(found, LabelPredictions) else found.probabilities, how.errors)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what it says of an image, as of `featx.Model`."""
        return self.classes

    @keywords(ComputeOptions)
    def answers(
        self, pixels: Sequence[NDArray[np.uint8]], how: ComputeOptions
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Return what it says of images that are decoded and fitted already, as `featx.Model.answers` does.

        Parameters
        ----------
        pixels : sequence of ndarray of uint8, shape (n, height, width, 3)
            The same images for each of `frames`.
        {options}
        """
        _refuse(how)
        made: dict[str, NDArray[Any]] = {}
        for network, of_frame in zip(self._opened(how.batch_size or _BATCH), pixels, strict=True):
            made |= dict(zip(network.names, network.run(of_frame), strict=True))
        said = [made[name] for name in self._outputs] if len(pixels) == 1 else self._tail.run(self._outputs, made)
        found = [np.asarray(values, dtype=np.float64) for values in said]
        return found[0], found[1] if len(found) > 1 else None

    def run(self, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Return what the whole graph gives, its own resizing included: what every other runtime does with the file.

        Parameters
        ----------
        images : ndarray of uint8, shape (n, h, w, 3)
            Upright, RGB.

        Returns
        -------
        list of ndarray of float32
            Probabilities or numbers (n, k), and familiarity (n,) where the model knows it.
        """
        if self._whole is None:
            self._whole = session(self._graph)
        outputs: list[NDArray[np.float32]] = self._whole.run(None, {IMAGES: images})
        return outputs

    def __repr__(self) -> str:
        """Say what it is in one line."""
        on = ", ".join(dict.fromkeys(recipe.backbone for recipe in self.recipes))
        kind = "classes" if self.outputs is None else "labels" if self.outputs.task == "multilabel" else "numbers"
        return f"<PackedModel: {self.head_name} on {on}, {len(self.classes)} {kind}>"

    def _check(self, graph: Any) -> None:
        """Raise ValueError where a graph is none of featx's by its names and classes."""
        names = [output.name for output in graph.graph.output]
        known = output_names(self.outputs.task if self.outputs else None)
        if names not in (known, known[:1]) or [one.name for one in graph.graph.input] != [IMAGES]:
            raise ValueError("its inputs and outputs have other names")
        if len(set(self.classes)) != len(self.classes) or not all(isinstance(name, str) for name in self.classes):
            raise ValueError("its classes are not a list of different names")
        if self.outputs is not None and self.outputs.names != self.classes:
            raise ValueError("its outputs have other names than its classes")
        if graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value != len(self.classes):
            raise ValueError("its classes are not as many as its probabilities")
        made = {name for node in graph.graph.node for name in node.output}
        if not self.recipes or not made.issuperset([*pixel_names(len(self.frames)), *row_names(len(self.recipes))]):
            raise ValueError("it does not fit images to a network")

    def _said(self, dataset: Dataset, how: Classify) -> tuple[Rows, dict[int, str]]:
        """Return what the outputs are for each image, NaN where it could not be read, and why it could not."""
        n = len(dataset)
        said = [np.full((n, *shape), np.nan) for shape, _ in zip(self._shapes, self._outputs, strict=False)]
        reasons: dict[int, str] = {}
        n_workers, engines = n_decoders(Options(workers=how.workers), n), self._opened(how.batch_size or _BATCH)
        with contextlib.ExitStack() as stack:
            pools = [stack.enter_context(DecodePool(frame, n_workers=n_workers, n_images=n)) for frame in self.frames]
            if len(engines) == 1:
                found = _computed(dataset, np.arange(n), engines[0], pools[0], reasons)
                return [found[name] for name in self._outputs], reasons
            for part in np.split(np.arange(n), range(_HELD, n, _HELD)):
                found = {}
                for engine, pool in zip(engines, pools, strict=True):
                    found |= _computed(dataset, part, engine, pool, reasons)
                good = np.array([place for place, index in enumerate(part.tolist()) if index not in reasons], np.intp)
                if len(good):
                    rows = {name: values[good].astype(np.float32) for name, values in found.items()}
                    for values, answer in zip(said, self._tail.run(self._outputs, rows), strict=True):
                        values[part[good]] = answer
        return said, reasons

    @property
    def _shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of each output for an image."""
        return (len(self.classes),), ()

    @cached_property
    def _tail(self) -> Any:
        """What makes the outputs of the rows of several networks."""
        return session(part_between(self._graph, row_names(len(self.recipes)), self._outputs))

    def _opened(self, batch_size: int) -> list[_Network]:
        """Return what computes images that are fitted to each frame, opened once: all outputs, or else rows."""
        if batch_size not in self._engines:
            frames, self._engines = self.frames, {}
            names = row_names(len(self.recipes))
            opened = []
            for frame, pixels in zip(frames, pixel_names(len(frames)), strict=True):
                made = {name: one for name, one in zip(names, self.recipes, strict=True) if one.frame == frame}
                if len(frames) == 1:
                    shapes = zip(self._outputs, self._shapes, strict=False)
                    made = {name: dataclasses.replace(self.recipes[0], shape=shape) for name, shape in shapes}
                kept = [dataclasses.replace(recipe, dtype="float32") for recipe in made.values()]
                part = part_between(self._graph, [pixels], list(made))
                opened.append(_Network(part, pixels, list(made), kept, batch_size))
            self._engines[batch_size] = opened
        return self._engines[batch_size]


class _Network(Engine):
    """The part of a graph from fitted images to some of its values."""

    def __init__(self, graph: Any, pixels: str, names: list[str], recipes: list[Recipe], batch_size: int) -> None:
        opened = session(graph)

        def compute(images: np.ndarray) -> list[np.ndarray]:
            found: list[np.ndarray] = opened.run(names, {pixels: images})
            return found

        super().__init__(
            compute, recipes, name="onnxruntime", batch_size=batch_size, why="a packed model", padded=False
        )
        self.names, self.recipes = names, recipes


def _computed(
    dataset: Dataset, part: NDArray[np.intp], network: _Network, pool: DecodePool, reasons: dict[int, str]
) -> dict[str, NDArray[Any]]:
    """Return what a network makes of some images, by name, NaN where an image could not be read: `reasons` gets why."""
    (computed,) = compute_segments(dataset, [Segment(network.recipes, part)], network, pool)
    reasons |= {index: str(error) for index, error in computed.failures.items()}
    found = {}
    for place, (name, recipe) in enumerate(zip(network.names, network.recipes, strict=True)):
        found[name] = np.full((len(part), *recipe.shape), np.nan)
        good, values = computed.of(place)
        found[name][np.searchsorted(part, good)] = values
    return found


def _refuse(how: ComputeOptions) -> None:
    if isinstance(how, Classify) and how.tta:
        raise OptionError("--tta averages over views, which a packed model does not make. Give it the model file.")
    if how.engine != "auto" or how.device not in ("auto", "cpu"):
        raise OptionError("A packed model runs on onnxruntime, on the CPU: leave out --engine and --device.")
