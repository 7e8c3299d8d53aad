"""Datasets: ordered rows of an id, an image, a label or none, and a split or none, from any source.

`open_dataset` understands what users have: folders, CSV files, arrays, Parquet, archives, the names of public
datasets. Nothing is decoded here, and nothing is kept in memory that can be read again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx.importing import later

if TYPE_CHECKING:
    from featx.datasets.dataset import UNLABELLED, Dataset
    from featx.datasets.opening import open_dataset, reopen
    from featx.datasets.settings import Source, TaskOptions, ValidationOptions
    from featx.datasets.splits import (
        DEFAULT_VAL,
        ValidationShare,
        draw_validation,
        shared_across_splits,
        split_warnings,
    )
    from featx.images import ImageData, item_id

__all__ = [
    "DEFAULT_VAL",
    "UNLABELLED",
    "Dataset",
    "ImageData",
    "Source",
    "TaskOptions",
    "ValidationOptions",
    "ValidationShare",
    "draw_validation",
    "item_id",
    "open_dataset",
    "reopen",
    "shared_across_splits",
    "split_warnings",
]

if not TYPE_CHECKING:  # for a type checker a name that is not above is an error
    __getattr__ = later(
        __name__,
        {
            "featx.datasets.dataset": "UNLABELLED Dataset",
            "featx.datasets.opening": "open_dataset reopen",
            "featx.datasets.settings": "Source TaskOptions ValidationOptions",
            "featx.datasets.splits": "DEFAULT_VAL ValidationShare draw_validation shared_across_splits split_warnings",
            "featx.images": "ImageData item_id",
        },
    )
