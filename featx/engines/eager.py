"""The eager engine: PyTorch as it is, channels last, batch norm folded, on the CPU or a CUDA device."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from featx.engines.folding import fold_batch_norm
from featx.engines.pixels import blank, from_pixels

if TYPE_CHECKING:
    from featx.backbones import Backbone
    from featx.recipe import Recipe

#: uint8 images (n, h, w, 3) → one float32 array of rows for each recipe.
Compute = Callable[[np.ndarray], list[np.ndarray]]

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def build(backbone: Backbone, recipes: list[Recipe], device: torch.device) -> Compute:
    """Return the eager computation of `recipes` on `device`."""
    tapped = frozenset(f"network.module.{recipe.layer}" for recipe in recipes)
    with arithmetic(torch.device("cpu"), "fp32"):  # bf16 products, if the process has set them, hide what folding does
        network = fold_batch_norm(from_pixels(backbone, recipes), blank(recipes, 1), keep=tapped)
    return compute_with(network, device, recipes[0].precision)


def compute_with(network: nn.Module, device: torch.device, precision: str) -> Compute:
    """Return `network` as a function of numpy arrays, on `device`, computing in `precision`."""
    network = network.to(device).to(memory_format=torch.channels_last)

    def compute(pixels: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode(), arithmetic(device, precision):
            rows = network(torch.from_numpy(pixels).to(device, non_blocking=True))
            return [row.float().cpu().numpy() for row in rows]

    return compute


@contextlib.contextmanager
def arithmetic(device: torch.device, precision: str) -> Iterator[None]:
    """Compute in `precision` and nothing else, whatever the process has set; leave its settings as they were."""
    products = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    dtype = _AUTOCAST.get(precision)
    try:
        with (
            torch.backends.cudnn.flags(
                enabled=True, benchmark=False, deterministic=True, allow_tf32=precision == "tf32"
            ),
            torch.autocast(device.type, dtype, enabled=True) if dtype else contextlib.nullcontext(),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(products)
