"""Graphs in the ONNX form: read from files, cut into parts, and opened to be run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from featx.errors import MissingDataError, MissingExtraError, ModelFileError
from featx.machine import n_cores

if TYPE_CHECKING:
    from collections.abc import Sequence


def read(path: Path) -> Any:
    """Return the `onnx.ModelProto` of a file that has all of it within.

    Raises
    ------
    MissingExtraError
        If onnxruntime or onnx is not installed.
    MissingDataError
        If there is no such file.
    ModelFileError
        If it is damaged.
    """
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


def part_between(graph: Any, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """Return the part of a graph that makes `outputs` of `inputs`.

    Parameters
    ----------
    graph : onnx.ModelProto
    inputs, outputs : sequence of str
        Its own, or values that it tells the types of.
    """
    import onnx

    part = onnx.ModelProto()
    part.CopyFrom(graph)
    used, nodes = set(outputs), []
    for node in reversed(graph.graph.node):
        if used & set(node.output) and not set(inputs) & set(node.output):
            nodes.append(node)
            used |= set(node.input)
    known = {value.name: value for value in (*graph.graph.input, *graph.graph.value_info, *graph.graph.output)}
    fields: tuple[tuple[Any, list[Any]], ...] = (
        (part.graph.node, nodes[::-1]),
        (part.graph.initializer, [tensor for tensor in graph.graph.initializer if tensor.name in used]),
        (part.graph.input, [known[name] for name in inputs if name in used]),
        (part.graph.output, [known[name] for name in outputs]),
        (part.graph.value_info, []),
    )
    for field, values in fields:
        del field[:]
        field.extend(values)
    return part


def session(graph: Any) -> Any:
    """Return an `onnxruntime.InferenceSession` of a graph, on the CPU.

    Raises
    ------
    ModelFileError
        If onnxruntime does not take it.
    """
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
