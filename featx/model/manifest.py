"""``model.json``: what a model file says about itself, and the checks on it before anything is believed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.augment import Augmentation
from featx.errors import ModelFileError, OptionError
from featx.features.items import Combining
from featx.metrics import METRIC_CHOICES
from featx.model.fields import DIGEST, MAX_SIDE, OUTPUTS, given_outputs, read_recipe
from featx.model.inputs import Input
from featx.model.outputs import METRIC_NAMES, Outputs
from featx.model.report import FitReport
from featx.model.schema import (
    FLAG,
    PLAIN,
    TEXT,
    Kind,
    among,
    check,
    dict_of,
    either,
    list_of,
    number,
    optional,
    parse_json,
    record,
    text,
    whole,
)
from featx.model.scores import Calibration
from featx.model.settings import COMBINATIONS
from featx.recipe import Request, Views
from featx.targets import TASKS

#: Version of the form that is written. `_READERS` says which are read.
FORMAT = 1

_SIDE = whole(1, MAX_SIDE)
_SHARE = number(0, 1)
_COUNT = whole(0)

_FIELDS = {
    "format": whole(1),
    "featx": TEXT,
    "recipe": optional(dict_of(PLAIN)),
    "request": optional(dict_of(PLAIN)),
    "classes": list_of(TEXT),
    "scale": among("none", "standard", "l2"),
    "head_name": TEXT,
    "head": dict_of(PLAIN),
    "temperature": number(1e-12),
    "floor": Kind("a number in 0…1", lambda x: number(0, 1).holds(x) and 0 < x < 1),
    "report": dict_of(PLAIN),
    "network_file": optional(text(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,200}\.(pth|safetensors)")),
    "views": optional(record({"n": whole(2, 1000), "augment": text(".+"), "seed": whole()})),
    "outputs": optional(OUTPUTS),
    "items": optional(
        record(
            {"how": among(*COMBINATIONS), "slots": list_of(TEXT), "learned": list_of(list_of(TEXT))},
        )
    ),
    "members": dict_of(record({"size": _COUNT, "sha256": DIGEST})),
    "beside": list_of(record({"recipe": dict_of(PLAIN), "request": optional(dict_of(PLAIN))})),
}
_REQUEST = {
    **dict.fromkeys((field.name for field in dataclasses.fields(Request)), TEXT),
    "layers": list_of(TEXT),
    "image_size": optional(_SIDE),
    "white": optional(whole(255, 65535)),
    "seed": whole(),
    "version": optional(TEXT),
}
_CHOICES = dict.fromkeys((name for name in METRIC_CHOICES if name != "accuracy"), optional(number()))
_ACCURACY = {"n": whole(1), "accuracy": _SHARE, "ci95": list_of(_SHARE, 2), "n_effective": number(1, 2**53)}
_METRICS = dict.fromkeys(METRIC_NAMES, optional(number()))
_SCORE = either(
    record(_ACCURACY | _CHOICES | {"left_out": FLAG}, "left_out", "n_effective", *_CHOICES),
    record({"n": whole(1), "ci95": optional(list_of(number(), 2)), **_METRICS}, *_METRICS),
)
_TRIED = {"settings": dict_of(PLAIN), "sd": optional(number(0)), "k": whole(2)}
_SHARES = Kind("a list of shares", lambda x: list_of(_SHARE).holds(x) and len(x) > 0)
_SCORES = Kind("a list of numbers", lambda x: list_of(number()).holds(x) and len(x) > 0)
_TRIAL = either(
    record(_TRIED | {"accuracy": _SHARE, "accuracies": _SHARES}, "k"),
    *(record(_TRIED | {metric: number(), "scores": _SCORES}, "k") for metric in _CHOICES),
)


def _are_curves(value: Any) -> bool:
    """Say whether the columns that are drawn over ``step`` or ``val_step`` are as long as those."""
    return dict_of(list_of(number())).holds(value) and all(
        len(column) == len(value.get("val_step" if name.startswith("val_") else "step", column))
        for name, column in value.items()
    )


_CURVES = Kind("columns of numbers, an entry a step", _are_curves)
_TRIED_ON = {"head": TEXT, "scale": TEXT, "tables": list_of(TEXT), "balance": optional(among("columns", "tables"))}
_REPORT = {
    "head": TEXT,
    "table": optional(TEXT),
    "tables": list_of(TEXT),
    "joins": list_of(
        record(
            {
                "tables": list_of(TEXT),
                "balance": optional(among("columns", "tables")),
                "loss": number(),
                "chosen": FLAG,
            }
        )
    ),
    "tried": list_of(
        record(
            _TRIED_ON
            | {
                "settings": dict_of(PLAIN),
                "loss": optional(number()),
                "score": optional(number()),
                "weight": number(0, 1),
            }
        )
    ),
    "skipped": list_of(record(_TRIED_ON | {"why": TEXT})),
    "task": among(*TASKS),
    **dict.fromkeys(("train", "val", "test"), optional(_SCORE)),
    "seconds": number(0, 1e12),
    "n_parameters": _COUNT,
    "chosen": dict_of(PLAIN),
    "scale": TEXT,
    "temperature": number(0),
    "history": _CURVES,
    "views": whole(1),
    "augment": optional(TEXT),
    "refit": FLAG,
    "search": optional(list_of(_TRIAL)),
    "cv": optional(_TRIAL),
    "path": optional(list_of(record({"C": number(0), "score": number()}))),
    "warnings": list_of(TEXT),
    "protocol": optional(
        record(
            {
                "name": TEXT,
                "source": TEXT,
                "chose": TEXT,
                "reported": TEXT,
                "results": list_of(
                    record(_ACCURACY | {"setting": TEXT, "accuracies": list_of(_SHARE)}, "accuracies", "n_effective")
                ),
                "warnings": list_of(TEXT),
            }
        )
    ),
    "kind": among("frozen", "finetune", "scratch"),
    "dataset": TEXT,
    "source": dict_of(PLAIN),
    "errors": _COUNT,
    "settings": dict_of(PLAIN),
    "iterations": _CURVES,
}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything in a model that is not an array.

    Attributes
    ----------
    featx : str
        Version that wrote the file.
    inputs : tuple of Input
        How its rows are made from images, without probes; none for a model of rows that came from elsewhere.
    classes : tuple of str
        Names of the classes, in the order of the columns of ``predict_proba``.
    scale : {"none", "standard", "l2"}
        The step before the head.
    head_name : str
        As the user called it.
    head : dict
        What `featx.heads.state` needs beside arrays to rebuild the head.
    calibration : Calibration
        From scores to probabilities.
    report : FitReport
        What ``fit`` reported.
    network_file : str or None
        Name of the weights file whose content is in ``network.safetensors``.
    views : Views or None
        Augmented views that it was fitted on.
    items : Combining or None
        How rows of images become those of items; its arrays are in a member of their own.
    outputs : Outputs or None
        Labels or numbers that it says, in place of classes.
    """

    featx: str
    inputs: tuple[Input, ...]
    classes: tuple[str, ...]
    scale: str
    head_name: str
    head: dict[str, Any]
    calibration: Calibration
    report: FitReport
    network_file: str | None = None
    views: Views | None = None
    outputs: Outputs | None = None
    items: Combining | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a row; empty for rows that came from elsewhere."""
        times = 1 if self.items is None else self.items.times_wider
        if len(self.inputs) == 1 and times == 1:
            return self.inputs[0].recipe.shape
        return (times * sum(made.recipe.shape[0] for made in self.inputs),) if self.inputs else ()

    def to_json(self, members: Mapping[str, bytes]) -> bytes:
        """Return ``model.json`` for a file whose other members are `members`."""
        first, *others = map(_described, self.inputs or (None,))
        # A classifier's file is one that a featx without tasks reads.
        left_out = {"seconds", "task"} if self.outputs is None else {"seconds"}
        outputs = {} if self.outputs is None else {"outputs": dataclasses.asdict(self.outputs)}
        fields = outputs | {
            "format": FORMAT,
            "featx": self.featx,
            **first,
            "classes": list(self.classes),
            "scale": self.scale,
            "head_name": self.head_name,
            "head": self.head,
            "temperature": self.calibration.temperature,
            "floor": self.calibration.floor,
            "report": {name: _timeless(value) for name, value in self.report.items() if name not in left_out},
            "network_file": self.network_file,
            "views": self.views and dataclasses.asdict(self.views),
            "members": {name: {"size": len(content), "sha256": _sha256(content)} for name, content in members.items()},
        }
        if self.items is not None:
            learned = [sorted(known) for known in self.items.learned]
            fields["items"] = {"how": self.items.how, "slots": list(self.items.slots), "learned": learned}
        if others:  # a file of one input is one that every version reads
            fields["beside"] = others
        return json.dumps(fields, indent=1, sort_keys=True, allow_nan=False, default=_as_json).encode()

    @classmethod
    def from_json(cls, data: bytes, members: Mapping[str, bytes]) -> Manifest:
        """Read ``model.json`` of any version that is known, and hold every other member against its digest.

        Raises
        ------
        ModelFileError
            Naming the first thing that is not as it should be, without the file's name.
        """
        fields = parse_json(data)
        version = fields.get("format")
        if type(version) is not int or version not in _READERS:
            newer = type(version) is int and version > FORMAT
            advice = ". Read it with the featx that wrote it, or a later one: pip install --upgrade featx"
            raise ModelFileError(f"it is of format {version!r}, this featx reads {FORMAT}{advice if newer else ''}")
        return _READERS[version](fields, members)


def _read_1(fields: dict[str, Any], members: Mapping[str, bytes]) -> Manifest:
    """Read format 1, which all versions of featx up to this one write."""
    check(fields, _FIELDS, "model.json", "views", "network_file", "outputs", "beside", "items")
    if fields["members"].keys() != members.keys():
        raise ModelFileError("model.json lists other members than the file has")
    for name, content in members.items():
        if fields["members"][name] != {"size": len(content), "sha256": _sha256(content)}:
            raise ModelFileError(f"{name} is not the one that model.json describes")
    classes, outputs = fields["classes"], given_outputs(fields.get("outputs"))
    if bool(classes) == bool(outputs) or len(set(classes)) != len(classes):
        raise ModelFileError("its classes are not a list of different names")
    network_file = fields.get("network_file")
    if "network.safetensors" in members and network_file is None:
        raise ModelFileError("its network_file is no name of a weights file")
    return Manifest(
        featx=fields["featx"],
        inputs=_inputs([fields, *fields.get("beside", [])]),
        classes=tuple(classes),
        scale=fields["scale"],
        head_name=fields["head_name"],
        head=fields["head"],
        calibration=Calibration(float(fields["temperature"]), float(fields["floor"])),
        report=_report(fields["report"]),
        network_file=network_file if "network.safetensors" in members else None,
        views=fields.get("views") and _views(fields["views"]),
        outputs=outputs,
        items=_items(fields.get("items")),
    )


#: How to read each version of ``model.json``. A new one is written, and this stays as it is for the files there are.
_READERS: dict[int, Callable[[dict[str, Any], Mapping[str, bytes]], Manifest]] = {1: _read_1}


def _as_json(value: Any) -> Any:
    """Numbers of numpy as Python's; a setting that is anything else, by its name."""
    return value.item() if isinstance(value, np.generic) else str(value)


