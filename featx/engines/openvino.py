"""The OpenVINO engine: the truncated network, converted once, and run on as many small requests as there are cores.

A request to each core beats one large batch on all of them: nobody waits at the end of each layer for a core that
a decoding process has taken meanwhile, and what passes from layer to layer fits the core's own cache.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import resource
import shutil
import sys
import tempfile
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.engines import kept
from featx.errors import MissingExtraError, OptionError
from featx.machine import n_cores
from featx.probe import distance, tolerance
from featx.recipe import EPOCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from featx.backbones import Backbone
    from featx.engines.pytorch import Compute
    from featx.recipe import Recipe

#: Said explicitly: by itself OpenVINO computes in bf16 wherever the CPU has it.
_PRECISIONS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_CAPABILITIES = {"bf16": "BF16", "fp16": "FP16"}
#: The binding sets itself up at the first arrays that it is given and returns, and two threads that are first at once
#: wait for each other for ever, one with the interpreter's lock and one with the binding's. So every network is opened,
#: and answers once, in one thread at a time, before a pool of threads asks it anything.
_FIRST = threading.Lock()
#: A temporary folder with less than this is full.
_LEAST_FREE_BYTES = 1 << 20
#: A process that may grow by less than this is too small for OpenVINO's threads.
_LEAST_ROOM_BYTES = 1 << 30
#: Images, at least, on which a converted network is held against PyTorch.
_IMAGES_COMPARED = 4


def installed() -> bool:
    """Tell whether the package openvino can be imported, without importing it."""
    return importlib.util.find_spec("openvino") is not None


def supports(precision: str) -> bool:
    """Tell whether this CPU computes in `precision` under OpenVINO."""
    offered = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return precision in _PRECISIONS and _CAPABILITIES.get(precision, "FP32") in offered


def _core() -> Any:
    """Return OpenVINO with its plugin for processors, which a thread that has ended since has loaded.

    The plugin gives the thread that loads it another stack for signals, and unmaps it when the last network is gone,
    though the thread may still have it (`SigAltStackSetup` in its plugin.cpp): the next Ctrl-C would be a crash.
    """
    import openvino

    core = openvino.Core()
    loading = threading.Thread(target=core.get_property, args=("CPU", "FULL_DEVICE_NAME"))
    loading.start()
    loading.join()
    return core


def build(
    backbone: Backbone | Callable[[], Backbone],
    recipes: list[Recipe],
    request_size: int,
    networks: Path | None = None,
    plain: Compute | None = None,
) -> CompiledNetwork:
    """Return the OpenVINO computation of `recipes` on the CPU, of `request_size` images at a time.

    Parameters
    ----------
    backbone : Backbone, or a callable that returns it
        Asked for only where the network must be converted.
    recipes : list of Recipe
    request_size : int
        Images that go through the network together.
    networks : Path, optional
        Folder that keeps converted networks; a network found there is not converted again.
    plain : callable, optional
        The eager computation of the same, which a converted network is held against, if there is one already.

    Raises
    ------
    MissingExtraError
        If openvino is not installed.
    OptionError
        If the CPU lacks the precision, or the network cannot be converted.
    """
    if not installed():
        raise MissingExtraError.of("openvino", "openvino", "--engine openvino")

    precision = recipes[0].precision
    if not supports(precision):
        raise OptionError(
            f"This CPU cannot run --precision {precision} under openvino. Type --engine eager, or drop it."
        )
    with _FIRST:
        return _build(backbone, recipes, request_size, networks, plain)


def _build(
    backbone: Backbone | Callable[[], Backbone],
    recipes: list[Recipe],
    request_size: int,
    networks: Path | None,
    plain: Compute | None,
) -> CompiledNetwork:
    if found := kept.find(networks, decides(recipes, request_size)):
        return _open(found.path, recipes, request_size)
    import torch

    from featx.engines.pytorch import eager, export, trace

    backbone, why = backbone() if callable(backbone) else backbone, ""
    for graph in (trace, export):
        # From a file in any case: a network read from one rounds otherwise than one fresh from the converter.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            try:
                path = _write(Path(scratch), _convert(graph(backbone, recipes, request_size), recipes, request_size))
            except Exception as error:  # noqa: BLE001 - whatever PyTorch or the converter raise for what they cannot
                why = next(iter(str(error).splitlines()), type(error).__name__)[:120]
                if shutil.disk_usage(scratch).free < _LEAST_FREE_BYTES:
                    why = f"{Path(scratch).parent} is full: make room, or name another folder by TMPDIR"
                continue
            network = _open(path, recipes, request_size)
            plain = plain or eager(backbone, recipes, torch.device("cpu"))
            if agrees(network, plain, recipes, request_size):
                of = f"{backbone.name} {' '.join(recipe.layer for recipe in recipes)}"
                kept.keep(networks, decides(recipes, request_size), path, of)
                return network
            why = "it computes other features than PyTorch"
    raise OptionError(f"openvino cannot convert {backbone.name} ({why}). Type --engine eager.")


def reopen(path: Path, recipes: list[Recipe], request_size: int) -> CompiledNetwork:
    """Return a converted network for `request_size` images at a time, whatever number it was converted for.

    Raises
    ------
    OptionError
        If its graph holds for that number of images only.
    """
    with _FIRST:
        return _open(path, recipes, request_size)


def _open(path: Path, recipes: list[Recipe], request_size: int) -> CompiledNetwork:
    core, frame = _core(), recipes[0].frame
    model, shape = core.read_model(path), [request_size, frame.height, frame.width, 3]
    rows = [[request_size, *recipe.shape] for recipe in recipes]
    if list(model.input().shape) != shape:
        try:
            model.reshape(shape)
        except RuntimeError as error:
            raise OptionError(f"The converted network takes no {request_size} images at a time.") from error
    if [list(output.shape) for output in model.outputs] != rows:
        raise OptionError(f"The converted network takes no {request_size} images at a time.")
    settings = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": _PRECISIONS[recipes[0].precision]}
    if n_cores() < (os.cpu_count() or 1):  # it knows of no quota
        settings["INFERENCE_NUM_THREADS"] = str(n_cores())
    _check_room()
    network = CompiledNetwork(core.compile_model(model, "CPU", settings))
    network(np.zeros(shape, np.uint8))
    return network


def _check_room() -> None:
    """Refuse where ulimit -v leaves this process too little: OpenVINO would wait for ever, deaf to Ctrl-C."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY or sys.platform != "linux":
        return
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    if limit - used < _LEAST_ROOM_BYTES:
        raise OptionError(
            f"Too little memory for openvino: {used / 2**30:.1f} GiB of at most {limit / 2**30:.1f} are in use. "
            "Raise the limit (ulimit -v unlimited), or type --engine eager."
        )


