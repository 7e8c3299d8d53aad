"""Packed models for OpenVINO and for PyTorch: written, and run to be checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    Run = Callable[[NDArray[Any]], NDArray[Any]]


def write_openvino(graph: Any, path: Path, *, half: bool) -> Run:
    """Write an `onnx.ModelProto` in OpenVINO's form, of one image at a time, and return what runs the file.

    Parameters
    ----------
    graph : onnx.ModelProto
    path : Path
        ``….xml``; the weights go beside it.
    half : bool
        Whether to keep the weights in half precision.

    Raises
    ------
    OptionError
        If OpenVINO does not take the graph.
    """
    import openvino

    whole = path.with_suffix(".onnx")
    whole.write_bytes(graph.SerializeToString())
    try:
        model = openvino.convert_model(whole)
        # Of any number of images, its first answer is wrong (seen with OpenVINO 2026.4).
        model.reshape({0: [1, -1, -1, 3]})
        for entry in graph.metadata_props:
            model.set_rt_info(entry.value, ["featx", entry.key])
        openvino.save_model(model, path, compress_to_fp16=half)
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.Core().compile_model(path, "CPU", settings)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:120]
        raise OptionError(f"OpenVINO does not take this model ({reason}). Pack it for ONNX: -o model.onnx") from error
    finally:
        whole.unlink()
    return lambda images: np.asarray(compiled([images])[0])


def write_exported(module: nn.Module, path: Path) -> Run:
    """Write a module of uint8 images (n, h, w, 3) as an exported program of PyTorch, and return what runs the file.

    Raises
    ------
    OptionError
        If PyTorch cannot export it.
    """
    import torch

    from featx.packing.graph import FITTING_SIDES, fitting_example, silent

    try:
        with silent():
            frames = [part.frame for part in module.fits.frames]  # type: ignore[union-attr]
            program = torch.export.export(
                module.eval(), (fitting_example(frames),), dynamic_shapes=(FITTING_SIDES,), strict=False
            )
            torch.export.save(program, path)
            loaded = torch.export.load(path).module()
    except Exception as error:  # whatever PyTorch raises for what it cannot
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise OptionError(f"PyTorch cannot export this model ({reason}). Pack it for ONNX: -o model.onnx") from error

    def run(images: NDArray[Any]) -> NDArray[Any]:
        with torch.no_grad():
            return np.asarray(loaded(torch.from_numpy(np.array(images)))[0])

    return run
