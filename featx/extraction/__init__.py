"""Extraction: where pixels, networks and tables meet. From a dataset and a request to tables in the cache.

`run` does all of ``featx extract``; `cached_rows` and `RowMaker` give the rows alone. Inside, in the
order of the work: `resolve` (names → recipes), `identify` (images → hashes), `lookup` (what is missing),
`ensure` and `fill` (compute it, segment by segment), `compute` (batches through the engine), `probing`
(does this machine compute the same?), `publish` (one table, and one for each augmented view).
"""

from featx.datasets import open_dataset
from featx.extraction.api import Extract, extract
from featx.extraction.lookup import open_store
from featx.extraction.options import ComputeOptions, Options, ViewOptions
from featx.extraction.outcome import Estimate, Extraction
from featx.extraction.ranks import Rank
from featx.extraction.rows import RowMaker, cached_rows, resolved_recipes
from featx.extraction.run import estimate, last_used, note_last_used, run
from featx.extraction.views import parse_views

__all__ = [
    "ComputeOptions",
    "Estimate",
    "Extract",
    "Extraction",
    "Options",
    "Rank",
    "RowMaker",
    "ViewOptions",
    "cached_rows",
    "estimate",
    "extract",
    "last_used",
    "note_last_used",
    "open_dataset",
    "open_store",
    "parse_views",
    "resolved_recipes",
    "run",
]
