"""Settings of the questions to a table, in Python and on the command line."""

from __future__ import annotations

from dataclasses import dataclass

from featx.settings import Seeded, check, option


@dataclass(frozen=True, kw_only=True)
class Duplicating:
    """Which rows count as nearly the same."""

    near: float = option(0.98, "Cosine of features from which on images are the same.", metavar="S", above=0, most=1)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class Doubting(Seeded):
    """How labels are doubted."""

    n: int | None = option(None, "Rows listed at most.", metavar="N", flags=("-n",), least=1)
    folds: int = option(5, "Parts of which each is predicted by a fit on the others.", metavar="K", least=2, most=100)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class Suggesting(Seeded):
    """How many rows are suggested."""

    n: int = option(50, "Rows to label next.", metavar="N", flags=("-n",), least=1, most=1_000_000)

    def __post_init__(self) -> None:
        check(self)
