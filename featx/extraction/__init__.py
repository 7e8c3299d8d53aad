"""Extraction: where pixels, networks and tables meet. From a dataset and a request to tables in the cache.

To be read in this order: `run` (the whole of ``featx extract``, to the published tables), `plan` (what is asked,
resolved and identified, and which rows are missing), `executors` (who computes them, on which engine), `segments`
(read, computed in batches and committed, one by one). Beside the line, `rows` gives rows in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx.importing import later

if TYPE_CHECKING:
    from featx.datasets import open_dataset
    from featx.extraction.api import extract
    from featx.extraction.executors import Executor, Rank
    from featx.extraction.extracting import Estimate, Extraction, estimate, run
    from featx.extraction.options import (
        ComputeOptions,
        ErrorOptions,
        MachineOptions,
        Options,
        ViewOptions,
        parse_views,
    )
    from featx.extraction.plan import identify, resolved_recipes
    from featx.extraction.rows import RowMaker, cached_rows
    from featx.extraction.settings import Extract
    from featx.store.opening import last_used, note_last_used, open_store

__all__ = [
    "ComputeOptions",
    "ErrorOptions",
    "Estimate",
    "Executor",
    "Extract",
    "Extraction",
    "MachineOptions",
    "Options",
    "Rank",
    "RowMaker",
    "ViewOptions",
    "cached_rows",
    "estimate",
    "extract",
    "identify",
    "last_used",
    "note_last_used",
    "open_dataset",
    "open_store",
    "parse_views",
    "resolved_recipes",
    "run",
]

if not TYPE_CHECKING:  # for a type checker a name that is not above is an error
    __getattr__ = later(
        __name__,
        {
            "featx.datasets": "open_dataset",
            "featx.extraction.api": "extract",
            "featx.extraction.executors": "Executor Rank",
            "featx.extraction.options": "ComputeOptions ErrorOptions MachineOptions Options ViewOptions parse_views",
            "featx.extraction.settings": "Extract",
            "featx.extraction.plan": "identify resolved_recipes",
            "featx.extraction.rows": "RowMaker cached_rows",
            "featx.extraction.extracting": "Estimate Extraction estimate run",
            "featx.store.opening": "last_used note_last_used open_store",
        },
    )
