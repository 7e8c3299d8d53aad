"""A model for others: its card, and its place on the Hugging Face Hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx.importing import later

if TYPE_CHECKING:
    from featx.sharing.model_card import card
    from featx.sharing.pushing import push

__all__ = ["card", "push"]

if not TYPE_CHECKING:  # for a type checker a name that is not above is an error
    __getattr__ = later(__name__, {"featx.sharing.model_card": "card", "featx.sharing.pushing": "push"})
