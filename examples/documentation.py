"""Write the pages of the documentation that are made from something else, as hooks of the site (see .mkdocs.yml).

A line ``::: featx.fit`` of a page becomes what `featx.fit` says: signatures and docstrings are read from the imported
package, since options come from settings that no reader of source files knows. A notebook becomes a page.
"""

import importlib
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_LINE = re.compile(r"^::: (\S+)$", re.MULTILINE)
_SECTION = re.compile(r"\n([A-Z][A-Za-z ]+)\n-{3,}(?=\n|$)")
#: Sections of a docstring whose entries are names with a description.
_NAMED = ("Parameters", "Attributes", "Returns", "Raises", "Yields")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the reference in place of each line that asks for it, and lead to notebooks as pages; for every page."""
    return _LINE.sub(lambda found: entry(found[1]), markdown).replace(".ipynb)", ".md)")


def on_files(files: Any, config: Any) -> Any:
    """Add a page for each notebook among the files of the site."""
    from mkdocs.structure.files import File

    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        page = notebook(json.loads(Path(file.abs_src_path).read_text()))
        files.append(File.generated(config, file.src_uri.replace(".ipynb", ".md"), content=page))
    return files


def notebook(content: dict[str, Any]) -> str:
    """Return a notebook as Markdown, with what its cells printed and drew."""
    parts = []
    for cell in content["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        outputs = cell.get("outputs", ())
        printed = "".join("".join(output["text"]) for output in outputs if output.get("name") == "stdout")
        values = ["".join(output["data"].get("text/plain", ())) for output in outputs if "data" in output]
        drawn = ["".join(output["data"]["image/png"]) for output in outputs if "image/png" in output.get("data", ())]
        parts += [f"```text\n{text.rstrip()}\n```" for text in (printed, *([] if drawn else values)) if text.strip()]
        parts += [f"![What the cell draws](data:image/png;base64,{picture.strip()})" for picture in drawn]
    return "\n\n".join(parts)


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
