"""Where a model comes from: recipe, weights, versions, times, and the commands that make it again."""

from __future__ import annotations

import dataclasses
import shlex
from typing import TYPE_CHECKING, Any

from featx.model.inputs import described, in_one_pass
from featx.model.model import extract_command
from featx.model.vote import Vote

if TYPE_CHECKING:
    from featx.features import Features
    from featx.model import Model

Facts = list[tuple[str, str]]


def provenance(model: Model, table: Features | None) -> list[tuple[str, Facts]]:
    """Return headings with their facts, each a name and a text."""
    report = model.report
    head: Facts = [
        ("head", model.head_name),
        ("chosen", _settings(report.chosen) or "nothing was left to choose"),
        ("scaling", model.scaler.kind),
        ("temperature", f"{model.calibration.temperature:.3g}"),
        ("parameters", f"{report.n_parameters:,}"),
        ("fitted on", f"{len(model.trained_on):,} images"),
        ("chosen on", f"{len(model.chosen_on):,} images"),
        *([("fitting took", _seconds(report.seconds))] if report.seconds is not None else []),  # no file tells
    ]
    found = [("Classifier", head)]
    if report.settings:
        found.append(("Training", [(name, str(value)) for name, value in report.settings.items()]))
    if model.recipe is not None:
        recipe = {f.name: getattr(model.recipe, f.name) for f in dataclasses.fields(model.recipe)}
        frame = dataclasses.asdict(recipe.pop("frame"))
        facts = {"key": model.recipe.key, **recipe, **frame}
        found.append(("Features", [(name.replace("_", " "), _text(value)) for name, value in facts.items() if value]))
    elif model.inputs:
        found.append(("Features", [(f"columns {i}", described(made)) for i, made in enumerate(model.inputs, start=1)]))
    if table is not None and table.provenance:
        found.append(("Extraction", _extraction(table)))
    return found


def _extraction(table: Features) -> Facts:
    told = table.provenance
    versions = ", ".join(f"{name} {version}" for name, version in (told.get("versions") or {}).items())
    facts = [
        ("table", str(table.path)),
        ("rows", f"{' × '.join(f'{n:,}' for n in table.shape)} {table.dtype}"),
        ("written", told.get("written")),
        ("images computed", f"{told['computed']:,}" if "computed" in told else None),
        ("extraction took", _seconds(told["seconds"]) if "seconds" in told else None),
        ("engine", told.get("engine")),
        ("machine", f"{told.get('machine', '')}, {told.get('n_cores', '?')} cores, Python {told.get('python', '?')}"),
        ("versions", versions),
    ]
    return [(name, str(value)) for name, value in facts if value]


def commands(model: Model, table: Features | None, mine: str) -> str:
    """Return the commands that lead from images to this report, one a line.

    Parameters
    ----------
    model : Model
        That was fitted.
    table : Features or None
        That it was fitted on.
    mine : str
        The command that made the report.
    """
    lines = []
    kind = model.report.kind
    source = "DATA" if table is None else (table.provenance.get("source") or {}).get("data", "DATA")
    if kind != "frozen":
        backbone = model.request.backbone if model.request else "NAME"
        lines.append(shlex.join(["featx", "finetune", source, "--backbone", backbone]))
    elif requests := in_one_pass([made.request for made in model.inputs if made.request is not None]):
        lines += [extract_command(request).replace(" DATA", f" {shlex.quote(source)}", 1) for request in requests]
        tables = model.report.tables or [model.report.table or "TABLE"]
        if model.head_name == "ensemble":
            models = (f"model{number}.featx" for number in range(1, len(model.report.tried) + 1))
            weights = ",".join(f"{one['weight']:.6g}" for one in model.report.tried)
            words = ["featx", "ensemble", *models, "--weights", weights]
        else:
            words = ["featx", "fit", *tables, "--head", model.head_name]
            for name, value in model.report.chosen.items():
                words += ["--set", f"{name}={value}"]
            words += [] if isinstance(model.head, Vote) else ["--scale", model.scaler.kind]
        lines.append(shlex.join([*words, "-o", "model.featx"]))
    return "\n".join([*lines, mine])


def _settings(values: Any) -> str:
    return ", ".join(f"{name} = {_text(value)}" for name, value in (values or {}).items())


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return " × ".join(_text(part) for part in value) if isinstance(value, tuple) else str(value)


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