def _timeless(value: Any) -> Any:
    """Return a list of what was tried without how long each took; anything else as it is."""
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        return [{name: told for name, told in one.items() if name != "seconds"} for one in value]
    return value


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _described(made: Input | None) -> dict[str, Any]:
    if made is None:
        return {"recipe": None, "request": None}
    request = made.request and json.loads(made.request.to_json())
    return {"recipe": json.loads(made.recipe.to_json()), "request": request}


def _inputs(described: list[dict[str, Any]]) -> tuple[Input, ...]:
    found = []
    for made in described:
        request = None if made["request"] is None else _request(made["request"])
        if made["recipe"] is not None:
            found.append(Input(read_recipe(made["recipe"]), request))
    if len(described) > 1 and any(len(made.recipe.shape) != 1 for made in found):
        raise ModelFileError("rows that are no vectors stand side by side in it")
    return tuple(found)


def _request(fields: dict[str, Any]) -> Request:
    check(fields, _REQUEST, "its request", *_REQUEST)
    try:
        return Request.from_json(json.dumps(fields))
    except OptionError as error:
        raise ModelFileError(f"its request cannot be read: {error}") from error


def _views(fields: dict[str, Any]) -> Views:
    if str(Augmentation.parse(fields["augment"])) != fields["augment"]:
        raise ModelFileError("its augmented views are not as featx writes them")
    return Views(**fields)


def _items(fields: dict[str, Any] | None) -> Combining | None:
    if fields is None:
        return None
    slots = tuple(fields["slots"])
    if (fields["how"] == "slots") != bool(slots) or list(slots) != sorted(set(slots)):
        raise ModelFileError("its slots are not as featx writes them")
    return Combining(fields["how"], slots)


def _report(fields: dict[str, Any]) -> FitReport:
    check(fields, _REPORT, "its report", *_REPORT)
    for part in ("train", "val", "test"):
        found = fields.get(part)
        if found is not None and "accuracy" in found:
            n_correct = found["accuracy"] * found["n"]
            if abs(n_correct - round(n_correct)) > 1e-6 * max(1, n_correct):
                raise ModelFileError(f"the accuracy on {part} of its report is of no number of its rows")
    return FitReport.from_dict(fields)
