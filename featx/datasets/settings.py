"""How data are read: what `featx.open_dataset`, and every command that takes DATA, can be told about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featx.settings import Seeded, option
from featx.targets import TASKS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np


@dataclass(frozen=True, kw_only=True)
class ValidationOptions:
    """Which part of the training rows chooses, where data have no validation rows of their own."""

    val: str | float | None = option(
        None, "Validation share of train: drawn by class, content and seed, or its end.", metavar="0.1|last:0.1"
    )


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """What labels are for."""

    task: str = option(
        "auto",
        "One class an image, several labels, or numbers; auto looks at the labels.",
        choices=("auto", *TASKS),
    )


@dataclass(frozen=True, kw_only=True)
class Source(TaskOptions, ValidationOptions, Seeded):
    """How data are read: what `open_dataset` can be told about them."""

    labels: Sequence[Any] | np.ndarray | None = None
    groups: Sequence[Any] | np.ndarray | None = None
    items: Sequence[Any] | np.ndarray | None = None
    slots: Sequence[Any] | np.ndarray | None = None
    times: Sequence[Any] | np.ndarray | None = None
    images: str | Path | None = option(
        None, "Folder of the images that a labels.csv names, or where torchvision's files are.", metavar="DIR"
    )
    image_column: str | None = option(None, "Column with the image's name.", metavar="NAME")
    label_column: str | None = option(
        None,
        "Column with the label, or a,b,c: several of 0 and 1, or of numbers; of WebDataset's JSON the key.",
        metavar="NAME",
    )
    label_separator: str | None = option(
        None,
        "What stands between the labels in a cell, as ';' in cat;dog: each is predicted by itself.",
        metavar="TEXT",
    )
    split_column: str | None = option(None, "Column with train, val or test.", metavar="NAME")
    group_column: str | None = option(
        None, "Column with what belongs together (patient, site, film): never on two sides of a split.", metavar="NAME"
    )
    group_regex: str | None = option(
        None, "The part of an image's name that names its group, as '^(\\w+)_'.", metavar="REGEX"
    )
    group_by: str | None = option(None, "Images of one folder are a group.", choices=("folder",))
    time_column: str | None = option(
        None,
        "Column with dates or numbers: the latest rows validate, and folds of --cv train on earlier ones.",
        metavar="NAME",
    )
    item_column: str | None = option(
        None, "Column with what several images are of (house, slide): a row each, predicted as one.", metavar="NAME"
    )
    item_by: str | None = option(None, "The images of one folder are one item.", choices=("folder",))
    slot_column: str | None = option(
        None, "Column with what an image shows of its item (room, side), to stand side by side.", metavar="NAME"
    )
    allow_outside: bool = option(False, "Let a CSV name images outside of their folder.")
    name: str | None = option(None, "Name of the dataset in the cache.", metavar="NAME")
