"""From what a user asks (`Request`) to what that comes to (`Recipe`), without torch where a note remembers it."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING

from featx import __version__
from featx.errors import CacheError, OptionError
from featx.recipe import Recipe, Request

if TYPE_CHECKING:
    from featx.backbones import Backbone
    from featx.store import Store

#: Libraries whose version may change what a name resolves to.
_LIBRARIES = ("torch", "torchvision", "timm")


@dataclass
class Resolved:
    """A request, its recipes (one a layer), and the backbone once somebody needs it."""

    request: Request
    recipes: list[Recipe]
    _backbone: Backbone | None = field(default=None, repr=False)

    @property
    def backbone(self) -> Backbone:
        """The network itself; loaded on first use, and held against the recipes' digest."""
        if self._backbone is None:
            from featx import backbones

            backbone, recipes = backbones.resolve(self.request)
            if [r.key for r in recipes] != [r.key for r in self.recipes]:
                raise OptionError(
                    f"{self.request.backbone} is no longer what it was when this run began: "
                    "its weights file or library changed. Run the command again."
                )
            self._backbone = backbone
        return self._backbone


def resolve(request: Request, store: Store) -> Resolved:
    """Resolve names, weights and shapes of `request`.

    A note in the cache remembers the outcome for the same request, library versions and weight files
    (path, size, mtime, inode), so that a run that finds everything computed never imports torch.
    A user's own function is always called: nothing tells whether it changed.
    """
    name = _note_name(request)
    remembered = store.note(name)
    if remembered is not None and all(_stat(path) == stat for path, stat in remembered["files"].items()):
        return Resolved(request, [Recipe.from_json(text) for text in remembered["recipes"]])

    from featx import backbones

    backbone, recipes = backbones.resolve(request)
    if ":" in request.backbone:
        if request.version is None:
            raise OptionError(
                f"{request.backbone} is your own function: say which version of it made the features, "
                "for example --backbone-version 1, and raise it when the function changes."
            )
    else:
        files = {str(path): _stat(str(path)) for path in backbone.files}
        with contextlib.suppress(CacheError):  # a folder that cannot be written is refused when there are rows for it
            store.put_note(name, {"files": files, "recipes": [recipe.to_json() for recipe in recipes]})
    return Resolved(request, recipes, backbone)


def _note_name(request: Request) -> str:
    versions = [f"featx {__version__}", *(f"{library} {metadata.version(library)}" for library in _LIBRARIES)]
    return "recipe-" + hashlib.sha256("\n".join([request.to_json(), *versions]).encode()).hexdigest()[:32]


def _stat(path: str) -> list[int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - the path is a string in the note
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ino]
