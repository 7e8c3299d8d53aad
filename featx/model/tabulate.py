"""Predictions as CSV: one row a guess, one row an image, or the form a competition asks for."""

from __future__ import annotations

import csv
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from featx.errors import DataError, MissingDataError, OptionError
from featx.files import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from featx.model.predictions import Predictions

FORMATS = ("long", "wide", "submission")
Row = list[Any]


def write_csv(
    predictions: Predictions, path: str | Path, *, form: str = "long", top: int = 5, sample: str | Path | None = None
) -> tuple[str, ...]:
    """Write `predictions` to the CSV file `path`, UTF-8.

    Parameters
    ----------
    predictions : Predictions
        What to write.
    path : path-like
        Where to.
    form : {"long", "wide", "submission"}
        ``long``: ``id, rank, label, probability, error``, the `top` guesses of each row below one another; of a row
        on which the model abstains the highest probability alone.
        ``wide``: ``id, label, probability, error`` and a column of probabilities for each class.
        ``submission``: the header, ids and order of `sample` filled with probabilities; without `sample`,
        ``id`` (the file's name without folder and extension) and the classes in the model's order.
    top : int
        Guesses a row, for ``long``.
    sample : path-like, optional
        A CSV whose first column holds ids, with or without extension, and whose other columns are classes.

    Returns
    -------
    tuple of str
        Ids that a ``submission`` had to fill with 1/k, since their images could not be read; else empty.

    Raises
    ------
    DataError
        If the sample names classes or ids that the predictions do not have.
    """
    if form not in FORMATS:
        raise OptionError(f"--format must be one of {', '.join(FORMATS)}; got {form!r}.")
    if sample is not None and form != "submission":
        raise OptionError(f"--sample gives a submission its form; --format {form} has its own.")
    uniform: tuple[str, ...] = ()
    if form == "long":
        header, rows = ["id", "rank", "label", "probability", "error"], list(_long(predictions, top))
    elif form == "wide":
        header, rows = ["id", "label", "probability", "error", *predictions.classes], list(_wide(predictions))
    else:
        header, ids = _sample_form(sample, predictions)
        rows = list(_submission(predictions, header, ids))
        uniform = tuple(predictions.ids[i] for i in sorted(predictions.errors))
    with whole_file(Path(path)) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return uniform


def _long(predictions: Predictions, top: int) -> Iterator[Row]:
    labels, confidence = predictions.labels, predictions.confidence.tolist()
    for i, (name, guesses) in enumerate(zip(predictions.ids, predictions.top(top), strict=True)):
        if i in predictions.errors:
            yield [name, "", "", "", predictions.errors[i]]
            continue
        if labels[i] is None:
            yield [name, "", "", confidence[i], ""]
            continue
        for rank, (label, probability) in enumerate(guesses, start=1):
            yield [name, rank, label, probability, ""]


def _wide(predictions: Predictions) -> Iterator[Row]:
    for i, (name, label) in enumerate(zip(predictions.ids, predictions.labels, strict=True)):
        if i in predictions.errors:
            yield [name, "", "", predictions.errors[i], *[""] * len(predictions.classes)]
        else:
            columns = predictions.probabilities[i].tolist()
            yield [name, label or "", max(columns), "", *columns]


def _sample_form(sample: str | Path | None, predictions: Predictions) -> tuple[list[str], list[str]]:
    """Return the header, and the ids in order, of a submission."""
    if sample is None:
        return ["id", *predictions.classes], [_stem(name) for name in predictions.ids]
    try:
        with Path(sample).open(newline="", encoding="utf-8-sig") as file:
            header, *rows = [row for row in csv.reader(file) if row]
    except FileNotFoundError as error:
        raise MissingDataError(f"No sample submission at {sample}. Name an existing CSV: --sample FILE") from error
    except (ValueError, csv.Error) as error:
        raise DataError(f"{sample} is not a CSV with a header: {error}. Name another: --sample FILE") from error
    _check_columns(sample, header[1:], predictions.classes)
    return header, [row[0] for row in rows]


def _check_columns(sample: str | Path, columns: Sequence[str], classes: tuple[str, ...]) -> None:
    """Probabilities sum to 1 only over all classes, so the sample must have each of them exactly once."""
    strange = sorted(set(columns) - set(classes)) or sorted(set(classes) - set(columns))
    if strange or len(set(columns)) != len(columns):
        what = f"{strange[0]!r} is in only one of them" if strange else "a column is there twice"
        raise DataError(
            f"The columns of {sample} are not the model's {len(classes)} classes: {what}. "
            "Name the sample of this model's classes: --sample FILE"
        )


def _submission(predictions: Predictions, header: list[str], ids: list[str]) -> Iterator[Row]:
    exact, loose = _places(predictions.ids)
    columns = [predictions.classes.index(label) for label in header[1:]]
    n_classes = len(predictions.classes)
    for name in ids:
        found = exact.get(name) or loose.get(name, [])
        if len(found) != 1:
            raise DataError(
                f"The sample's id {name!r} matches {len(found)} of the {len(predictions):,} images predicted. "
                "Predict the folder that the sample belongs to."
            )
        i = found[0]
        values = predictions.probabilities[i, columns].tolist()
        yield [name, *([1 / n_classes] * n_classes if i in predictions.errors else values)]


def _places(ids: tuple[str, ...]) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Positions by name, and by the forms a sample may give it: without extension, without folder, or neither."""
    exact: dict[str, list[int]] = {}
    loose: dict[str, list[int]] = {}
    for i, name in enumerate(ids):
        exact.setdefault(name, []).append(i)
        file = PurePosixPath(name)
        for form in {name.removesuffix(file.suffix), file.name, file.stem}:
            loose.setdefault(form, []).append(i)
    return exact, loose


def _stem(name: str) -> str:
    return PurePosixPath(name).stem
