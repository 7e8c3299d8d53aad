"""``featx fit``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from featx.cli.common import Console, common, seconds_text
from featx.cli.options import refuse_extraction_options, settings_options, taken
from featx.cli.parallel import parallel, parallel_options
from featx.cli.tables import find_table, is_table
from featx.errors import OptionError
from featx.extraction import Extract


@click.command()
@click.argument("source", metavar="[TABLE|DATA]", required=False)
@click.option("--head", show_default="mlp", help="A name of `featx heads`, or package.module:Class.")
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="A setting of the head; repeatable.")
@click.option("--scale", default="auto", show_default=True, metavar="auto|none|standard|l2", help="Part of the model.")
@click.option("--cv", type=int, metavar="K", help="Also cross-validate on train; with --search the folds choose.")
@click.option("--search", metavar="SPEC", help='Alternatives, for example "C=0.1,1,10"; validation chooses.')
@click.option(
    "--protocol",
    metavar="NAME",
    help="Of a paper, instead of --head: dinov2-logreg, dino-knn, clip-lp, bigvision-fewshot, vtab-1k.",
)
@click.option("--refit", is_flag=True, help="Fit once more on train and validation with what was chosen.")
@click.option("--memory", metavar="2GiB", help="A larger table is streamed.")
@click.option("--test", is_flag=True, help="Report the test split as well. It never chooses.")
@click.option("--bundle", is_flag=True, help="Put the backbone's weights into the model file.")
@click.option("--unsafe-pickle", is_flag=True, help="Pickle a head that has no data-only form.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("model.featx"), show_default=True)
@parallel_options
@settings_options(Extract)
@common
def fit(console: Console, cache: Path, source: str | None, head: str | None, output: Path, **options: Any) -> None:
    """Fit a classifier on the features of TABLE, or of DATA, or of the table used last.

    \b
    featx fit --head logreg -o model.featx

    It is fitted on train and chosen on validation (a tenth of train where there is no such split); both are
    reported. The test split is looked at with --test only, and by a --protocol, which always reports it.
    With --jobs 4 or --backend ray the fits of --search and --cv are done side by side, with the same result.
    """
    check_protocol(head, options)
    check_head(head, options)
    if source is None or is_table(source):
        refuse_extraction_options("a table")
    views = views_to_use(source, options)
    table = find_table(console, source, cache, taken(Extract, options))
    if options["protocol"]:
        from featx.protocols import run_protocol

        model = run_protocol(table, options["protocol"], memory=options["memory"], seed=options["seed"])
    else:
        from featx.model import fit as fit_model

        with parallel(options["jobs"], options["backend"]):
            model = fit_model(
                table,
                head or "mlp",
                settings=parse_settings(options["settings"]),
                # Data that were extracted for this fit had their validation split drawn when they were read.
                val=options["val"] if source is None or is_table(source) else None,
                views=views,
                **{name: options[name] for name in ("scale", "cv", "search", "refit", "test", "seed", "memory")},
            )
    path = model.save(output, bundle=options["bundle"], unsafe_pickle=options["unsafe_pickle"])
    report = {"model": str(path), "table": str(table.path), **model.report}
    console.result(report, report_text(report))


def check_protocol(head: str | None, options: dict[str, Any]) -> None:
    """Refuse, beside a protocol, the options that it decides itself."""
    given = {"head": head, "set": options["settings"], "cv": options["cv"], "search": options["search"]}
    given |= {"views": options["views"], "augment": options["augment"]}
    given |= {"scale": options["scale"] != "auto", "refit": options["refit"], "val": options["val"]}
    for name, value in given.items():
        if options["protocol"] and value:
            raise OptionError(f"--protocol decides what --{name} is for. Leave out one of them.")


def check_head(head: str | None, options: dict[str, Any]) -> None:
    """Refuse what no features could make right, before any are computed."""
    from featx.files.sizes import parse_bytes
    from featx.heads import make_head
    from featx.model.search import parse_search
    from featx.protocols import check_name

    if options["protocol"]:
        check_name(options["protocol"])
    make_head(head or "mlp", **parse_settings(options["settings"]))
    if options["search"]:
        parse_search(options["search"])
    if options["memory"]:
        parse_bytes(options["memory"])


def views_to_use(source: str | None, options: dict[str, Any]) -> int | None:
    """Return how many views to fit on: of DATA those that are asked for, of a table by default all it has (None)."""
    if source is not None and not is_table(source):
        return options["views"] or 1
    if options["augment"]:
        raise OptionError("--augment makes views of DATA; a table has those it has. Leave it out, or name the DATA.")
    views: int | None = options["views"]
    return views


def parse_settings(settings: tuple[str, ...]) -> dict[str, str]:
    """Split ``key=value`` words.

    Examples
    --------
    >>> parse_settings(("hidden=256,128", "dropout=0.3"))
    {'hidden': '256,128', 'dropout': '0.3'}
    """
    for setting in settings:
        if "=" not in setting:
            raise OptionError(f"--set takes KEY=VALUE, for example --set dropout=0.3; got {setting!r}.")
    return dict(setting.split("=", 1) for setting in settings)


def report_text(report: dict[str, Any]) -> str:
    """Return what a fit came to, in a few lines."""
    lines = protocol_lines(report["protocol"]) if "protocol" in report else []
    for split in ("train", "val", "test"):
        if scores := report.get(split):
            low, high = scores["ci95"]
            lines.append(
                f"{split:5}  {100 * scores['accuracy']:6.2f} %  [{100 * low:.2f}, {100 * high:.2f}]  "
                f"of {scores['n']:,} rows right{', each left out of its own vote' if scores.get('left_out') else ''}"
            )
    chosen = [f"{k} = {v:.3g}" if isinstance(v, float) else f"{k} = {v}" for k, v in report["chosen"].items()]
    views = (
        [f"{report['views']} views of each training image ({report['augment']})"] if report.get("views", 1) > 1 else []
    )
    facts = [f"{report['n_parameters']:,} parameters", *views, *chosen, seconds_text(report["seconds"])]
    lines.append(f"{report['head']}: {', '.join(facts)}")
    if report.get("table"):
        lines.append(f"Fitted on {report['table']}")
    lines += [f"Warning: {text}" for text in report.get("warnings", [])]
    lines.append(f"Saved {report['model']}. Next: featx predict {report['model']} IMAGE")
    return "\n".join(lines)


def protocol_lines(protocol: dict[str, Any]) -> list[str]:
    """Return which rows a protocol chose on, which it reported on, and what came of it."""
    lines = [f"{protocol['name']} ({protocol['source']})", f"chose     {protocol['chose']}"]
    lines.append(f"reported  {protocol['reported']}")
    for result in protocol["results"]:
        low, high = result["ci95"]
        lines.append(
            f"  {result['setting']:12}  {100 * result['accuracy']:6.2f} %  [{100 * low:.2f}, {100 * high:.2f}]"
        )
    return [*lines, *(f"Warning: {text}" for text in protocol["warnings"])]
