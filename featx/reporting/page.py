"""From findings to HTML: one file that loads nothing, in which whatever came from outside is only text."""

from __future__ import annotations

import base64
import json
import math
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from featx import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jinja2 import Environment

    from featx.reporting.thumbnails import Thumbnails

#: What a page knows of a row that it shows: id, true class, predicted class, probability.
Shown = tuple[str, int | None, int | None, float | None]


def render(template: str, *, rows: Mapping[int, Shown], thumbnails: Thumbnails, **context: Any) -> str:
    """Return a whole page.

    Parameters
    ----------
    template : str
        ``report.html`` or ``predictions.html``.
    rows : mapping of int to tuple
        What is said of each row that is shown.
    thumbnails : dict of int to bytes
        JPEGs of some of them.
    **context
        What the template asks for; ``classes``, and ``data`` for the page's script.
    """
    shown = {row: base64.b64encode(jpeg).decode() for row, jpeg in thumbnails.items() if row in rows}
    data = {"classes": context["classes"], "rows": rows, "thumbnails": shown} | context.pop("data", {})
    return (
        _environment()
        .get_template(template)
        .render(
            css=_own("page.css"),
            js=_own("page.js"),
            data=script_json(data),
            version=__version__,
            date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            rows=rows,
            thumbnails=thumbnails,
            **context,
        )
    )


def script_json(data: Any) -> Markup:
    r"""Return JSON that may stand in a script element, whatever its strings hold.

    Examples
    --------
    >>> script_json({"name": "</script> //x"})
    Markup('{"name":"\\u003c/script\\u003e \\/\\/x"}')
    """
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    # No tag ends the element; and no base64 ever spells an address, which a careful reader might search for.
    for character, escape in (("<", r"\u003c"), (">", r"\u003e"), ("&", r"\u0026"), ("//", r"\/\/")):
        text = text.replace(character, escape)
    return Markup(text)  # noqa: S704 - just escaped


def percent(share: float | None) -> str:
    r"""Write a share for people.

    Examples
    --------
    >>> percent(0.8007), percent(None)
    ('80.1\u202f%', '–')
    """
    return "–" if share is None or math.isnan(share) else f"{100 * share:.1f}\u202f%"


def number(value: float | None) -> str:
    """Write a number for scripts and style sheets; nothing for one that is not defined."""
    return "" if value is None or math.isnan(value) else f"{value:.6g}"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("featx.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, number=number)
    return environment


def _own(name: str) -> Markup:
    """Return a file of our own that goes into the page as it is."""
    return Markup(files("featx.reporting").joinpath("templates", name).read_text("utf-8"))  # noqa: S704
