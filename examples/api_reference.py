"""Write the reference of featx's Python interface: a line ``::: featx.fit`` of a page becomes what `featx.fit` says.

A hook of the site (see .mkdocs.yml). Signatures and docstrings are read from the imported package, since options come
from settings that no reader of source files knows.
"""

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

_LINE = re.compile(r"^::: (\S+)$", re.MULTILINE)
_SECTION = re.compile(r"\n([A-Z][A-Za-z ]+)\n-{3,}(?=\n|$)")
#: Sections of a docstring whose entries are names with a description.
_NAMED = ("Parameters", "Attributes", "Returns", "Raises", "Yields")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the reference in place of each line that asks for it; mkdocs calls this for every page."""
    return _LINE.sub(lambda found: entry(found[1]), markdown)


def entry(name: str) -> str:
    """Return the Markdown of a public function or class by its dotted name."""
    module, _, last = name.rpartition(".")
    value = getattr(importlib.import_module(module), last)
    documentation = inspect.getdoc(value) or ""
    made_by_hand = not inspect.isclass(value) or "\nParameters\n" in documentation
    parts = [f"### {name}", *([_signature(name, value)] if made_by_hand else []), *_documentation(documentation)]
    for member, attribute in vars(value).items() if inspect.isclass(value) else ():
        parts += _member(last, member, attribute)
    return "\n\n".join(parts)


def _member(owner: str, name: str, attribute: Any) -> list[str]:
    """Return the Markdown of a method or property; nothing for what is private or has no words of its own."""
    value = attribute.__func__ if isinstance(attribute, classmethod | staticmethod) else attribute
    if name.startswith("_") or not (inspect.isfunction(value) or isinstance(value, property)):
        return []
    documentation = [*_documentation(inspect.getdoc(value) or "")]
    signature = [_signature(f"{owner}.{name}", value)] if inspect.isfunction(value) else []
    return [f"#### {owner}.{name}", *signature, *documentation] if documentation else []


def _signature(name: str, value: Any) -> str:
    """Return a call with all parameters and their defaults, one a line where it is long."""
    parameters = inspect.signature(value).parameters.values()
    shown = [
        str(parameter.replace(annotation=inspect.Parameter.empty))
        for parameter in parameters
        if parameter.name not in ("self", "cls") and parameter.annotation != "Never"
    ]
    kinds = [parameter.kind for parameter in parameters]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        first = kinds.index(inspect.Parameter.KEYWORD_ONLY) - sum(p.name in ("self", "cls") for p in parameters)
        shown.insert(first, "*")
    call = f"{name}({', '.join(shown)})"
    if len(call) > 80:
        call = f"{name}(\n" + "".join(f"    {one},\n" for one in shown) + ")"
    return f"```text\n{call}\n```"


def _documentation(text: str) -> Iterator[str]:
    """Yield the blocks of a numpydoc docstring as Markdown."""
    summary, *sections = _SECTION.split("\n" + text.replace("``", "`"))
    yield from _paragraphs(summary)
    for title, words in zip(sections[::2], sections[1::2], strict=True):
        yield f"**{title}**"
        if title in _NAMED:
            yield "\n".join(_entries(words.strip("\n")))
        else:
            yield from _paragraphs(words)


def _paragraphs(words: str) -> Iterator[str]:
    for one in words.strip("\n").split("\n\n"):
        if one:
            yield f"```pycon\n{one}\n```" if ">>>" in one else one


def _entries(words: str) -> Iterator[str]:
    """Yield a list item for each name, or type, with the lines indented below it."""
    for found in re.split(r"\n(?=\S)", words):
        name, _, told = found.partition("\n")
        name, colon, kind = name.replace("`", "").partition(" : ")
        told = " ".join(told.split())
        yield f"- `{name}`{': ' if colon else ''}{kind}{'. ' if told and colon else ': ' if told else ''}{told}"
