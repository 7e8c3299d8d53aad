"""The OpenVINO engine: the truncated network, converted once, and run on as many small requests as there are cores.

A request to each core beats one large batch on all of them: nobody waits at the end of each layer for a core that
a decoding process has taken meanwhile, and what passes from layer to layer fits the core's own cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.engines.graph import export, trace
from featx.errors import MissingExtraError, OptionError
from featx.recipe import EPOCH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from featx.backbones import Backbone
    from featx.engines.eager import Compute
    from featx.recipe import Recipe

#: Said explicitly: by itself OpenVINO computes in bf16 wherever the CPU has it.
_PRECISIONS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_CAPABILITIES = {"bf16": "BF16", "fp16": "FP16"}
_FILES = ("network.xml", "network.bin")


def installed() -> bool:
    """Tell whether the package openvino can be imported, without importing it."""
    return importlib.util.find_spec("openvino") is not None


def supports(precision: str) -> bool:
    """Tell whether this CPU computes in `precision` under OpenVINO."""
    import openvino

    offered = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return precision in _PRECISIONS and _CAPABILITIES.get(precision, "FP32") in offered


def build(backbone: Backbone, recipes: list[Recipe], request_size: int, networks: Path | None = None) -> Compute:
    """Return the OpenVINO computation of `recipes` on the CPU, of images in any multiple of `request_size`.

    Parameters
    ----------
    request_size : int
        Images that go through the network together.
    networks : Path, optional
        Folder that keeps converted networks; a network found there is not converted again.

    Raises
    ------
    MissingExtraError
        If openvino is not installed.
    OptionError
        If the CPU lacks the precision, or the network cannot be converted.
    """
    if not installed():
        raise MissingExtraError.of("openvino", "openvino", "--engine openvino")
    import openvino

    precision = recipes[0].precision
    if not supports(precision):
        raise OptionError(
            f"This CPU cannot run --precision {precision} under openvino. Type --engine eager, or drop it."
        )
    settings = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": _PRECISIONS[precision]}
    core = openvino.Core()
    with tempfile.TemporaryDirectory() as scratch:
        path = find(networks, backbone, recipes, request_size)
        if path is None:
            model = _convert(backbone, recipes, request_size)
            key = _key(backbone, recipes, request_size)
            # Also where it is not kept: a network read from a file rounds otherwise than one fresh from the converter.
            path = _keep(networks, key, model) or _write(Path(scratch), model)
        network = core.compile_model(core.read_model(path), "CPU", settings)
    return _in_requests(network, request_size)


def _in_requests(network: Any, request_size: int) -> Compute:
    """Return a compiled network of `request_size` images as a function of any multiple of them."""
    import openvino

    queue = openvino.AsyncInferQueue(network)
    row_shapes = [tuple(output.shape)[1:] for output in network.outputs]

    def compute(pixels: np.ndarray) -> list[np.ndarray]:
        rows = [np.empty((len(pixels), *shape), np.float32) for shape in row_shapes]

        def keep(request: Any, start: int) -> None:
            for array, output in zip(rows, request.output_tensors, strict=True):
                array[start : start + request_size] = output.data

        queue.set_callback(keep)
        for start in range(0, len(pixels), request_size):
            queue.start_async([pixels[start : start + request_size]], start, share_inputs=True)
        queue.wait_all()
        return rows

    return compute


def _convert(backbone: Backbone, recipes: list[Recipe], request_size: int) -> Any:
    """Convert the network, traced; exported where tracing fails or is no more."""
    import openvino

    frame = recipes[0].frame
    for graph in (trace, export):
        try:
            with _unreported():
                model = openvino.convert_model(graph(backbone, recipes, request_size))
            model.reshape([request_size, frame.height, frame.width, 3])
        except Exception as error:  # noqa: BLE001 - whatever PyTorch and the converter raise for what they do not know
            failure = error
        else:
            return model
    reason = next(iter(str(failure).splitlines()), type(failure).__name__)
    raise OptionError(f"openvino cannot convert {backbone.name} ({reason[:120]}). Type --engine eager.") from failure


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


def find(networks: Path | None, backbone: Backbone, recipes: list[Recipe], request_size: int) -> Path | None:
    """Return the converted network in the folder `networks`, if one is there whose bytes are those once written."""
    if networks is None:
        return None
    folder = networks / _key(backbone, recipes, request_size)
    try:
        sums = json.loads((folder / "sha256.json").read_text())
        intact = all(sums[name] == _sha256(folder / name) for name in _FILES)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return folder / _FILES[0] if intact else None


def _keep(networks: Path | None, key: str, model: Any) -> Path | None:
    """Write `model` so that a reader sees all of it or nothing; None where it cannot be kept."""
    if networks is None:
        return None
    try:
        networks.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=networks))
        path = _write(folder, model)
        (folder / "sha256.json").write_text(json.dumps({name: _sha256(folder / name) for name in _FILES}))
        shutil.rmtree(networks / key, ignore_errors=True)  # damaged, or we would have read it
        folder.rename(networks / key)
    except (OSError, RuntimeError):
        return None  # read-only, full, or another process was first: this run has its network either way
    return networks / key / path.name


def _write(folder: Path, model: Any) -> Path:
    import openvino

    path = folder / _FILES[0]
    openvino.save_model(model, path, compress_to_fp16=False)
    return path


def _key(backbone: Backbone, recipes: list[Recipe], request_size: int) -> str:
    """Name everything that decides the converted network; the precision is chosen when it is compiled."""
    versions = [EPOCH, *(importlib.metadata.version(name) for name in ("openvino", "torch"))]
    taps = [(recipe.layer, recipe.pool) for recipe in recipes]
    frame = recipes[0].frame
    decides = [versions, backbone.name, backbone.weights_digest, taps, frame.height, frame.width, request_size]
    text = json.dumps([*decides, backbone.mean, backbone.std])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
