"""What belongs together, and what several images are of: groups and items of a dataset."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.datasets.dataset import readable
from featx.datasets.labels import read_beside
from featx.errors import DataError, OptionError

if TYPE_CHECKING:
    from featx.datasets.dataset import Dataset
    from featx.datasets.settings import Source


def with_groups(dataset: Dataset, settings: Source) -> Dataset:
    """Return `dataset` with the groups that `settings` ask for, and say how many there are."""
    given = {
        "groups=": settings.groups,
        "--group-column": settings.group_column,
        "--group-regex": settings.group_regex,
        "--group-by": settings.group_by,
    }
    asked = [name for name, value in given.items() if value is not None]
    if len(asked) > 1:
        raise OptionError(f"{asked[0]} and {asked[1]} both make groups. Give one of them.")
    if not asked:
        return dataset
    groups = dataset.groups
    if settings.groups is not None:
        groups = np.array(["" if one is None else readable(str(one)) for one in settings.groups], dtype=str)
        if len(groups) != len(dataset):
            raise DataError(f"There are {len(dataset):,} images and {len(groups):,} groups. Give one for each image.")
    elif settings.group_by == "folder":
        groups = np.array([name.rpartition("/")[0] for name in dataset.ids], dtype=str)
    elif settings.group_regex is not None:
        groups = np.array(_matched(settings.group_regex, dataset.ids), dtype=str)
    assert groups is not None
    sizes = np.unique(groups[groups != ""], return_counts=True)[1]
    if not len(sizes):
        where = f"the name of any image, {dataset.ids[0]!r} for one" if settings.group_regex else "any row"
        raise DataError(f"{asked[0]} finds no group in {where}. Change it, or leave it out.")
    alone = f", and {n:,} images by themselves" if (n := int((groups == "").sum())) else ""
    note = f"{len(sizes):,} groups of {sizes.min():,} to {sizes.max():,} images{alone}: no split is drawn through one."
    return dataclasses.replace(dataset, groups=groups, notes=(*dataset.notes, note))


def with_items(dataset: Dataset, settings: Source) -> Dataset:
    """Return `dataset` with the items, slots and times that `settings` ask for; images of one item are in one group.

    Raises
    ------
    OptionError
        If items are asked for twice, or slots without items.
    DataError
        If there are not as many as images, or an item lies in two groups.
    """
    given = {"items": settings.items, "slots": settings.slots}
    found: dict[str, Any] = {
        name: np.array(["" if one is None else readable(str(one)) for one in values], dtype=str)
        for name, values in given.items()
        if values is not None
    }
    found |= {} if settings.times is None else read_beside({"time": list(settings.times)}, "times")
    if settings.item_by == "folder":
        if "items" in found or settings.item_column is not None:
            raise OptionError("--item-by and --item-column both make items. Give one of them.")
        found["items"] = np.array([name.rpartition("/")[0] for name in dataset.ids], dtype=str)
    for name, values in found.items():
        if len(values) != len(dataset):
            raise DataError(f"There are {len(dataset):,} images and {len(values):,} {name}. Give one for each image.")
    dataset = dataclasses.replace(dataset, **found) if found else dataset
    items, slots = dataset.items, dataset.slots
    if slots is not None and items is None:
        raise OptionError(
            "--slot-column says what an image shows of its item. Name the items too: --item-column COLUMN"
        )
    if items is None:
        return dataset
    items = np.where(items == "", np.asarray(dataset.ids, dtype=str), items)
    groups = items if dataset.groups is None else np.where(dataset.groups == "", items, dataset.groups)
    pairs = np.unique(np.array([items, groups]), axis=1)
    names, n_groups = np.unique(pairs[0], return_counts=True)
    if (torn := names[n_groups > 1]).size:
        of = " and ".join(map(repr, pairs[1][pairs[0] == torn[0]][:2].tolist()))
        raise DataError(f"Item {str(torn[0])!r} lies in the groups {of}. Give all its images one group.")
    sizes = np.unique(items, return_counts=True)[1]
    note = f"{len(sizes):,} items of {sizes.min():,} to {sizes.max():,} images, a row each."
    if slots is not None:
        shown = np.unique(slots[slots != ""]).tolist()
        note = f"{note[:-1]}; slots: {', '.join(shown[:8])}{', …' * (len(shown) > 8)}."
        if n := int((slots == "").sum()):
            note += f" {n:,} images are in no slot, and not used side by side."
    return dataclasses.replace(dataset, items=items, groups=groups, notes=(*dataset.notes, note))


def _matched(regex: str, ids: Sequence[str]) -> list[str]:
    """Return what the group of a regular expression (named ``group``, else the first, else all of it) finds in ids."""
    try:
        pattern = re.compile(regex)
    except re.error as error:
        raise OptionError(f"--group-regex {regex!r} is no regular expression: {error}.") from error
    group = "group" if "group" in pattern.groupindex else min(1, pattern.groups)
    return [(found[group] or "") if (found := pattern.search(name)) else "" for name in ids]
