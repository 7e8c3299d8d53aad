"""`featx explore`: a table of images as a local page on which it is looked at, searched, cleaned and labelled."""

from __future__ import annotations

from featx.exploring.session import Session, default_log

__all__ = ["Session", "default_log"]
