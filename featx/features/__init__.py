"""One finished table of features: `Features`, read lazily, larger than memory if need be."""

from featx.features.features import Features
from featx.features.tasks import in_task, targets_of

__all__ = ["Features", "in_task", "targets_of"]
