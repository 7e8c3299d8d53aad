"""PyTorch's compiler: it takes longer to import than torchvision and timm together, and few runs compile anything."""

from __future__ import annotations

import functools
import importlib
import sys
from typing import TYPE_CHECKING, Any

from featx.importing import imported_later

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import _GeneratorContextManager


def without_compiler() -> _GeneratorContextManager[None]:
    """Return the context, or decorator, in which libraries that have little to ask of it do not import it.

    torchvision imports it for a question that its RoI align asks when it is called; timm, and PyTorch itself where a
    network runs without numbers, to exempt functions from compilation.
    """
    return imported_later(
        "torch._dynamo", "torch._dynamo.utils", disable=_exempt, is_compile_supported=_is_compile_supported
    )


def _is_compile_supported(device: str) -> Any:
    return importlib.import_module("torch._dynamo.utils").is_compile_supported(device)


def _exempt(function: Callable[..., Any], *how: Any, **more: Any) -> Callable[..., Any]:
    """Return `function` as ``torch._dynamo.disable`` does, which does so once there is a compiler to be exempt from."""

    @functools.cache
    def exempt() -> Any:
        return importlib.import_module("torch._dynamo").disable(function, *how, **more)

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        return (exempt() if "torch._dynamo.eval_frame" in sys.modules else function)(*args, **options)

    return call
