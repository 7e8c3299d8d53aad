"""Predictions as a spreadsheet: one row a photo, one row a guess, or the form a competition asks for."""

from __future__ import annotations

import csv
import io
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from featx.errors import DataError, MissingDataError, MissingExtraError, OptionError
from featx.files import whole_file
from featx.model.predictions import Predictions
from featx.model.target_predictions import LabelPredictions, NumberPredictions
from featx.settings import check_choice

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FORMATS = ("photos", "long", "wide", "submission")
Row = list[Any]
#: What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def check_destination(path: str | Path) -> None:
    """Refuse a file whose form is not written, before there is anything to write.

    Raises
    ------
    OptionError
        For a spreadsheet of an old form.
    MissingExtraError
        For an ``.xlsx`` without the package that writes it.
    """
    suffix = Path(path).suffix.lower()
    if suffix in (".xls", ".ods", ".numbers"):
        raise OptionError(f"{suffix} is not written. Name a .csv, .xlsx or .parquet.")
    if suffix == ".xlsx":
        try:
            import openpyxl  # noqa: F401
        except ImportError as error:
            raise MissingExtraError(
                "Excel files are written by openpyxl: pip install 'featx[excel]'. Or name a .csv, which Excel opens."
            ) from error


def write_rows(path: str | Path, header: Sequence[str], rows: Sequence[Row], *, raw: bool = False) -> None:
    """Write a table as CSV, or, after the name of the file, as Excel or Parquet.

    Parameters
    ----------
    path : path-like
        ``….xlsx``, ``….parquet``, or anything else for CSV, UTF-8.
    header : sequence of str
        Names of the columns.
    rows : sequence of list
        Texts, numbers, truth values or None.
    raw : bool
        Leave a text as it is that a spreadsheet would run as a formula, such as ``=1+1``. Otherwise an apostrophe
        goes before it, in CSV and Excel.

    Raises
    ------
    OptionError, MissingExtraError
        As `check_destination`.
    """
    check_destination(path)
    suffix = Path(path).suffix.lower()
    if not (raw or suffix == ".parquet"):
        header, rows = [_quoted(name) for name in header], [[_quoted(value) for value in row] for row in rows]
    with whole_file(Path(path)) as temporary:
        if suffix == ".parquet":
            import pyarrow as pa
            from pyarrow import parquet

            columns = zip(*rows, strict=True) if rows else [[] for _ in header]
            values = [[None if value == "" else value for value in column] for column in columns]
            parquet.write_table(pa.Table.from_arrays([pa.array(column) for column in values], list(header)), temporary)
        elif suffix == ".xlsx":
            import openpyxl

            book = openpyxl.Workbook(write_only=True)
            sheet = book.create_sheet("featx")
            for row in (header, *rows):
                sheet.append(list(row))
            book.save(temporary)
        else:
            with temporary.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([header, *rows])


