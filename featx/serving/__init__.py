"""A model behind HTTP: images in, what it says of them out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx.importing import later

if TYPE_CHECKING:
    from featx.serving.app import application
    from featx.serving.line import Line
    from featx.serving.server import Server
    from featx.serving.settings import Serving

__all__ = ["Line", "Server", "Serving", "application"]

if not TYPE_CHECKING:  # for a type checker a name that is not above is an error
    __getattr__ = later(
        __name__,
        {
            "featx.serving.app": "application",
            "featx.serving.line": "Line",
            "featx.serving.server": "Server",
            "featx.serving.settings": "Serving",
        },
    )
