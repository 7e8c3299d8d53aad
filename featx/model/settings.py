"""Settings of models: what fits, files, predictions and evaluations can be told, in Python and on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Literal

from featx.datasets import TaskOptions, ValidationOptions
from featx.extraction.options import ComputeOptions, NumberOfViews
from featx.metrics import METRIC_CHOICES
from featx.settings import Seeded, check, option, parse_bytes, parse_seconds

#: Ways of scaling rows, see `featx.model.scaling`.
SCALES = ("none", "standard", "l2")
#: Ways in which the rows of several images become one, see `featx.features.items`.
COMBINATIONS = ("mean", "max", "mean+max", "attention", "slots")


@dataclass(frozen=True, kw_only=True)
class Relabelling:
    """Labels that people have given since a table was made."""

    labels: str | Path | None = option(
        None, "A log of `featx explore`, whose labels stand before those of the table.", metavar="FILE"
    )


@dataclass(frozen=True)
class Fit(Relabelling, NumberOfViews, TaskOptions, ValidationOptions, Seeded):
    """How a head is fitted on a table."""

    head: Any = option("mlp", "A name of `featx heads`, or package.module:Class.", positional=True)
    _: KW_ONLY
    settings: dict[str, Any] | None = None
    combine: str = option(
        "auto",
        "How images of an item become one row: by slots where they have them, else their mean; none goes by images.",
        choices=("auto", "none", *COMBINATIONS),
    )
    group_near_duplicates: float | None = option(
        None, "Cosine of features from which on images are a group: never on two sides.", metavar="S", above=0, most=1
    )
    scale: str = option("auto", "The step before the head, learned on train.", choices=("auto", *SCALES))
    cv: int | None = option(None, "Also cross-validate on train; with --search the folds choose.", metavar="K")
    search: str | None = option(None, 'Alternatives, for example "C=0.1,1,10"; validation chooses.', metavar="SPEC")
    metric: str | None = option(
        None,
        "What chooses of --search, --cv and the C of logreg; by default accuracy, of labels map, of numbers r2.",
        choices=METRIC_CHOICES,
        metavar="NAME",
    )
    refit: bool = option(False, "Fit once more on train and validation with what was chosen.")
    memory: int | str | None = option(None, "What a fit may take; a larger table is streamed.", metavar="2GiB")
    budget: float | str | None = option(
        None, "What --head auto may take, about; 30s where nobody says it.", metavar="30s"
    )
    test: bool = option(False, "Report the test split as well. It never chooses.")

    def __post_init__(self) -> None:
        check(self)
        if self.search is not None:
            from featx.model.search import parse_search

            parse_search(self.search)
        if self.memory is not None:
            parse_bytes(self.memory)
        if self.budget is not None:
            parse_seconds(self.budget)


@dataclass(frozen=True, kw_only=True)
class Backbones:
    """Several networks, whose features stand side by side."""

    backbones: Sequence[str] = option(
        (), "Several backbones side by side, of DATA; the layers and poolings are taken of each.", metavar="X,Y"
    )


@dataclass(frozen=True, kw_only=True)
class Ensemble(Seeded):
    """How much each of several models counts."""

    weights: str = option(
        "equal",
        "How much each model counts: alike, as validation rows of their tables choose, or a number each.",
        metavar="equal|validation|2,1",
    )


@dataclass(frozen=True, kw_only=True)
class Saving:
    """What goes into a model file."""

    bundle: bool = option(
        False, "Put the backbone into the model file, also as openvino reads it, so that it is not needed elsewhere."
    )
    unsafe_pickle: bool = option(
        False, "Pickle a head that has no data-only form: whoever loads it runs whatever is in it."
    )


@dataclass(frozen=True, kw_only=True)
class Loading:
    """What a model file may do when it is opened."""

    allow_code: bool = option(False, "Import the backbone function that the model names.")
    unsafe_pickle: bool = option(False, "Load a head that was pickled: that runs whatever is in it.")


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Which rows get no label."""

    min_probability: float = option(0.0, "Less probable rows get no label.", metavar="P", least=0, most=1)
    min_familiarity: float = option(
        0.0, "Rows unlike those learned from get no label; 0.01 costs 1 % of the others.", metavar="P", least=0, most=1
    )
    unknown: str | None = option(None, "What those rows get instead of no label, such as unknown.", metavar="NAME")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class Averaging:
    """Whether predictions are means over views."""

    tta: bool = option(False, "Average over the augmented views that the model was fitted on.")


@dataclass(frozen=True, kw_only=True)
class Classify(Averaging, Thresholds, ComputeOptions):
    """How rows are predicted, and made where they are images."""

    cache: str | Path | None = None
    items: Sequence[Any] | None = None
    slots: Sequence[Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Predict(Classify):
    """How rows are predicted, where those without a prediction cannot be listed beside the others."""

    errors: Literal["raise", "mask"] = "raise"


@dataclass(frozen=True)
class Guesses:
    """How many classes are shown."""

    k: int = option(5, "Guesses a row.", metavar="K", flags=("--top",), least=1, most=1_000_000, positional=True)


@dataclass(frozen=True, kw_only=True)
class Top(Classify, Guesses):
    """How rows are predicted, for the most probable classes of each."""


@dataclass(frozen=True)
class Evaluating:
    """Which rows of a table a model is evaluated on."""

    split: str | None = option(
        None,
        "Default: test where there is one, else all rows that it was not trained on.",
        metavar="NAME",
        positional=True,
    )


@dataclass(frozen=True)
class EvaluatingTable(Relabelling, Evaluating):
    """Which rows of a table a model is evaluated on, and by which labels."""

    hierarchy: str | Path | None = option(
        None, "A CSV of classes and their ancestors (class,genus,family): accuracy a level, too.", metavar="FILE"
    )


@dataclass(frozen=True, kw_only=True)
class Reporting(Loading, Evaluating):
    """What a report is made of."""

    data: Any = option(None, "Where the images are, if they have moved.", metavar="DATA")
    saliency: bool = option(
        False, "Also show what in the images the model goes by, of heads with gradients; takes some seconds."
    )
