"""``featx fit``."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx.cli.common import Console, common, seconds_text, table
from featx.cli.options import Parallel, output_option, refuse_extraction_options, settings_options, taken, typed_of
from featx.cli.tables import find_table, is_table, one_source
from featx.errors import OptionError
from featx.extraction import Extract
from featx.model.settings import Backbones, Fit, Saving
from featx.settings import options_of

if TYPE_CHECKING:
    from featx.model.report import Alternative


@click.command()
@click.argument("sources", metavar="[TABLE...|DATA]", nargs=-1)
@settings_options(Fit)
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="A setting of the head; repeatable.")
@click.option(
    "--protocol",
    metavar="NAME",
    help="Of a paper, instead of --head: dinov2-logreg, dino-knn, clip-lp, bigvision-fewshot, vtab-1k.",
)
@settings_options(Saving)
@output_option("model.featx", "Where the model goes.")
@settings_options(Backbones)
@settings_options(Parallel, Extract, without=[field.name for field in options_of(Fit)])
@common
def fit(
    console: Console,
    cache: Path,
    sources: tuple[str, ...],
    protocol: str | None,
    output: Path,
    settings: tuple[str, ...],
    **options: Any,
) -> None:
    """Fit a classifier on the features of TABLE, or of DATA, or of the table used last.

    \b
    featx fit --head logreg -o model.featx
    featx fit photos/ --layers stages --head logreg

    Several tables, layers or backbones stand side by side, rows matched by the content of their images.

    It is fitted on train and chosen on validation (a tenth of train where there is no such split); both are
    reported. The test split is looked at with --test only, and by a --protocol, which always reports it.
    With --jobs 4 or --backend ray the fits of --search and --cv are done side by side, with the same result.
    """
    asked, backbones, source = taken(Extract, dict(options)), taken(Backbones, options).backbones, one_source(sources)
    on_table = not isinstance(source, str) or is_table(source)
    by_near, val = options["group_near_duplicates"] is not None, asked.val
    if by_near:  # images have to have features before a split can follow them
        asked = dataclasses.replace(asked, val=None)
    saving, parallel = taken(Saving, options), taken(Parallel, options)
    how = dataclasses.replace(
        taken(Fit, options),
        settings=parse_settings(settings),
        # Data that were extracted for this fit had their validation split drawn when they were read.
        val=val if on_table or by_near else None,
        # All views that a table has, of DATA those that are asked for.
        views=asked.views if on_table else asked.views or 1,
    )
    check_fit(how, protocol, saving)
    if on_table:
        refuse_extraction_options("a table")
        if asked.augment:
            raise OptionError(
                "--augment makes views of DATA; a table has those it has. Leave it out, or name the DATA."
            )
    features = find_table(
        console, source, cache, asked, [dataclasses.replace(asked, backbone=b).request for b in backbones]
    )
    if protocol:
        from featx.protocols import run_protocol

        model = run_protocol(features, protocol, memory=how.memory, seed=how.seed)
    else:
        from featx.model import fit as fit_model

        with parallel.context():
            model = fit_model(features, **vars(how))
    path = model.save(output, **vars(saving))
    report = {"model": str(path), **model.report}
    show_fit(console, report, fit_lines(report))


def check_fit(how: Fit, protocol: str | None, saving: Saving) -> None:
    """Refuse what no features could make right, before any are computed."""
    from featx.heads import make_head
    from featx.model.saving import check_savable

    if protocol:
        from featx.protocols import check_name

        check_name(protocol)
        for flag in typed_of(
            {field.name for field in options_of(Fit)} - {"memory", "seed", "test"} | {"settings", "augment"}
        ):
            raise OptionError(f"--protocol decides what {flag} is for. Leave out one of them.")
    task = "classify" if how.task == "auto" else how.task
    head = make_head(how.head, task=task, **how.settings or {})
    if how.head != "auto":
        check_savable(head, unsafe_pickle=saving.unsafe_pickle)


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
    from featx.model.outputs import TargetScore
    from featx.model.report import Alternative

    lines = protocol_lines(report["protocol"]) if report.get("protocol") else []
    for split in ("train", "val", "test"):
        if (scores := report.get(split)) and "accuracy" not in scores:
            lines.append(f"{split:5}  {TargetScore.from_dict(scores)}")
        elif scores:
            of = f"of {scores['n']:,} rows right{', each left out of its own vote' if scores.get('left_out') else ''}"
            if worth := scores.get("n_effective"):
                of += f" (in groups, worth {worth:,.0f} by themselves)"
            lines.append(f"{split:5}  {_accuracy(scores)}  {of}{_beside(scores)}")
    if cv := report.get("cv"):
        trial = Alternative.from_dict(cv)
        folds = " ".join(_score(score, trial.metric) for score in trial.scores)
        lines.append(f"{'cv':5}  {_mean(trial)}  over {len(trial.scores)} folds of train: {folds}")
    if joins := report.get("joins"):
        rows = [[_join(one), f"{one['loss']:.4f}{' ← chosen' if one['chosen'] else ''}"] for one in joins]
        lines.append(table(rows, [f"{len(rows)} tries", "loss on validation"], "ll"))
    lines += tried_lines(report)
    if search := report.get("search"):
        trials = [Alternative.from_dict(trial) for trial in search]
        rows = [[_settings(trial.settings), _mean(trial)] for trial in trials]
        lines.append(table(rows, [f"{len(rows)} alternatives", f"{trials[0].metric} where it chose"], "lr"))
    views = (
        [f"{report['views']} views of each training image ({report['augment']})"] if report.get("views", 1) > 1 else []
    )
    facts = [f"{report['n_parameters']:,} parameters", *views]
    facts += filter(None, [_settings(report["chosen"]), report["seconds"] and seconds_text(report["seconds"])])
    lines.append(f"{report['head']}: {', '.join(facts)}")
    if report.get("tables") or report.get("table"):
        lines.append(f"Fitted on {', '.join(report.get('tables') or [report['table']])}")
    return [*lines, f"Saved {report['model']}. Next: featx predict {shlex.quote(report['model'])} IMAGE"]


def tried_lines(report: dict[str, Any]) -> list[str]:
    """Return what ``--head auto`` tried, what each cost and how much it counts; and what it had no time for."""
    lines = []
    if tried := report.get("tried"):
        columns: dict[str, list[str]] = {
            "": [_trial(one) for one in tried],
            "loss": ["" if one["loss"] is None else f"{one['loss']:.4f}" for one in tried],
            "validation": ["" if one["score"] is None else f"{one['score']:.4f}" for one in tried],
            "time": [seconds_text(one["seconds"]) if one.get("seconds") else "" for one in tried],
            "counts": [f"{100 * one['weight']:.0f} %" if one["weight"] else "" for one in tried],
        }
        shown = {name: column for name, column in columns.items() if any(column)}
        rows = list(map(list, zip(*shown.values(), strict=True)))
        lines.append(table(rows, [f"{len(rows)} models", *list(shown)[1:]], "l" + "r" * (len(shown) - 1)))
    if skipped := report.get("skipped"):
        shown_of = [f"{_trial(one)}: {one['why']}" for one in skipped]
        lines.append("\n".join([f"{len(skipped)} not tried", *(f"  {line}" for line in shown_of[:10])]))
        lines += [f"  … and {len(skipped) - 10} more, in the report of the model"] if len(skipped) > 10 else []
    return lines


def _trial(tried: dict[str, Any]) -> str:
    scale = f" ({tried['scale']})" if tried["scale"] not in ("auto", "none") else ""
    return f"{tried['head']}{scale} on {_join(tried)}" if tried["tables"] else f"{tried['head']}{scale}"


def _join(tried: dict[str, Any]) -> str:
    alike = f" ({tried['balance']} weigh alike)" if tried["balance"] else ""
    return " + ".join(tried["tables"]) + alike


def protocol_lines(protocol: dict[str, Any]) -> list[str]:
    """Return which rows a protocol chose on, which it reported on, and what came of it."""
    lines = [f"{protocol['name']} ({protocol['source']})", f"chose     {protocol['chose']}"]
    lines.append(f"reported  {protocol['reported']}")
    return [*lines, *(f"  {result['setting']:12}  {_accuracy(result)}" for result in protocol["results"])]


def _accuracy(scores: dict[str, Any]) -> str:
    low, high = scores["ci95"]
    return f"{100 * scores['accuracy']:6.2f} %  [{100 * low:.2f}, {100 * high:.2f}]"


def _beside(scores: dict[str, Any]) -> str:
    """Return the metric that was asked for, where it is another."""
    from featx.metrics import METRIC_CHOICES

    shown = [f"{name} {scores[name]:.3f}" for name in METRIC_CHOICES if name != "accuracy" and scores.get(name)]
    return "".join(f", {text}" for text in shown)


def _mean(trial: Alternative) -> str:
    sd = f" ± {_score(trial.sd, trial.metric)}" if trial.sd is not None else ""
    return f"{_score(trial.score, trial.metric):>6}{' %' * trial.metric.endswith('accuracy')}{sd}"


def _score(score: float, metric: str) -> str:
    return f"{100 * score:.2f}" if metric.endswith("accuracy") else f"{score:.3f}"


def _settings(settings: dict[str, Any]) -> str:
    return ", ".join(f"{k} = {v:.3g}" if isinstance(v, float) else f"{k} = {v}" for k, v in settings.items())