def _quoted(value: Any) -> Any:
    """Return a text with an apostrophe before what would be run as a formula.

    Examples
    --------
    >>> _quoted("=1+1"), _quoted("cat"), _quoted(-0.5)
    ("'=1+1", 'cat', -0.5)
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def write_csv(
    predictions: Predictions | LabelPredictions | NumberPredictions,
    path: str | Path,
    *,
    form: str = "photos",
    top: int = 5,
    sample: str | Path | None = None,
    beside: str | Path | None = None,
    raw: bool = False,
) -> tuple[str, ...]:
    """Write `predictions` to a CSV file, or to an ``.xlsx`` or ``.parquet``.

    Parameters
    ----------
    predictions : Predictions
        What to write.
    path : path-like
        Where to.
    form : {"photos", "long", "wide", "submission"}
        ``photos``: a row for each, ``file, predicted, probability, error``; of several labels ``file, labels``, a
        probability for each, ``error``; of numbers ``file``, these, ``error``. Of items ``item``, how many ``images``
        they have, and the same. The other forms are of classes.
        ``long``: ``id, rank, label, probability, error``, the `top` guesses of each row below one another; of a row
        on which the model abstains the highest probability alone.
        ``wide``: ``id, label, probability, error`` and a column of probabilities for each class.
        ``submission``: the header, ids and order of `sample` filled with probabilities; without `sample`,
        ``id`` (the file's name without folder and extension) and the classes in the model's order.
    top : int
        Guesses a row, for ``long``.
    sample : path-like, optional
        A CSV whose first column holds ids, with or without extension, and whose other columns are classes.
    beside : path-like, optional
        A CSV that names the photos: its columns are kept before those of ``photos``.
    raw : bool
        As in `write_rows`. A submission is always raw: it is read by a machine.

    Returns
    -------
    tuple of str
        Ids that a ``submission`` had to fill with 1/k, since their images could not be read; else empty.

    Raises
    ------
    DataError
        If the sample names classes or ids that the predictions do not have.
    """
    check_choice("--format", form, FORMATS)
    if sample is not None and form != "submission":
        raise OptionError(f"--sample gives a submission its form; --format {form} has its own.")
    uniform: tuple[str, ...] = ()
    if form == "photos":
        header, rows = _photos(predictions, beside)
    elif isinstance(predictions, LabelPredictions | NumberPredictions):
        raise OptionError(
            f"--format {form} is of classes, and this model predicts others. Leave it out: a row a photo."
        )
    elif form == "long":
        header, rows = ["id", "rank", "label", "probability", "error"], list(_long(predictions, top))
    elif form == "wide":
        header, rows = ["id", "label", "probability", "error", *predictions.classes], list(_wide(predictions))
    else:
        header, ids = _sample_form(sample, predictions)
        rows = list(_submission(predictions, header, ids))
        uniform = tuple(predictions.ids[i] for i in sorted(predictions.errors))
    write_rows(path, header, rows, raw=raw or form == "submission")
    return uniform


def _photos(
    predictions: Predictions | LabelPredictions | NumberPredictions, beside: str | Path | None
) -> tuple[list[str], list[Row]]:
    """Return one row a photo, after the columns of the CSV that named it if there is one."""
    if isinstance(predictions, Predictions):
        own = ["predicted", "probability"]
        cells: list[Row] = [
            [label or "", "" if i in predictions.errors else probability]
            for i, (label, probability) in enumerate(
                zip(predictions.labels, predictions.confidence.tolist(), strict=True)
            )
        ]
    else:
        own, cells = predictions.columns()
    own.append("error")
    told: list[Row] = [[*row, predictions.errors.get(i, "")] for i, row in enumerate(cells)]
    if predictions.images is not None:
        return _of_items(predictions, own, told, beside)
    if beside is None:
        return ["file", *own], [[name, *row] for name, row in zip(predictions.ids, told, strict=True)]
    header, given = read_csv(beside)
    exact, loose = _places(predictions.ids)
    # The column that names the photos is the one of whose values most are photos.
    named = [sum(bool(exact.get(row[j]) or loose.get(row[j])) for row in given) for j in range(len(header))]
    key = named.index(max(named))
    rows: list[Row] = []
    for row in given:
        at = exact.get(row[key]) or loose.get(row[key], [])
        nothing = [*[""] * (len(own) - 1), "not among the photos predicted"]
        rows.append([*row, *(told[at[0]] if len(at) == 1 else nothing)])
    return [*header, *(f"{name}_by_model" if name in header else name for name in own)], rows


def _of_items(
    predictions: Predictions | LabelPredictions | NumberPredictions,
    own: list[str],
    told: list[Row],
    beside: str | Path | None,
) -> tuple[list[str], list[Row]]:
    """Return one row an item, after those columns of the CSV that say one thing of all images of each item."""
    assert predictions.images is not None
    header = ["item", "images", *own]
    rows: list[Row] = [
        [name, len(images), *row] for name, images, row in zip(predictions.ids, predictions.images, told, strict=True)
    ]
    if beside is None:
        return header, rows
    columns, given = read_csv(beside)
    named = [sum(row[j] in set(predictions.ids) for row in given) for j in range(len(columns))]
    key = named.index(max(named))
    of_item: dict[str, list[list[str]]] = {}
    for row in given:
        of_item.setdefault(row[key], []).append(row)
    alike = [
        j for j in range(len(columns)) if j != key and all(len({row[j] for row in of}) == 1 for of in of_item.values())
    ]
    kept = [columns[j] for j in alike]
    beside_of = {name: [of[0][j] for j in alike] for name, of in of_item.items()}
    header = [columns[key], *kept, *(f"{name}_by_model" if name in columns else name for name in header[1:])]
    return header, [[row[0], *beside_of.get(row[0], [""] * len(kept)), *row[1:]] for row in rows]


def read_csv(path: str | Path) -> tuple[list[str], list[list[str]]]:
    """Return the header of a CSV and its rows, all as long as the header."""
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            text = file.read()
        separator = max(",;\t", key=text.splitlines()[0].count)
        header, *rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if row]
    except (ValueError, IndexError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV with a header: {error}.") from error
    return header, [(row + [""] * len(header))[: len(header)] for row in rows]


def _long(predictions: Predictions, top: int) -> Iterator[Row]:
    labels, sure, confidence = predictions.labels, predictions.sure.tolist(), predictions.confidence.tolist()
    for i, (name, guesses) in enumerate(zip(predictions.ids, predictions.top(top), strict=True)):
        if i in predictions.errors:
            yield [name, "", "", "", predictions.errors[i]]
            continue
        if not sure[i]:
            yield [name, "", labels[i] or "", confidence[i], ""]
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
        header, rows = read_csv(sample)
    except FileNotFoundError as error:
        raise MissingDataError(f"No sample submission at {sample}. Name an existing CSV: --sample FILE") from error
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
