"""A model on a table, with the rows it learned from left out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.datasets import item_id
from featx.datasets.dataset import select
from featx.errors import DataError, ImageError, OptionError
from featx.evaluation.evaluation import Evaluation, evaluate_predictions
from featx.evaluation.levels import Level, read_levels
from featx.evaluation.rows import not_trained_on, wanted_rows
from featx.evaluation.targets import held_out_targets
from featx.extraction import ComputeOptions
from featx.features import Features, opened, relabelled
from featx.model import Model, load
from featx.model.items import combining_of
from featx.model.rows import given_groups
from featx.model.settings import EvaluatingTable
from featx.settings import keywords, part_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from featx.datasets import Dataset
    from featx.evaluation.targets import TargetEvaluation


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The labelled rows of a table that a model may be evaluated on.

    Attributes
    ----------
    positions : ndarray of int, shape (n,)
        Where they are in the table, ascending.
    rows : Features
        The rows themselves.
    y : ndarray of int64, shape (n,)
        True classes as indices into the model's classes.
    trained_on : tuple of str
        Ids of the rows left out, because the model was trained on their very content.
    n_chosen_on : int
        Rows among the n on which the model's settings were chosen.
    unknown : dict of str to int
        Rows left out because the model does not know their class: how many, by class.
    """

    positions: NDArray[np.intp]
    rows: Features
    y: NDArray[np.int64]
    trained_on: tuple[str, ...]
    n_chosen_on: int
    unknown: dict[str, int]

    def evaluate(
        self, model: Model, images: Dataset | None = None, *, levels: tuple[Level, ...] = (), **how: Any
    ) -> Evaluation:
        """Evaluate `model`, the one that the rows were held out from; see `evaluate`."""
        return evaluate_predictions(
            self.y,
            model.predict_proba(self.rows) if images is None else self._over_views(model, images, how),
            model.classes,
            trained_on=self.trained_on,
            n_chosen_on=self.n_chosen_on,
            n_unreadable=len(self.rows.errors),
            unknown=self.unknown,
            groups=given_groups(self.rows, np.arange(len(self.rows))),
            levels=levels,
        )

    def records(self, found: Evaluation) -> tuple[list[str], list[list[Any]]]:
        """Return what became of each row, the most surely wrong first, as a header and rows for a spreadsheet."""
        names = found.classes
        most = np.ones(len(found.y_pred)) if found.probabilities is None else found.probabilities.max(axis=1)
        right = found.y_true == found.y_pred
        rows = zip(self.rows.ids.tolist(), found.y_true, found.y_pred, most.tolist(), right.tolist(), strict=True)
        table = [[name, names[true], names[predicted], p, ok] for name, true, predicted, p, ok in rows]
        order = np.lexsort([-most, right])
        return ["file" if combining_of(self.rows) is None else "item", "true", "predicted", "probability", "right"], [
            table[i] for i in order.tolist()
        ]

    def _over_views(self, model: Model, images: Dataset, how: dict[str, Any]) -> NDArray[np.float64]:
        """Return probabilities averaged over the views of each row's image."""
        place = {name: i for i, name in enumerate(images.ids)}
        wanted = np.array([place.get(name, -1) for name in self.rows.ids], dtype=np.intp)
        order = np.argsort(wanted)
        there = [row for row in order.tolist() if wanted[row] >= 0]
        known = self.rows.item_ids
        for row, (_, data) in zip(there, images.iterate(wanted[there].tolist()), strict=True):
            if isinstance(data, ImageError) or item_id(data) != known[row].tobytes():
                wanted[row] = -1
        if (wanted < 0).any():
            raise DataError(
                f"--tta makes views of the images, and {(wanted < 0).sum():,} of {len(wanted):,} are gone or others "
                f"than the table was made of, the first {self.rows.ids[np.argmin(wanted)]}. Extract them again, or "
                "leave out --tta."
            )
        probabilities = np.empty((len(wanted), len(model.classes)))
        probabilities[order] = model.predict_proba(select(images, wanted[order]), tta=True, **how)
        return probabilities


