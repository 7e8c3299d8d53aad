"""A model's card: what it predicts, how well, from what it learned, and how to use it; in Markdown, from its report."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from featx.model.report import Accuracy
from featx.reporting.provenance import commands, provenance

if TYPE_CHECKING:
    from featx.model import Model

_TASKS = {"classify": "image-classification", "multilabel": "image-classification", "regress": "image-regression"}
_PREDICTS = {"classify": "one class an image", "multilabel": "several labels an image", "regress": "numbers"}
#: Names of classes that a card lists.
_LISTED = 100


def card(model: Model, *, name: str = "model", file: str = "model.featx", license: str | None = None) -> str:  # noqa: A002 - as the Hub calls it
    """Return the card of a model, Markdown behind the front matter that the Hugging Face Hub reads.

    Parameters
    ----------
    model : Model
    name : str
        What it is called: ``owner/name`` on the Hub.
    file : str
        The file that a user loads.
    license : str, optional
        As the Hub abbreviates it: ``apache-2.0``.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from featx import Features, fit
    >>> model = fit(Features.from_arrays(*load_digits(return_X_y=True)), "ridge")
    >>> print(card(model, name="digits").splitlines()[1])
    library_name: "featx"
    """
    report = model.report
    parts = [(part, found) for part in ("test", "val", "train") if (found := getattr(report, part)) is not None]
    lines = ["---", *_front_matter(model, name, license, parts), "---", "", f"# {_plain(name)}", ""]
    made = f"`{model.head_name}` on {_plain(model.made_of)}" if model.made_of else f"`{model.head_name}`"
    lines += [f"A model of images by featx: {made}. It predicts {_PREDICTS[report.task]}.", ""]
    listed = ", ".join(_code(one) for one in model.columns[:_LISTED])
    more = f", and {len(model.columns) - _LISTED:,} more" if len(model.columns) > _LISTED else ""
    lines += [f"**{len(model.columns):,} {'classes' if model.outputs is None else 'outputs'}:** {listed}{more}", ""]
    lines += ["## How good it is", ""]
    if parts:
        lines += ["| rows | score | 95 % interval | n |", "|---|---|---|---|"]
        lines += [_score(part, found) for part, found in parts]
        lines += ["", _caution(parts), ""]
    else:
        lines += ["Nothing was held out, so nobody knows.", ""]
    lines += [f"- {_plain(text)}" for text in report.warnings] + [""] * bool(report.warnings)
    lines += ["## How to use it", "", "```python", "import featx", "", f'model = featx.load("{_address(name, file)}")']
    lines += ['model.predict(["photo.jpg"])', "```", ""]
    lines += ["The file is data alone: loading it imports and runs nothing.", "", "## What it does not know", ""]
    lines += [_limits(model), "", "## Where it comes from", ""]
    for heading, facts in provenance(model, None):
        lines += [f"**{heading}**", "", "| | |", "|---|---|"]
        lines += [f"| {_plain(key)} | {_plain(value)} |" for key, value in facts] + [""]
    made_by = commands(model, None, f"featx card {file}")
    return "\n".join([*lines, "```sh", made_by, "```", ""])


def _front_matter(model: Model, name: str, license_name: str | None, parts: list[tuple[str, Any]]) -> list[str]:
    """Return it as YAML, of which JSON is a part."""
    task = _TASKS[model.report.task]
    dataset = {"name": model.report.dataset or "own images", "type": "custom"}
    results = [
        {
            "task": {"type": task},
            "dataset": dataset | {"split": part},
            "metrics": [{"type": metric, "value": round(value, 6), "name": f"{metric} ({part})"}],
        }
        for part, found in parts
        for metric, value, _ in [_measured(found)]
        if part != "train"
    ]
    facts: dict[str, Any] = {
        "library_name": "featx",
        "tags": ["featx", "transfer-learning", model.head_name],
    }
    if model.report.task != "regress":  # for which the Hub has no name
        facts["pipeline_tag"] = task
    if license_name:
        facts["license"] = license_name
    if results:
        facts["model-index"] = [{"name": name, "results": results}]
    return [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in facts.items()]


def _measured(found: Any) -> tuple[str, float, tuple[float, float] | None]:
    """Return name, value and interval of a score."""
    told = found.to_dict()
    metric = "accuracy" if isinstance(found, Accuracy) else next(key for key in ("map", "r2") if key in told)
    interval = told.get("ci95")
    return metric, float(told[metric]), tuple(interval) if interval else None


def _score(part: str, found: Any) -> str:
    metric, value, interval = _measured(found)
    ends = "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
    return f"| {part} | {metric} {value:.3f} | {ends} | {found.to_dict()['n']:,} |"


def _caution(parts: list[tuple[str, Any]]) -> str:
    if parts[0][0] == "test":
        return "Test rows chose nothing. Those of validation chose settings: on new images expect a little less."
    return "No test rows were looked at. Those of validation chose settings: on new images expect a little less."


def _limits(model: Model) -> str:
    text = (
        f"It learned from {len(model.trained_on):,} images and says one of its answers of whatever it is shown. "
        "Of images unlike these it knows nothing"
    )
    if model.ood is None:
        return f"{text}, and it cannot tell."
    return f"{text}; `familiarity` tells which these are: leave them without an answer by `--min-familiarity 0.01`."


def _address(name: str, file: str) -> str:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return file
    return f"hf://{name}" if file == "model.featx" else f"hf://{name}/{file}"


def _plain(text: str) -> str:
    """Write a text so that Markdown and HTML show it as it is, on one line of a table."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    """Write a name as code, whatever is in it."""
    text = " ".join(text.split())
    return f"`` {text} ``" if "`" in text else f"`{text}`"
