"""``featx predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx.cli.common import Console, common, table

if TYPE_CHECKING:
    from featx.model import Predictions


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, metavar="IMAGE|DIR|TABLE...")
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, metavar="K", help="Guesses a row.")
@click.option("--csv", "csv_path", type=click.Path(path_type=Path), metavar="OUT", help="Write the predictions as CSV.")
@click.option("--format", "form", default="long", show_default=True, metavar="long|wide|submission")
@click.option(
    "--sample", type=click.Path(path_type=Path), help="Sample submission: its columns, ids and order are kept."
)
@click.option("--report", "page", type=click.Path(path_type=Path), metavar="OUT.html", help="Write a page of them.")
@click.option("--min-probability", type=float, default=0.0, metavar="P", help="Less probable rows get no label.")
@click.option(
    "--min-familiarity",
    type=float,
    default=0.0,
    metavar="P",
    help="Rows unlike those learned from get no label; 0.01 costs 1 % of the others.",
)
@click.option("--tta", is_flag=True, help="Average over the augmented views that the model was fitted on.")
@click.option("--allow-code", is_flag=True, help="Import the backbone function that the model names.")
@click.option("--unsafe-pickle", is_flag=True, help="Load a head that was pickled: that runs whatever is in it.")
@click.option("--engine", default="auto", show_default=True, metavar="auto|eager|compile|openvino")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:i]")
@click.option("--workers", type=int, metavar="N", help="Decoding processes; 0 decodes in this one.")
@common
def predict(console: Console, cache: Path, model: Path, images: tuple[str, ...], **options: Any) -> None:  # noqa: ARG001
    """Print label and probability of each image.

    \b
    featx predict model.featx photo.jpg
    featx predict model.featx test/ --csv submission.csv --format submission --sample sample_submission.csv

    An image that cannot be read is a row with its reason.
    """
    from featx.model import load, write_csv

    if options["csv_path"] is None and (options["sample"] or options["form"] != "long"):
        raise click.UsageError("--format and --sample are of the file that --csv OUT writes.")
    classifier = load(model, allow_code=options["allow_code"], unsafe_pickle=options["unsafe_pickle"])
    names = ("min_probability", "min_familiarity", "tta", "engine", "device", "workers")
    found = classifier.classify(_source(images), **{name: options[name] for name in names})
    if options["csv_path"]:
        filled = write_csv(
            found, options["csv_path"], form=options["form"], top=options["top"], sample=options["sample"]
        )
        if filled:
            console.note(
                f"{len(filled)} images could not be read: equal probabilities stand for them in the submission"
            )
    if options["page"]:
        from featx.reporting import report_predictions

        console.note(f"The report: {report_predictions(found, _source(images)).save(options['page'])}")
    console.result(found.to_dict(options["top"]), _text(found, options["csv_path"]))


def _source(images: tuple[str, ...]) -> str | list[str]:
    """One folder, table or archive stands for all it holds; several arguments, or one image, are a list of images."""
    if len(images) == 1 and (Path(images[0]).is_dir() or not Path(images[0]).is_file() or _is_container(images[0])):
        return images[0]
    return list(images)


def _is_container(path: str) -> bool:
    return Path(path).suffix.lower() in {".h5", ".hdf5", ".csv", ".npz", ".parquet", ".tar", ".gz", ".tgz"}


def _text(found: Predictions, csv_path: Path | None) -> str:
    if csv_path is not None:
        return f"{len(found):,} rows, {len(found.errors):,} of them not readable: {csv_path}"
    rows = []
    for i, (name, label, top) in enumerate(zip(found.ids, found.labels, found.top(3), strict=True)):
        if i in found.errors:
            rows.append([name, "–", "", f"not read: {found.errors[i]}"])
        else:
            others = ", ".join(f"{other} {100 * p:.1f} %" for other, p in top[1:])
            rows.append([name, label or "unsure", f"{100 * top[0][1]:.1f} %", others])
    return table(rows, ["image", "label", "probability", "next"], "llrl")
