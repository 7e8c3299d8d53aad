"""``featx predict`` and ``featx evaluate``: what a model says, and how right it is."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx.cli.common import Console, common, table
from featx.cli.options import settings_options, taken
from featx.cli.report import typed_command
from featx.cli.tables import find_table, is_table, one_source
from featx.datasets import Source
from featx.errors import DataError, OptionError
from featx.extraction import ComputeOptions, Extract, Options
from featx.model.settings import Averaging, Classify, EvaluatingTable, Guesses, Loading

if TYPE_CHECKING:
    from featx.datasets import Dataset
    from featx.evaluation import Evaluation, TargetEvaluation
    from featx.features import Features
    from featx.model import Model, Predictions
    from featx.model.target_predictions import LabelPredictions, NumberPredictions
    from featx.packing import PackedModel

#: Endings of files that hold more than one image.
_CONTAINERS = {".h5", ".hdf5", ".csv", ".tsv", ".npz", ".parquet", ".tar", ".gz", ".tgz"}


_raw = click.option("--raw", is_flag=True, help="Leave names as they are that a spreadsheet would run as formulas.")


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("subjects", nargs=-1, required=True, metavar="IMAGE|DIR|TABLE...")
@settings_options(Guesses)
@click.option(
    "--csv", "csv_path", type=click.Path(path_type=Path), metavar="OUT", help="Write them; .xlsx and .parquet too."
)
@click.option(
    "--format",
    "form",
    default="photos",
    show_default=True,
    metavar="photos|long|wide|submission",
    help="Of that file: a row a photo, a row a guess, a column a class, or as --sample.",
)
@_raw
@click.option(
    "--sample", type=click.Path(path_type=Path), help="Sample submission: its columns, ids and order are kept."
)
@click.option("--report", "page", type=click.Path(path_type=Path), metavar="OUT.html", help="Write a page of them.")
@settings_options(Classify, Loading)
@settings_options(Source, without=["val", "seed", "name", "split_column", "task", "label_separator"])
@common
def predict(
    console: Console,
    cache: Path,
    model: Path,
    subjects: tuple[str, ...],
    *,
    k: int,
    csv_path: Path | None,
    form: str,
    raw: bool,
    sample: Path | None,
    page: Path | None,
    **options: Any,
) -> int:
    """Print label and probability of each image.

    \b
    featx predict model.featx photo.jpg
    featx predict model.featx test/ --csv submission.csv --format submission --sample sample_submission.csv
    featx predict model.onnx photo.jpg

    An image that cannot be read is a row with its reason. The exit status is 1 where a named file is not there. Rows
    that the cache has are not computed again. Photos that a CSV names keep its columns in the file of --csv.
    """
    from featx.model import write_csv
    from featx.model.tabulate import check_destination

    if csv_path is None and (sample or raw or form != "photos"):
        raise click.UsageError("--format, --sample and --raw are of the file that --csv OUT writes.")
    if csv_path is not None:
        check_destination(csv_path)
    classifier = opened(model, taken(Loading, options))
    source = _source(subjects, taken(Source, options))
    found = classifier.classify(source, cache=cache, **options)
    if csv_path is not None:
        beside = subjects[0] if len(subjects) == 1 and subjects[0].lower().endswith((".csv", ".tsv")) else None
        filled = write_csv(found, csv_path, form=form, top=k, sample=sample, beside=beside, raw=raw)
        if filled:
            console.note(f"{len(filled)} images could not be read: equal probabilities stand for them")
    if page is not None:
        from featx.model import Predictions
        from featx.reporting import report_predictions

        if not isinstance(found, Predictions):
            raise OptionError("--report is of predicted classes. Of labels and numbers: --csv OUT")

        console.note(f"The report: {report_predictions(found, source).save(page)}")
    console.result(found.to_dict(k), _text(found, csv_path))
    missing = [path for path in subjects if isinstance(source, list) and not Path(path).exists()]
    if missing:
        click.echo(f"Error: no such file: {shlex.join(missing)}", err=True)
    return 1 if missing else 0


def opened(model: Path, how: Loading) -> Model | PackedModel:
    """Open a model file, or a packed one."""
    from featx.packing import is_packed

    if is_packed(model):
        from featx.packing import PackedModel

        return PackedModel(model)
    from featx.model import load

    return load(model, **vars(how))


def _source(subjects: tuple[str, ...], how: Source) -> Any:
    """One folder, table or archive stands for all it holds; several arguments, or one image, are a list of images."""
    path = Path(subjects[0])
    if len(subjects) > 1 or (path.is_file() and path.suffix.lower() not in _CONTAINERS):
        return list(subjects)
    if is_table(subjects[0]):
        return subjects[0]
    from featx.datasets import open_dataset

    return open_dataset(subjects[0], **vars(how))


def _unit(found: Predictions | LabelPredictions | NumberPredictions) -> str:
    return "image" if found.images is None else "item"


def _text(found: Predictions | LabelPredictions | NumberPredictions, csv_path: Path | None) -> str:
    from featx.model import Predictions

    if csv_path is not None:
        return f"{len(found):,} rows, {len(found.errors):,} of them not readable: {csv_path}"
    rows = []
    if not isinstance(found, Predictions):
        header, cells = found.columns()
        for i, (name, row) in enumerate(zip(found.ids, cells, strict=True)):
            words = [f"{cell:.4g}" if isinstance(cell, float) else cell for cell in row]
            rows.append([name, *words, f"not read: {found.errors[i]}" if i in found.errors else ""])
        return table(
            rows, [_unit(found), *header, ""], "l" + "".join("l" if h == "labels" else "r" for h in header) + "l"
        )
    for i, (name, label, top) in enumerate(zip(found.ids, found.labels, found.top(3), strict=True)):
        if i in found.errors:
            rows.append([name, "–", "", f"not read: {found.errors[i]}"])
        else:
            others = ", ".join(f"{other} {100 * p:.1f} %" for other, p in top[1:])
            rows.append([name, label or "unsure", f"{100 * top[0][1]:.1f} %", others])
    return table(rows, [_unit(found), "label", "probability", "next"], "llrl")


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("sources", metavar="[TABLE...|DATA]", nargs=-1)
@settings_options(EvaluatingTable)
@click.option("--csv", "sheet", type=click.Path(path_type=Path), metavar="OUT", help="A row a photo: right or wrong.")
@click.option("--mislabelled", type=click.Path(path_type=Path), metavar="OUT", help="Photos whose label looks wrong.")
@_raw
@click.option("--report", "page", type=click.Path(path_type=Path), metavar="OUT.html", help="Also write the report.")
@settings_options(Averaging, Loading, Source, Options)
@common
def evaluate(
    console: Console,
    cache: Path,
    model: Path,
    sources: tuple[str, ...],
    split: str | None,
    labels: str | None,
    hierarchy: str | None,
    tta: bool,
    page: Path | None,
    sheet: Path | None,
    mislabelled: Path | None,
    raw: bool,
    **options: Any,
) -> None:
    """Print accuracy with its interval, per-class scores, and what is confused with what.

    Of a model of labels, mAP, F1 and the scores of each; of one of numbers, R² and mean errors.

    \b
    featx evaluate model.featx --report report.html
    featx evaluate model.featx --csv photos.csv --mislabelled doubts.csv

    Without TABLE or DATA it is evaluated on the table that it was fitted on. Rows whose content the model was trained
    on are counted, named, and left out of the headline. DATA are extracted by the model's own recipe.
    """
    if tta and page is not None:
        raise click.UsageError("--report shows images as they are, --tta averages over views: one of the two.")
    from featx.curation import doubts
    from featx.evaluation import held_out, held_out_targets
    from featx.evaluation.on_table import levels_above
    from featx.features import relabelled
    from featx.model import load
    from featx.model.tabulate import check_destination, write_rows
    from featx.reporting import report

    for path in filter(None, (sheet, mislabelled)):
        check_destination(path)
    classifier, source = load(model, **vars(taken(Loading, options))), one_source(sources)
    levels = levels_above(classifier, hierarchy)
    with classifier.loadable_requests() as requests:
        if source is None:
            rows = own_table(classifier)
        else:
            rows = find_table(console, source, cache, Extract(**options), requests, remember=False)
    if labels is not None:
        rows = relabelled(rows, labels)
    found: Evaluation | TargetEvaluation
    if classifier.outputs is None:
        images, how = (_images(rows), vars(taken(ComputeOptions, options))) if tta else (None, {})
        held = held_out(classifier, rows, split)
        found = held.evaluate(classifier, images, levels=levels, **how)
        records = held.records(found)
    elif tta or mislabelled is not None:
        raise OptionError(f"{'--tta' if tta else '--mislabelled'} is of classes, and this model predicts others.")
    else:
        of_targets = held_out_targets(classifier, rows, split)
        found = of_targets.evaluate(classifier)
        records = of_targets.records(found)
    if sheet is not None:
        write_rows(sheet, *records, raw=raw)
        console.note(f"{len(records[1]):,} photos, the most surely wrong first: {sheet}")
    if mislabelled is not None:
        found_wrong = doubts(rows, model=classifier)
        write_rows(mislabelled, *found_wrong.records(), raw=raw)
        console.note(f"{len(found_wrong):,} photos whose label looks wrong, the most doubtful first: {mislabelled}")
    if page is not None:
        made = report(classifier, table=rows, split=split, command=typed_command())
        console.note(f"The report: {made.save(page)}")
    names = [str(part.path) for part in rows.tables]
    console.result(found.to_dict() | {"table": ", ".join(names)}, "\n".join([*names, str(found)]))


def own_table(classifier: Model) -> Features:
    """Return the table that a model was fitted on."""
    table = classifier.table()
    if table is None:
        path = classifier.report.table
        why = f"{path}, on which it was fitted, is not there any more" if path else "it was not fitted on a table"
        raise DataError(f"Say what the model is to be evaluated on: {why}. Type: featx evaluate MODEL TABLE|DATA")
    return table


def _images(table: Features) -> Dataset:
    from featx.datasets import reopen

    source = table.provenance.get("source")
    if not source:
        raise DataError(
            "--tta makes views of the images, and the table does not say where they are. Give them instead of the "
            "table: featx evaluate MODEL DATA --tta"
        )
    return reopen(source)
