"""The rows of a table labelled for something else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from featx.errors import DataError
from featx.features.features import Features
from featx.targets import classes_as_numbers


def in_task(table: Features, task: str) -> Features:
    """Return the rows labelled for `task`: classes that are called by numbers are numbers to a regression.

    Raises
    ------
    DataError
        If its labels are for something else, or it has augmented views, which a table in memory has not.
    """
    if task in ("auto", table.task):
        return table
    if task != "regress" or table.task != "classify" or not table.classes:
        raise DataError(
            f"The table is labelled to {table.task}, not to {task}. Extract the images again, which costs no forward "
            f"pass: featx extract DATA --task {task} --label-column {'a,b,c' if task == 'multilabel' else 'COLUMN'}"
        )
    if table.views > 1:
        raise DataError("The table has augmented views. Extract it again as numbers: featx extract DATA --task regress")
    numbers = classes_as_numbers(table.y, table.classes, "The table")
    return Features(replace(table.whole(), y=np.full(len(table), -1, np.int64), classes=(), targets=numbers))
