"""Processes that were launched together, by ``torchrun`` or with RANK and WORLD_SIZE set, and share the work."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TypeVar

from featx.devices import n_cuda_devices
from featx.threads import n_cores

_T = TypeVar("_T")


@dataclass(frozen=True)
class Rank:
    """Which of the processes of a launch this one is.

    Attributes
    ----------
    number, size : int
        Its place among all of them, and how many they are.
    local_number, local_size : int
        The same among those on this machine.
    """

    number: int = 0
    size: int = 1
    local_number: int = 0
    local_size: int = 1

    @classmethod
    def here(cls) -> Rank:
        """Read ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``LOCAL_WORLD_SIZE``; without them we are alone."""
        size, local_size = _number("WORLD_SIZE", 1), _number("LOCAL_WORLD_SIZE", 1)
        return cls(_number("RANK", 0) % size, size, _number("LOCAL_RANK", 0), local_size)

    def own_first(self, shares: list[_T]) -> list[_T]:
        """Return every size-th one from our own on, then those of the next rank, and so on.

        Examples
        --------
        >>> Rank(1, 2).own_first(["a", "b", "c", "d", "e"])
        ['b', 'd', 'a', 'c', 'e']
        """
        return [share for i in range(self.size) for share in shares[(self.number + i) % self.size :: self.size]]

    def n_decoders(self) -> int | None:
        """Return how many decoding processes are our share of this machine, None if all of it is ours."""
        if self.local_size == 1:
            return None
        return max(1, n_cores() // self.local_size)

    def device(self, device: str) -> str:
        """Return `device`, or our own one of several CUDA devices where it is ``auto`` or ``cuda``."""
        if device not in ("auto", "cuda") or self.local_size == 1:
            return device
        n_devices = n_cuda_devices()
        return f"cuda:{self.local_number % n_devices}" if n_devices else device


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() and int(text) >= default else default
