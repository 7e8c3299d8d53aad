"""One finished table of features: `Features`, read lazily, larger than memory if need be."""

from featx.features.features import Features

__all__ = ["Features"]
