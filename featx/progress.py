"""How far a long step is, and whom it tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a step is: `done` of `total` images after `seconds`, `waiting` of which went into waiting for pixels."""

    step: str
    done: int
    total: int
    seconds: float
    waiting: float = 0.0


#: Called with a `Progress` after each batch.
OnProgress = Callable[[Progress], None]
