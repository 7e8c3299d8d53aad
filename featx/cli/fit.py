"""``featx fit``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from featx.cli.common import Console, common, seconds_text, table
from featx.cli.options import Parallel, output_option, refuse_extraction_options, settings_options, taken
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
@output_option("model.featx", "Where the model goes.")
@settings_options(Parallel, Extract)
@common
def fit(
    console: Console,
    cache: Path,
    source: str | None,
    head: str | None,
    protocol: str | None,
    output: Path,
    *,
    bundle: bool,
    unsafe_pickle: bool,
    **options: Any,
) -> None:
    """Fit a classifier on the features of TABLE, or of DATA, or of the table used last.

    \b
    featx fit --head logreg -o model.featx

    It is fitted on train and chosen on validation (a tenth of train where there is no such split); both are
    reported. The test split is looked at with --test only, and by a --protocol, which always reports it.
    With --jobs 4 or --backend ray the fits of --search and --cv are done side by side, with the same result.
    """
    asked, parallel = taken(Extract, options), taken(Parallel, options)
    options["settings"] = parse_settings(options["settings"])
    check_fit(head, protocol, asked, options, unsafe_pickle=unsafe_pickle)
    on_table = source is None or is_table(source)
    if on_table:
        refuse_extraction_options("a table")
        if asked.augment:
            raise OptionError(
                "--augment makes views of DATA; a table has those it has. Leave it out, or name the DATA."
            )
    features = find_table(console, source, cache, asked)
    if protocol:
        from featx.protocols import run_protocol

        model = run_protocol(features, protocol, memory=options["memory"], seed=asked.seed)
    else:
        from featx.model import fit as fit_model

        with parallel.context():
            model = fit_model(
                features,
                head or "mlp",
                # Data that were extracted for this fit had their validation split drawn when they were read.
                val=asked.val if on_table else None,
                # All views that a table has, of DATA those that are asked for.
                views=asked.views if on_table else asked.views or 1,
                seed=asked.seed,
                **options,
            )
    path = model.save(output, bundle=bundle, unsafe_pickle=unsafe_pickle)
    report = {"model": str(path), "table": str(features.path), **model.report}
    show_fit(console, report, fit_lines(report))


def check_fit(
    head: str | None, protocol: str | None, asked: Extract, options: dict[str, Any], *, unsafe_pickle: bool
) -> None:
    """Refuse what no features could make right, before any are computed."""
    from featx.heads import make_head
    from featx.model.saving import check_savable
    from featx.model.search import parse_search
    from featx.protocols import check_name
    from featx.settings import parse_bytes

    if protocol:
        check_name(protocol)
        given = {"head": head, "set": options["settings"], "cv": options["cv"], "search": options["search"]}
        given |= {"views": asked.views, "augment": asked.augment, "val": asked.val}
        given |= {"scale": options["scale"] != "auto", "refit": options["refit"]}
        for name, value in given.items():
            if value:
                raise OptionError(f"--protocol decides what --{name} is for. Leave out one of them.")
    check_savable(make_head(head or "mlp", **options["settings"]), unsafe_pickle=unsafe_pickle)
    if options["search"]:
        parse_search(options["search"])
    if options["memory"]:
        parse_bytes(options["memory"])


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


def show_fit(console: Console, report: dict[str, Any], lines: list[str]) -> None:
    """Print what a fit came to, its warnings on stderr."""
    protocol = report.get("protocol") or {}
    console.note(*(f"Warning: {text}" for text in [*report.get("warnings", []), *protocol.get("warnings", [])]))
    console.result(report, "\n".join(lines))


def fit_lines(report: dict[str, Any]) -> list[str]:
    """Return what a fit came to, in a few lines."""
    lines = protocol_lines(report["protocol"]) if report.get("protocol") else []
    for split in ("train", "val", "test"):
        if scores := report.get(split):
            of = f"of {scores['n']:,} rows right{', each left out of its own vote' if scores.get('left_out') else ''}"
            if worth := scores.get("n_effective"):
                of += f" (in groups, worth {worth:,.0f} by themselves)"
            lines.append(f"{split:5}  {_accuracy(scores)}  {of}")
    if cv := report.get("cv"):
        folds = " ".join(f"{100 * accuracy:.2f}" for accuracy in cv["accuracies"])
        lines.append(f"{'cv':5}  {_mean(cv)}  over {len(cv['accuracies'])} folds of train: {folds}")
    if search := report.get("search"):
        rows = [[_settings(trial["settings"]), _mean(trial)] for trial in search]
        lines.append(table(rows, [f"{len(rows)} alternatives", "accuracy where it chose"], "lr"))
    views = (
        [f"{report['views']} views of each training image ({report['augment']})"] if report.get("views", 1) > 1 else []
    )
    facts = [f"{report['n_parameters']:,} parameters", *views]
    facts += [*filter(None, [_settings(report["chosen"])]), seconds_text(report["seconds"])]
    lines.append(f"{report['head']}: {', '.join(facts)}")
    if report.get("table"):
        lines.append(f"Fitted on {report['table']}")
    return [*lines, f"Saved {report['model']}. Next: featx predict {shlex.quote(report['model'])} IMAGE"]


def protocol_lines(protocol: dict[str, Any]) -> list[str]:
    """Return which rows a protocol chose on, which it reported on, and what came of it."""
    lines = [f"{protocol['name']} ({protocol['source']})", f"chose     {protocol['chose']}"]
    lines.append(f"reported  {protocol['reported']}")
    return [*lines, *(f"  {result['setting']:12}  {_accuracy(result)}" for result in protocol["results"])]


def _accuracy(scores: dict[str, Any]) -> str:
    low, high = scores["ci95"]
    return f"{100 * scores['accuracy']:6.2f} %  [{100 * low:.2f}, {100 * high:.2f}]"


def _mean(trial: dict[str, Any]) -> str:
    sd = f" ± {100 * trial['sd']:.2f}" if trial.get("sd") is not None else ""
    return f"{100 * trial['accuracy']:6.2f} %{sd}"


def _settings(settings: dict[str, Any]) -> str:
    return ", ".join(f"{k} = {v:.3g}" if isinstance(v, float) else f"{k} = {v}" for k, v in settings.items())