def held_out(model: Model, features: Features, split: str | None = None) -> HeldOut:
    """Return the labelled rows of a table, or of one split of it, that `model` was not trained on.

    Rows are known by their content: whatever name or split an image has here, if the model was trained on
    the same bytes it is counted, named, and left out. So are not rows that only chose the model's settings,
    but their number is told.

    Parameters
    ----------
    model, features, split
        As in `evaluate`.

    Raises
    ------
    DataError
        If no row has a label that is one of the model's classes, or all rows were trained on.
    """
    features = model.rows_for(features)
    wanted, split = wanted_rows(features, features.y >= 0, split)
    y_model, unknown = _in_classes_of(model, features, wanted)
    positions = np.flatnonzero(wanted & (y_model >= 0))
    kept, trained_on, n_chosen_on = not_trained_on(model, features, positions, split)
    return HeldOut(
        kept, features.select(kept), y_model[kept], trained_on=trained_on, n_chosen_on=n_chosen_on, unknown=unknown
    )


@dataclass(frozen=True)
class _OnTable:
    features: Features | str | Path | Sequence[Features | str | Path] | None = None


@dataclass(frozen=True, kw_only=True)
class _Evaluate(ComputeOptions, EvaluatingTable, _OnTable):
    images: Dataset | None = None


@keywords(_Evaluate)
def evaluate(model: Model | str | Path, how: _Evaluate) -> Evaluation | TargetEvaluation:
    """Evaluate `model` on the labelled rows of a table that it was not trained on (see `held_out`).

    Parameters
    ----------
    model : Model or path
        To evaluate; the path of a model file that holds data only.
    features : Features or path, or several of them, optional
        A table of the model's recipe, by default the one that it was fitted on. Classes are matched by name; rows of
        a class that the model does not know are left out and counted.
    {options}
    images : Dataset, optional
        What the table was made of. Where given, probabilities are averaged over the augmented views that the model
        was fitted on, made of these images now, as `engine`, `device`, `batch_size` and `workers` say.

    Raises
    ------
    DataError
        If no row has a label that is one of the model's classes, all rows were trained on, an image is no longer
        the one that the table was made of, or the table is not named and not where it was.
    OptionError
        If `images` are given and the model was fitted without views.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from featx import fit
    >>> splits = ["train"] * 1500 + ["test"] * 297
    >>> table = Features.from_arrays(*load_digits(return_X_y=True), splits=splits)
    >>> found = evaluate(fit(table, "ridge"), table)
    >>> len(found.y_true), found.accuracy.value > 0.8
    (297, True)
    """
    classifier = model if isinstance(model, Model) else load(model)
    table = classifier.table() if how.features is None else how.features
    if table is None:
        raise DataError("The table that the model was fitted on is not there. Name one: featx.evaluate(model, table)")
    table = opened(table)
    if how.labels is not None:
        table = relabelled(table, how.labels)
    levels = levels_above(classifier, how.hierarchy)
    if classifier.outputs is not None:
        return held_out_targets(classifier, table, how.split).evaluate(classifier)
    computed = vars(part_of(ComputeOptions, how))
    return held_out(classifier, table, how.split).evaluate(classifier, how.images, levels=levels, **computed)


def levels_above(model: Model, hierarchy: str | Path | None) -> tuple[Level, ...]:
    """Read what stands above the classes of a model; nothing without a file.

    Raises
    ------
    OptionError
        If it is a model of labels or numbers.
    DataError
        As `read_levels`.
    """
    if hierarchy is None:
        return ()
    if model.outputs is not None:
        raise OptionError("--hierarchy is of classes, and this model predicts others. Leave it out.")
    return read_levels(hierarchy, model.classes)


def _in_classes_of(
    model: Model, table: Features, wanted: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Return labels as indices into the model's classes, -1 for one it does not know, and how many of which those are.

    Raises
    ------
    DataError
        If it knows none of the `wanted` rows' classes.
    """
    place = {name: i for i, name in enumerate(model.classes)}
    translation = np.array([*(place.get(name, -1) for name in table.classes), -1], dtype=np.int64)
    y = translation[table.y]  # an unlabelled row is -1: the last
    strange = table.y[wanted & (y < 0)]
    unknown = {table.classes[label]: int((strange == label).sum()) for label in np.unique(strange).tolist()}
    if len(strange) == wanted.sum():
        known = ", ".join(model.classes[:10]) + (", …" if len(place) > 10 else "")
        raise DataError(
            f"{len(strange):,} rows are of classes that the model does not know, the first of {next(iter(unknown))!r}. "
            f"Take them out, or fit a model on them too. It knows {known}"
        )
    return y, unknown
