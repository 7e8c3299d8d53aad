"""The graph of a network in whole numbers of eight bits, calibrated on images."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Images that go through the network together while its ranges are seen.
_BATCH = 8
#: What is computed in whole numbers: products with weights, which take nearly all of the time, and the activations that
#: cut what they give, so that ranges are those of what is left.
_OPERATORS = ["Conv", "Gemm", "MatMul", "Relu", "Clip"]


def quantized(network: Any, pixels: NDArray[np.uint8]) -> Any:
    """Return the graph of a network with its products of eight-bit numbers.

    Weights have a scale for each channel, what is multiplied with them one for the range that it has in the images:
    B. Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference",
    2018.

    Parameters
    ----------
    network : onnx.ModelProto
        From fitted images, its only input, to rows.
    pixels : ndarray of uint8, shape (n, h, w, 3)
        Images like those to come.

    Returns
    -------
    onnx.ModelProto
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    name = network.graph.input[0].name

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(np.split(pixels, range(_BATCH, len(pixels), _BATCH)))

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            batch = next(self.batches, None)
            return None if batch is None else {name: batch}

    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory(prefix="featx-") as folder:
            whole, ready, done = (Path(folder) / f"{step}.onnx" for step in ("whole", "ready", "done"))
            onnx.save(network, whole)
            quant_pre_process(str(whole), str(ready), skip_symbolic_shape=True)
            quantize_static(
                str(ready),
                str(done),
                Images(),
                op_types_to_quantize=_OPERATORS,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                extra_options={"MatMulConstBOnly": True},
            )
            return onnx.load(done)
    finally:
        logging.disable(disabled)
