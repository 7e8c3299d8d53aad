"""Settings of a comparison: what ``featx compare`` and `featx.compare` can be told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featx.datasets import Source
from featx.extraction import Options, ViewOptions
from featx.progress import OnProgress
from featx.recipe import FeatureOptions
from featx.settings import option


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What is compared with what."""

    backbones: Sequence[str] = option(("efficientnet_lite0",), "Names of `featx backbones`.", metavar="A,B")
    layers: Sequence[str] = option(
        ("default",),
        "Names of `featx layers`; backbone:layer is for that backbone alone, default is where one is tapped if none "
        "is named. Of stages, quarters and all, each stands side by side in one row.",
        metavar="L,M|stages|quarters|all",
    )
    pools: Sequence[str] = option(("auto",), "How a layer's output becomes a row; each with each layer.", metavar="P,Q")
    heads: Sequence[str] = option(("logreg", "mlp"), "Names of `featx heads`, or none.", metavar="X,Y|none")
    finetune: bool | Sequence[str] = option(False, "Fine-tune every backbone as well; --ft-OPTION says how.")
    scratch: Sequence[str] = option(
        (), "Networks to train from scratch: scratch/… of `featx backbones`, as leaky-deep.", metavar="NAME,…"
    )
    shots: Sequence[int | None] = option(
        (None,), "Training images a class; fewer are part of more. Validation and test stay.", metavar="50,500,all"
    )
    seeds: Sequence[int] = option(
        (0,), "Of subsets and fits; a row shows the run of median validation accuracy.", metavar="0,1,2"
    )
    test: bool = option(True, "Look at the test rows, which never choose.", flags=("--test/--no-test",))


@dataclass(frozen=True, kw_only=True)
class Compare(Source, ViewOptions, Options, FeatureOptions, Compared):
    """All that ``featx compare`` and `featx.compare` can be told."""

    settings: Mapping[str, Mapping[str, Any]] | None = None
    ft: Mapping[str, Any] | None = None
    output: str | Path | None = None
    cache: str | Path | None = None
    on_progress: OnProgress | None = None
    note: Callable[[str], None] | None = None
