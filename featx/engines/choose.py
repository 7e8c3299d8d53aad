"""Which engine, on which device, with which batch size, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from featx.engines import eager
from featx.engines.engine import Engine
from featx.errors import OptionError

if TYPE_CHECKING:
    from featx.backbones import Backbone
    from featx.recipe import Recipe

ENGINES = ("eager", "compile", "openvino")
#: Pixels in a batch that keep two cores busy and fit their caches: 32 images of 224×224.
_BATCH_PIXELS = 32 * 224 * 224


def open_engine(
    backbone: Backbone,
    recipes: list[Recipe],
    *,
    engine: str = "auto",
    device: str = "auto",
    batch_size: int | None = None,
    n_images: int | None = None,
) -> Engine:
    """Make the engine that computes `recipes`, all in one pass.

    Parameters
    ----------
    backbone : Backbone
    recipes : list of Recipe
        Of that backbone, from `featx.backbones.resolve`.
    engine : {"auto", "eager", "compile", "openvino"}
    device : {"auto", "cpu", "cuda", "cuda:I"}
        ``auto`` is CUDA where there is one. A device that is asked for and not there is an error, never the CPU.
    batch_size : int, optional
        Images in one forward; by default by image size.
    n_images : int, optional
        How many images will come: compiling must pay for itself.

    Raises
    ------
    OptionError
        If the engine, the device or the precision cannot be had.
    """
    if engine not in ("auto", *ENGINES):
        raise OptionError(f"--engine must be one of auto, {', '.join(ENGINES)}; got {engine!r}.")
    where = _device(device)
    batch_size = batch_size or default_batch_size(recipes)
    compute = eager.build(backbone, recipes, where)
    return Engine(compute, recipes, name="eager", batch_size=batch_size, why="eager was asked for.")


def default_batch_size(recipes: list[Recipe]) -> int:
    """Return a power of two, 8 to 256, by the pixels of one image.

    Examples
    --------
    32 images of 224×224, 256 of 32×32.
    """
    pixels = recipes[0].frame.height * recipes[0].frame.width
    size = 8
    while size < 256 and size * 2 * pixels <= _BATCH_PIXELS * 1.2:
        size *= 2
    return size


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        asked = torch.device(device)
    except RuntimeError as error:
        raise OptionError(f"--device must be auto, cpu, cuda or cuda:N; got {device!r}.") from error
    if asked.type not in {"cpu", "cuda"}:
        raise OptionError(f"--device must be auto, cpu, cuda or cuda:N; got {device!r}.")
    if asked.type == "cuda" and (asked.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise OptionError(f"--device {device} is not there: torch sees {found} CUDA devices. Type --device cpu.")
    return asked
