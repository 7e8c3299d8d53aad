"""Imports that wait until they are needed: public names of a package, and what libraries import for other users.

A small command takes as long as what it imports, and most of that serves functions that it does not call.
"""

from __future__ import annotations

import importlib
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


def later(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package.

    Parameters
    ----------
    package : str
        Its name.
    homes : mapping of str to str
        Module → public names that it defines, with spaces between. No module in the package may have the name of one:
        once it is imported, the package has it by that name.

    Examples
    --------
    >>> later("featx", {"featx.recipe": "Recipe Request"})("Request").__name__
    'Request'
    """
    modules = {name: module for module, names in homes.items() for name in names.split()}

    def find(name: str) -> Any:
        if name in modules:
            return getattr(importlib.import_module(modules[name]), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find


class _Later(ModuleType):
    """Stands for a module until somebody asks it for something."""

    def __getattr__(self, name: str) -> Any:
        if name in ("__file__", "__path__"):  # which `inspect` and ``from … import`` ask every module for
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def imported_later(*names: str, **functions: Any) -> Iterator[None]:
    """Let imports of these modules in a block wait until they are used: those that are not loaded yet, and can be.

    After the block everything is as if it had not been there: who imports them then gets the modules themselves.

    Parameters
    ----------
    *names : str
        Modules, a package before what is in it. Importing the packages that these are in may import others of them:
        those come first.
    **functions : callable
        What stands for functions of these names, which a block asks the modules for.
    """
    stand_ins: dict[str, _Later] = {}
    for name in (name for name in names if name not in sys.modules):
        parent, _, child = name.rpartition(".")
        spec = None if parent in stand_ins else find_spec(name)
        if parent in stand_ins or spec:
            sys.modules[name] = stand_ins[name] = _Later(name)
            vars(stand_ins[name]).update(functions)
        if spec and spec.submodule_search_locations:
            stand_ins[name].__path__ = spec.submodule_search_locations  # a package, of which others may import parts
        if parent and name in stand_ins:
            setattr(sys.modules[parent], child, stand_ins[name])
    try:
        yield
    finally:
        for name, stand_in in reversed(stand_ins.items()):
            parent, _, child = name.rpartition(".")
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]
            if parent and vars(sys.modules[parent]).get(child) is stand_in:
                delattr(sys.modules[parent], child)  # numpy and scipy import it when it is asked for
