"""`Report`: a page, and the same pictures as files; `report` makes one."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featx.comparison import name_of
from featx.datasets import reopen
from featx.errors import DataError, FeatxError
from featx.files import write_whole
from featx.model import Model, load
from featx.model.settings import Reporting
from featx.reporting.board import best_of, comparison_rows, read_comparison, row_of
from featx.reporting.classifier_page import classifier_page
from featx.reporting.drawings import drawings
from featx.reporting.findings import Findings, find_on_table
from featx.reporting.predictions_page import predictions_drawings, predictions_page
from featx.reporting.targets_page import targets_page
from featx.settings import keywords

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from featx.features import Features
    from featx.model import Predictions
    from featx.progress import OnProgress
    from featx.reporting.board import Row
    from featx.reporting.drawings import Drawing


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """A finished report.

    Attributes
    ----------
    html : str
        One page that loads nothing from anywhere.
    drawings : list of Drawing
        Its pictures.
    """

    html: str
    drawings: list[Drawing]

    def __repr__(self) -> str:
        return f"<Report: {len(self.html):,} characters, {len(self.drawings)} pictures>"

    def save(self, path: str | Path) -> Path:
        """Write the page and return its path.

        Raises
        ------
        DataError
            If it cannot be written.
        """
        path = Path(path)
        try:
            write_whole(path, self.html)
        except OSError as error:
            why = f"{error.strerror}. Name another place: -o FILE"
            raise DataError(f"Cannot write the report to {path}: {why}") from error
        return path

    def save_figures(self, folder: str | Path) -> list[Path]:
        """Write every picture as PNG and SVG into `folder`, and return their paths.

        Raises
        ------
        DataError
            If they cannot be written.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return [path for drawing in self.drawings for path in drawing.save(folder)]
        except OSError as error:
            why = f"{error.strerror}. Name another place: --figures DIR"
            raise DataError(f"Cannot write pictures to {folder}: {why}") from error

    def _repr_html_(self) -> str:
        """Show the page in a notebook, in a frame of its own so that no style leaks."""
        page = html.escape(self.html, quote=True)
        return f'<iframe srcdoc="{page}" title="featx report" style="width:100%;height:48rem;border:0"></iframe>'


@dataclass(frozen=True, kw_only=True)
class _Reported(Reporting):
    table: Features | None = None
    cache: str | Path | None = None
    command: str = ""
    on_progress: OnProgress | None = None


@keywords(_Reported)
def report(subject: Any, how: _Reported) -> Report:
    """Report on a model, on several side by side, or on a comparison.

    Parameters
    ----------
    subject : Model, path, sequence of them, or comparison
        The path of a ``.featx`` file, or of what ``featx compare -o`` has written. Of several models, the best
        by validation is the one that is described.
    table : Features, optional
        Rows to evaluate it on; by default the table that it was fitted on.
    {options}
    cache : path, optional
        Cache folder, for a model without a table.
    command : str
        What was typed, for the page.
    on_progress : callable, optional
        Called with a `Progress` after each batch, where a model without a table has to see the images first.

    Returns
    -------
    Report

    Raises
    ------
    FeatxError
        If a model or comparison cannot be read, or the table does not fit the model.

    Examples
    --------
    >>> import featx
    >>> from sklearn.datasets import load_digits
    >>> table = featx.Features.from_arrays(*load_digits(return_X_y=True))
    >>> page = report(featx.fit(table, "centroid"), table=table)
    >>> page.html.startswith("<!DOCTYPE html>")
    True
    """

    def opened(path: Any) -> Model:
        return load(path, allow_code=how.allow_code, unsafe_pickle=how.unsafe_pickle)

    rows, model, notes = _open(subject, opened)
    on_table = None
    if model is not None:
        try:
            found = how.table if how.table is not None else _table_of(model, how.data, how.cache, how.on_progress)
        except FeatxError as error:
            if how.table is not None:
                raise
            notes = [*notes, f"Not evaluated: {error}"]
        else:
            if model.outputs is not None:
                about: dict[str, Any] = {"title": _title(rows, model), "split": how.split, "data": how.data}
                return Report(*targets_page(model, found, command=how.command, **about))
            on_table = find_on_table(model, found, how.split, how.data, saliency=how.saliency)
            notes = [*notes, *filter(None, [on_table.images_note])]
    findings = Findings(
        title=_title(rows, model),
        rows=rows,
        model=model,
        on_table=on_table,
        notes=tuple(notes),
        command=how.command,
    )
    pictures = drawings(findings)
    return Report(classifier_page(findings, pictures), pictures)


def report_predictions(predictions: Predictions, source: Any) -> Report:
    """Report on images without labels.

    Parameters
    ----------
    predictions : Predictions
        From `featx.Model.classify`.
    source : path, sequence of paths or images, array or Dataset
        What they were made of, for the images.
    """
    pictures = predictions_drawings(predictions)
    return Report(predictions_page(predictions, source, pictures), pictures)


def _open(subject: Any, opened: Callable[[Any], Model]) -> tuple[list[Row], Model | None, list[str]]:
    """Return the leaderboard, the model to describe, and what there is to say about either."""
    if isinstance(subject, list | tuple):
        models = [one if isinstance(one, Model) else opened(one) for one in subject]
        rows = [row_of(model) for model in models]
        return rows, models[best_of(rows) or 0], []
    if isinstance(subject, Model):
        return [row_of(subject)], subject, []
    folder = getattr(subject, "folder", None) or Path()
    if isinstance(subject, str | Path):
        path = Path(subject)
        if not path.is_dir() and path.suffix != ".json":
            return _open([path], opened)
        rows, folder = read_comparison(path)
    else:
        rows = comparison_rows(subject if isinstance(subject, dict) else subject.to_dict())
    best = best_of(rows)
    described = None if best is None else rows[best].get("model")
    if described is None:
        return rows, None, ["Only the leaderboard is shown: the best row of the comparison has no model file."]
    return rows, opened(folder / described), []


def _table_of(model: Model, data: Any, cache: str | Path | None, on_progress: OnProgress | None) -> Features:
    """Return the table that a model was fitted on; where there is none, extract the images by its recipe."""
    from featx.extraction import open_dataset, run
    from featx.features import join

    if table := model.table():
        return table
    source: Any = model.report.source
    there = isinstance(source, dict) and "data" in source and Path(str(source["data"])).exists()
    if not model.inputs or (data is None and not there):
        raise DataError("the rows that the model was fitted on are not there. Name the images: --data DATA")
    dataset = reopen(source) if data is None else open_dataset(data)
    with model.loadable_requests() as requests:
        runs = [run(dataset, one, cache=cache, on_progress=on_progress, remember=False) for one in requests]
    return join([table for done in runs for table in done.tables])


def _title(rows: Sequence[Row], model: Model | None) -> str:
    return name_of(row_of(model)) if model is not None else f"Comparison of {len(rows)} classifiers"
