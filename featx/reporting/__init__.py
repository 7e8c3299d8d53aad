"""What happened, for eyes: one page that loads nothing, and its pictures as files.

The room is not called ``report``, because that is the function: ``featx.report``.
"""

from __future__ import annotations

from featx.reporting.report import Report, report, report_predictions

__all__ = ["Report", "report", "report_predictions"]
