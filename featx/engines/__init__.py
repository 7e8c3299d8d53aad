"""Engines: how a truncated network is run. Engines of one precision give the same features within tier B."""

from featx.engines.choose import gain_of_bf16, open_engine
from featx.engines.engine import Engine

__all__ = ["Engine", "gain_of_bf16", "open_engine"]
