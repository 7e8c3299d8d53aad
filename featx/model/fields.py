"""How rows are made and what outputs are called, read from files that nobody vouches for."""

from __future__ import annotations

import json
import math
from typing import Any

from featx.errors import ModelFileError, OptionError
from featx.model.outputs import Outputs
from featx.model.schema import TEXT, among, check, list_of, number, optional, record, text, whole
from featx.recipe import DTYPES, INTERPOLATIONS, POOLS, PRECISIONS, RESIZES, Recipe
from featx.targets import TASKS

MAX_SIDE = 1 << 15
MAX_ROW = 1 << 31
DIGEST = text("[0-9a-f]{64}")
THREE = list_of(number(), 3)
_SIDE = whole(1, MAX_SIDE)

_RECIPE = {
    "format": whole(),
    "epoch": whole(),
    "backbone": TEXT,
    "weights": TEXT,
    "weights_digest": DIGEST,
    "layer": TEXT,
    "pool": among(*POOLS),
    "shape": list_of(whole(1, MAX_ROW), 1, 3),
    "dtype": among(*DTYPES),
    "precision": among(*PRECISIONS),
    "frame": record(
        {
            "height": _SIDE,
            "width": _SIDE,
            "resize": among(*RESIZES),
            "shorter": whole(0, MAX_SIDE),
            "interpolation": among(*INTERPOLATIONS),
            "background": list_of(whole(0, 255), 3),
            "decode": TEXT,
            "white": whole(255, 65535),
        },
        "white",
    ),
    "mean": THREE,
    "std": list_of(number(1e-12), 3),
    "version": optional(TEXT),
}
#: What files hold of `featx.model.outputs.Outputs`.
OUTPUTS = record(
    {
        "task": among(*TASKS[1:]),
        "names": list_of(TEXT),
        "thresholds": list_of(number(0, 1)),
        "margins": list_of(optional(number(0))),
    }
)


def read_recipe(fields: dict[str, Any]) -> Recipe:
    """Rebuild a recipe whose every value was checked: networks and images are made after them."""
    check(fields, _RECIPE, "its recipe")
    if math.prod(fields["shape"]) > MAX_ROW:
        raise ModelFileError("its recipe holds values that no recipe has")
    try:
        return Recipe.from_json(json.dumps(fields))
    except OptionError as error:
        raise ModelFileError(f"its recipe cannot be read: {error}") from error


def given_outputs(fields: dict[str, Any] | None) -> Outputs | None:
    """Return the outputs of a file whose fields are those of `OUTPUTS`; None where it tells classes."""
    if fields is None:
        return None
    names, labels = fields["names"], fields["task"] == "multilabel"
    given = [len(fields[name]) for name in ("thresholds", "margins")]
    if not names or len(set(names)) != len(names) or given != [len(names) * labels, len(names) * (not labels)]:
        raise ModelFileError("its outputs are not as featx writes them")
    return Outputs(fields["task"], tuple(names), tuple(fields["thresholds"]), tuple(fields["margins"]))