class CompiledNetwork:
    """A compiled network as a function of the images of one request, for as many threads at once as it is good for.

    Attributes
    ----------
    n_at_once : int
        Requests that OpenVINO works on at the same time: one a core, mostly.
    """

    def __init__(self, compiled: Any) -> None:
        self.n_at_once: int = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(self.n_at_once):
            self._idle.put(compiled.create_infer_request())

    def __call__(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Return one float32 array of rows for each recipe."""
        request = self._idle.get()
        try:
            return list(request.infer([pixels], share_inputs=True).to_tuple())
        finally:
            self._idle.put(request)


def _convert(graph: Any, recipes: list[Recipe], request_size: int) -> Any:
    import openvino

    with _unreported():
        model = openvino.convert_model(graph)
    frame = recipes[0].frame
    model.reshape([request_size, frame.height, frame.width, 3])
    return model


def agrees(network: Compute, plain: Compute, recipes: list[Recipe], request_size: int) -> bool:
    """Whether a converted network computes what PyTorch does, on images that it was not traced on, from black to noise.

    Tracing follows one way through the network; one that looks at its numbers may have taken another.
    """
    from featx.engines.pytorch import blank

    n = request_size * -(-_IMAGES_COMPARED // request_size)
    noise = blank(recipes, n).numpy()[:, ::-1]
    pixels = (noise * np.linspace(0, 1, n)[:, None, None, None]).astype(np.uint8)
    answers = [network(pixels[start : start + request_size]) for start in range(0, n, request_size)]
    converted, allowed = map(np.concatenate, zip(*answers, strict=True)), tolerance(recipes[0].precision)
    # What is not finite is to be so in both.
    pairs = zip(plain(pixels), converted, strict=True)
    return all(distance(np.nan_to_num(a), np.nan_to_num(b)) <= allowed for a, b in pairs)


@contextlib.contextmanager
def _unreported() -> Iterator[None]:
    """Keep the converter from reporting each conversion to its makers: our users were not asked.

    It reports wherever nobody has opted out, but for continuous integration, so that is what it is told.
    """
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    try:
        yield
    finally:
        del os.environ["CI"]
        if before is not None:
            os.environ["CI"] = before


def _write(folder: Path, model: Any) -> Path:
    import openvino

    path = folder / kept.FILES[0]
    openvino.save_model(model, path, compress_to_fp16=False)
    return path


def decides(recipes: list[Recipe], request_size: int) -> list[Any]:
    """Return everything that decides the converted network; the precision is chosen when it is compiled."""
    versions = [EPOCH, *(importlib.metadata.version(name) for name in ("openvino", "torch"))]
    taps = [[recipe.layer, recipe.pool] for recipe in recipes]
    own, frame = recipes[0], recipes[0].frame
    made = [versions, own.backbone, own.version, own.weights_digest, taps, frame.height, frame.width, request_size]
    return [*made, list(own.mean), list(own.std)]
