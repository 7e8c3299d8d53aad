"""Extraction: where pixels, networks and tables meet. From a dataset and a request to tables in the cache.

To be read in this order: `run` (the whole of ``featx extract``, to the published tables), `plan` (what is asked,
resolved and identified, and which rows are missing), `executors` (who computes them, on which engine), `segments`
(read, computed in batches and committed, one by one). Beside the line, `rows` gives rows in memory.
"""

from featx.datasets import open_dataset
from featx.extraction.api import Extract, extract
from featx.extraction.executors import Executor, Rank
from featx.extraction.options import ComputeOptions, ErrorOptions, MachineOptions, Options, ViewOptions, parse_views
from featx.extraction.plan import identify, open_store, resolved_recipes
from featx.extraction.rows import RowMaker, cached_rows
from featx.extraction.run import Estimate, Extraction, estimate, last_used, note_last_used, run

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
