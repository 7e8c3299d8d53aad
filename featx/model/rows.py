"""Which rows of a table teach, which choose and which only report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from featx.datasets.splits import DEFAULT_VAL, ValidationShare, draw_validation, group_ids
from featx.errors import DataError, OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from featx.targets import Targets


class Grouped(Protocol):
    """Contents and groups of n rows: of a table, or of images that are no table yet."""

    @property
    def item_ids(self) -> NDArray[np.uint8]:
        """Content hash of each row, zeros for none, shape (n, 32)."""

    @property
    def groups(self) -> NDArray[np.str_] | None:
        """Group of each row, empty for a row by itself, shape (n,); None where all are."""


class Labelled(Grouped, Protocol):
    """Labels, classes and splits of such rows."""

    @property
    def y(self) -> NDArray[np.int64]:
        """Class of each row, -1 for none, shape (n,)."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes."""

    @property
    def splits(self) -> NDArray[np.str_]:
        """Split of each row, empty for none, shape (n,)."""


@dataclass(frozen=True, eq=False)
class Parts:
    """Ascending positions of labelled rows, each in one part at most.

    Attributes
    ----------
    train, val, test : ndarray of int
        Rows a head is fitted on, rows that settings are chosen on, rows that nothing is decided on.
    """

    train: NDArray[np.intp]
    val: NDArray[np.intp]
    test: NDArray[np.intp]

    @property
    def train_and_val(self) -> NDArray[np.intp]:
        """Both, ascending."""
        return np.sort(np.concatenate([self.train, self.val]))


def choose_rows(
    features: Labelled, val: float | str | None = None, seed: int = 0, targets: Targets | None = None
) -> Parts:
    """Divide the labelled rows of a table.

    Parameters
    ----------
    features : Features, or anything `Labelled`
        Its splits decide: ``train`` (or, if there is none, the rows in no split), ``val``, ``test``.
    val : float or str, optional
        Share of the training rows to choose on: ``0.1`` for a stratified draw, ``"last:0.1"`` for the
        last ones, 0 for none. By default the table's own validation split, else `DEFAULT_VAL`.
    seed : int
        Of the draw.
    targets : Targets, optional
        What the rows are labelled with, where that is not one class each.

    Raises
    ------
    DataError
        If there are no labels, no rows to train on, or fewer than two classes (of targets, rows) among them.
    OptionError
        If `val` is no share, or the table has a validation split and `val` is given as well.
    """
    labels = features.y if targets is None else targets.strata
    classes = features.classes if targets is None else targets.strata_names
    labelled, splits = labels >= 0, np.asarray(features.splits)
    if not labelled.any():
        raise DataError(
            "The table has no labels to learn from. Extract class folders, or name them: --label-column COLUMN"
        )
    test, own_val = labelled & (splits == "test"), labelled & (splits == "val")
    train = labelled & (splits == "train") if (splits == "train").any() else labelled & (splits == "")
    if not train.any():
        present = ", ".join(repr(name) for name in np.unique(splits[labelled]).tolist())
        raise DataError(f"No labelled row is left to train on: the splits are {present}, and none of them is train.")
    if own_val.any():
        if val is not None:
            raise OptionError(f"The table has a validation split of {own_val.sum():,} rows: leave out --val.")
        chosen = np.flatnonzero(own_val)
    else:
        share = ValidationShare.parse(DEFAULT_VAL if val is None else val, seed)
        at, names = np.flatnonzero(train), getattr(features, "ids", None)
        times = getattr(features, "times", None)
        drawn = draw_validation(
            share,
            splits=np.full(len(at), "train"),
            labels=labels[at],
            classes=classes,
            item_ids=features.item_ids[at],
            ids=at.astype(str) if names is None else np.asarray(names)[at],
            groups=None if features.groups is None else features.groups[at],
            times=None if times is None else times[at],
        )
        chosen = at[drawn == "val"]
        train[at[drawn != "train"]] = False
    names = [classes[j] for j in np.unique(labels[train])]
    if targets is None and len(names) < 2:
        raise DataError(f"A classifier needs at least two classes to train on, got one: {names[0]!r}.")
    if train.sum() < 2:
        raise DataError("There is one row to train on, and at least two are needed. Give more images.")
    return Parts(np.flatnonzero(train), chosen, np.flatnonzero(test))


def with_views(positions: NDArray[np.intp], origin: NDArray[np.intp] | None) -> NDArray[np.intp]:
    """Return the rows that are views of those at `positions` (ascending), these themselves first.

    Parameters
    ----------
    positions : ndarray of int
        Rows of a table.
    origin : ndarray of int or None
        From `featx.Features.all_views`; None without views.
    """
    return positions if origin is None else np.flatnonzero(np.isin(origin, positions))


def given_groups(features: Grouped, positions: NDArray[np.intp]) -> NDArray[np.intp] | None:
    """Return `row_groups` of a table that was given groups; None where each row counts by itself."""
    given = features.groups
    return None if given is None or not (given[positions] != "").any() else row_groups(features, positions)


def row_groups(features: Grouped, positions: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the group of each row at `positions`, numbered as they appear, shape (n,): none is cut by any split.

    Rows of one group of the table, of identical content, and views of one image are in one. Rows of one's own arrays
    have no content hash: each that is in no group of the table is one by itself.
    """
    hashes = group_ids(features.item_ids[positions], None if features.groups is None else features.groups[positions])
    own = ~hashes.any(axis=1)
    hashes[own, :8] = positions[own].astype("<u8").view(np.uint8).reshape(-1, 8)
    _, first, group = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[group.ravel()])
