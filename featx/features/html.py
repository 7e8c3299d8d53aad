"""Facts as a small table for notebooks."""

from __future__ import annotations

import html
from collections.abc import Iterable


def facts_html(title: str, facts: Iterable[tuple[str, object]]) -> str:
    """Return names and values as an HTML table; whatever they hold is only text, and empty values are left out.

    Examples
    --------
    >>> facts_html("Features", [("class", "<b>"), ("errors", "")])
    '<table><caption>Features</caption><tbody><tr><th>class</th><td>&lt;b&gt;</td></tr></tbody></table>'
    """
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in facts
        if str(value)
    )
    return f"<table><caption>{html.escape(title)}</caption><tbody>{rows}</tbody></table>"
