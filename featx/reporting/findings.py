"""`Findings`: everything a report tells, before it becomes a page or pictures."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.curation import doubts
from featx.datasets import item_id
from featx.errors import DataError, ImageError, OptionError
from featx.evaluation import held_out
from featx.evaluation.rows import known_content
from featx.plots.points import project
from featx.reporting.choice import Choice, choose, duplicates, sample_rows
from featx.reporting.sizes import Sizes, accuracy_by_size
from featx.reporting.thumbnails import Thumbnails, make_thumbnails, open_images

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from featx.attribution import Saliency
    from featx.curation import Listing
    from featx.datasets import Dataset
    from featx.evaluation import Evaluation, HeldOut
    from featx.features import Features
    from featx.model import Model
    from featx.reporting.board import Row

#: Seconds that may go into fitting again on fewer images.
_REFIT_SECONDS = 6.0
#: Rows whose labels look wrong that are shown.
_MOST_DOUBTED = 24
#: Images in which places are looked for that count: in the page each is twice there, at the network's size.
_MOST_SEEN = 6

log = logging.getLogger("featx")


@dataclass(frozen=True, eq=False, kw_only=True)
class TableFindings:
    """A model on the rows of a table that it was not trained on.

    Attributes
    ----------
    table : Features
        The whole table.
    held : HeldOut
        The rows, and where they are in the table.
    split : str
        What they are called: ``test``.
    evaluation : Evaluation
        Of those rows.
    choice : Choice
        Which of them are shown.
    doubted : Listing or None
        Rows of the whole table whose labels look wrong; None where they cannot be doubted.
    n_duplicates, duplicates : int, list of list of int
        Images that are in several splits or under several labels: how many, and positions in the table.
    samples : list of int
        Training images, as positions in the table.
    maps : dict of str to ndarray, shape (m, 2)
        The first m rows of ``choice.on_map`` on the plane, by method.
    sizes : Sizes
        Accuracy by number of training images.
    thumbnails : dict of int to bytes
        JPEGs by position in the table.
    images_note : str
        Why there are none.
    seen : tuple of (list of int, Saliency) or None
        Rows of the evaluation, and what in their images speaks for what is predicted; None where nobody asked.
    """

    table: Features
    held: HeldOut
    split: str
    evaluation: Evaluation
    choice: Choice
    doubted: Listing | None
    n_duplicates: int
    duplicates: list[list[int]]
    samples: list[int]
    maps: dict[str, NDArray[np.float64]]
    sizes: Sizes
    thumbnails: Thumbnails
    images_note: str
    seen: tuple[list[int], Saliency] | None

    def positions(self, rows: Sequence[int]) -> list[int]:
        """Return where rows of the evaluation are in the table."""
        found: list[int] = self.held.positions[list(rows)].tolist()
        return found


@dataclass(frozen=True, eq=False, kw_only=True)
class Findings:
    """What there is to report.

    Attributes
    ----------
    title : str
        Of the report.
    rows : list of dict
        The leaderboard, in the form of ``featx compare``.
    model : Model or None
        The one that the rest is about.
    on_table : TableFindings or None
        How it does on a table; None where there is none to evaluate it on.
    notes : tuple of str
        What is missing, and how to get it.
    command : str
        What was typed to make the report; empty where it was made from Python.
    """

    title: str
    rows: list[Row]
    model: Model | None = None
    on_table: TableFindings | None = None
    notes: tuple[str, ...] = ()
    command: str = ""


def find_on_table(
    model: Model, table: Features, split: str | None = None, data: Any = None, *, saliency: bool = False
) -> TableFindings:
    """Evaluate `model` on `table` and gather all that is worth looking at.

    Parameters
    ----------
    model : Model
        To evaluate.
    table : Features
        Labelled rows of its recipe.
    split : str, optional
        By default ``test`` where there is one, else all rows that the model was not trained on.
    data : optional
        Where the images are, if not where the table says.
    saliency : bool
        Whether to look for what in the images speaks for what is predicted.

    Raises
    ------
    OptionError
        If that is asked of a model that cannot tell.
    """
    table = model.rows_for(table)
    name, held = _hold_out(model, table, split)
    evaluation = held.evaluate(model)
    choice = choose(evaluation)
    doubted = _doubted(model, table)
    n_duplicates, groups = duplicates(table)
    samples = sample_rows(table)
    dataset, note = open_images(table, data)
    shown = [*([] if doubted is None else doubted.rows.tolist()), *held.positions[choice.by_importance()].tolist()]
    order = [*samples, *(row for group in groups for row in group), *shown]
    return TableFindings(
        table=table,
        held=held,
        split=name,
        evaluation=evaluation,
        choice=choice,
        doubted=doubted,
        n_duplicates=n_duplicates,
        duplicates=groups,
        samples=samples,
        maps=project(held.rows[choice.on_map]),
        sizes=accuracy_by_size(model, table, held, evaluation.accuracy, seconds=_REFIT_SECONDS),
        thumbnails={} if dataset is None else make_thumbnails(dataset, table, order),
        images_note=note,
        seen=_seen(model, dataset, held, evaluation, choice) if saliency and dataset is not None else None,
    )


def _seen(
    model: Model, dataset: Dataset, held: HeldOut, evaluation: Evaluation, choice: Choice
) -> tuple[list[int], Saliency]:
    """Return the most confident mistakes and some more rows, and what in their images speaks for what is predicted."""
    from featx.attribution import saliency

    rows = list(dict.fromkeys([*choice.mistakes[: _MOST_SEEN // 2], *choice.predictions]))[:_MOST_SEEN]
    place = {name: i for i, name in enumerate(dataset.ids)}
    row_at = {place[name]: row for row in rows if (name := str(held.rows.ids[row])) in place}
    images = {
        row_at[i]: data
        for i, data in dataset.iterate(sorted(row_at))
        if not isinstance(data, ImageError) and item_id(data) == held.rows.item_ids[row_at[i]].tobytes()
    }
    same = [row for row in rows if row in images]
    predicted = [evaluation.classes[evaluation.y_pred[row]] for row in same]
    return same, saliency(model, [images[row] for row in same], predicted)


def _doubted(model: Model, table: Features) -> Listing | None:
    """Return the rows of the table whose labels look wrong; None where a head cannot be fitted on parts of it."""
    try:
        return doubts(table, model=model, n=_MOST_DOUBTED)
    except (DataError, OptionError) as error:
        log.info("Labels were not doubted: %s", error)
        return None


def _hold_out(model: Model, table: Features, split: str | None) -> tuple[str, HeldOut]:
    """Return the rows to evaluate on, and what to call them."""
    if split == "val" and not (table.splits == "val").any():  # the fit has carved its own out of train
        carved = np.flatnonzero(known_content(table.item_ids, model.chosen_on))
        if len(carved):
            held = held_out(model, table.select(carved))
            return "validation", replace(held, positions=carved[held.positions])
    held = held_out(model, table, split)
    if split is None and (table.splits == "test").any():
        split = "test"
    only_chose = held.n_chosen_on == len(held.positions)
    return split or ("validation" if only_chose else "held-out"), held
