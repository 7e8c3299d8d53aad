"""matplotlib's SVG made fit to stand inside a page: no reference leaves it, no style leaks, colours are the page's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from featx.plots.style import INK, MUTED, RULE, SERIES

if TYPE_CHECKING:
    from collections.abc import Iterator

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
#: Colours of the plots → variables of the page, which have other values in dark mode.
_COLOURS = {INK: "currentColor", MUTED: "var(--muted)", RULE: "var(--rule)"} | {
    colour: f"var(--series-{i})" for i, colour in enumerate(SERIES)
}
_COLOUR = re.compile("|".join(_COLOURS))
_FONT = re.compile(r"font-family:[^;]*;?\s*")
#: What matplotlib sets for the whole document with a style element.
_LINES = "stroke-linejoin:round;stroke-linecap:butt"


def inline_svg(document: bytes, *, label: str, prefix: str) -> str:
    """Turn an SVG file of matplotlib into an ``<svg>`` element.

    Parameters
    ----------
    document : bytes
        The file, with text as text.
    label : str
        What is to be seen, for screen readers.
    prefix : str
        Makes ids unique among all pictures of a page.

    Returns
    -------
    str
        The element, without clip paths, style elements, metadata, namespaces or fixed size.
    """
    # The document is our own, written a moment ago.
    root = ET.fromstring(document)  # noqa: S314
    _drop(root, {"metadata", "style", "clipPath"})
    used = {element.attrib[_HREF].removeprefix("#") for element in root.iter() if _HREF in element.attrib}
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        element.attrib = dict(_attributes(element, used, prefix))
        element.tail = None
        element.text = element.text if element.tag in ("text", "tspan") else None
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label, "style": _LINES}
    return ET.tostring(root, encoding="unicode")


def _drop(root: ET.Element, names: set[str]) -> None:
    for parent in list(root.iter()):
        for child in list(parent):
            if not isinstance(child.tag, str) or child.tag.removeprefix(_SVG) in names:
                parent.remove(child)
        if parent.tag == f"{_SVG}defs" and not len(parent):
            parent.tag = f"{_SVG}g"


def _attributes(element: ET.Element, used: set[str], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in element.attrib.items():
        if name == _HREF:
            yield "href", f"#{prefix}-{value.removeprefix('#')}"
        elif name == "id":
            if value in used:
                yield "id", f"{prefix}-{value}"
        elif name != "clip-path":
            text = _COLOUR.sub(lambda match: _COLOURS[match.group()], value)
            yield name, _FONT.sub("", text)
