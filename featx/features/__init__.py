"""Finished tables of features: `Features`, read lazily, larger than memory if need be; `join`, several side by side."""

from featx.features.features import Features
from featx.features.joining import join, joined_if_tables, opened
from featx.features.label_log import LabelLog, relabelled
from featx.features.tasks import in_task

__all__ = ["Features", "LabelLog", "in_task", "join", "joined_if_tables", "opened", "relabelled"]
