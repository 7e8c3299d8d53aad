"""``model.json``: what a model file says about itself, and the checks on it before anything is believed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.augment import Augmentation
from featx.errors import ModelFileError, OptionError
from featx.model.calibration import Calibration
from featx.recipe import DTYPES, INTERPOLATIONS, POOLS, PRECISIONS, RESIZES, Recipe, Request, Views

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Version of the form below. A reader refuses any other.
FORMAT = 1
#: Deeper nesting than any model has, and far from where a recursive parser would end.
_MAX_DEPTH = 32
_MAX_SIDE = 1 << 15
_MAX_VIEWS = 1000
_MAX_ROW = 1 << 31

#: A string (closed or not, so that the scan stays linear) or a bracket.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Card:
    """Everything in a model that is not an array.

    Attributes
    ----------
    featx : str
        Version that wrote the file.
    recipe, request : Recipe, Request or None
        How its rows are made from images; None for a model of rows that came from elsewhere.
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
    report : dict
        What ``fit`` reported.
    network_file : str or None
        Name of the weights file whose content is in ``network.safetensors``.
    views : Views or None
        Augmented views that it was fitted on.
    """

    featx: str
    recipe: Recipe | None
    request: Request | None
    classes: tuple[str, ...]
    scale: str
    head_name: str
    head: dict[str, Any]
    calibration: Calibration
    report: dict[str, Any]
    network_file: str | None = None
    views: Views | None = None

    def to_json(self, members: Mapping[str, bytes]) -> bytes:
        """Return ``model.json`` for a file whose other members are `members`."""
        fields = {
            "format": FORMAT,
            "featx": self.featx,
            "recipe": self.recipe and json.loads(self.recipe.to_json()),
            "request": self.request and json.loads(self.request.to_json()),
            "classes": list(self.classes),
            "scale": self.scale,
            "head_name": self.head_name,
            "head": self.head,
            "temperature": self.calibration.temperature,
            "floor": self.calibration.floor,
            "report": self.report,
            "network_file": self.network_file,
            "views": self.views and dataclasses.asdict(self.views),
            "members": {name: {"size": len(content), "sha256": _sha256(content)} for name, content in members.items()},
        }
        return json.dumps(fields, indent=1, sort_keys=True, allow_nan=False, default=_plain).encode()

    @classmethod
    def from_json(cls, data: bytes, members: Mapping[str, bytes]) -> Card:
        """Read ``model.json`` and hold every other member against the digest it states.

        Raises
        ------
        ModelFileError
            Naming the first thing that is not as it should be, without the file's name.
        """
        fields = parse_json(data)
        if fields.get("format") != FORMAT:
            raise ModelFileError(f"it is of format {fields.get('format')!r}, this featx reads {FORMAT}")
        _check_members(_take(fields, "members", dict), members)
        classes = _take(fields, "classes", list)
        if not classes or not all(isinstance(name, str) for name in classes) or len(set(classes)) != len(classes):
            raise ModelFileError("its classes are not a list of different names")
        calibration = Calibration(_take(fields, "temperature", float), _take(fields, "floor", float))
        if not (0 < calibration.temperature < math.inf and 0 < calibration.floor < 1):
            raise ModelFileError("its temperature or floor is not a sensible number")
        recipe, request = fields.get("recipe"), fields.get("request")
        return cls(
            featx=_take(fields, "featx", str),
            recipe=None if recipe is None else _recipe(recipe),
            request=None if request is None else _request(request),
            classes=tuple(classes),
            scale=_take(fields, "scale", str),
            head_name=_take(fields, "head_name", str),
            head=_take(fields, "head", dict),
            calibration=calibration,
            report=_take(fields, "report", dict),
            network_file=_file_name(fields) if "network.safetensors" in members else None,
            views=None if fields.get("views") is None else _views(_take(fields, "views", dict)),
        )


def _plain(value: Any) -> Any:
    """Numbers of numpy as Python's; a setting that is anything else, by its name."""
    return value.item() if isinstance(value, np.generic) else str(value)


def parse_json(data: bytes) -> dict[str, Any]:
    """Parse a JSON object without trusting it: bounded depth, no name twice, no NaN."""
    depth = 0
    for token in _TOKEN.finditer(data):
        depth += {b"{": 1, b"[": 1, b"}": -1, b"]": -1}.get(token[0], 0)
        if depth > _MAX_DEPTH:
            raise ModelFileError("its JSON is nested too deeply")
    try:
        fields = json.loads(data, object_pairs_hook=_without_doubles, parse_constant=_no_constant)
    except ValueError as error:
        raise ModelFileError(f"its JSON does not parse: {error}") from error
    if not isinstance(fields, dict):
        raise ModelFileError("its JSON is not an object")
    return fields


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("one name twice in an object")
    return fields


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


def _take(fields: dict[str, Any], name: str, kind: type) -> Any:
    value = fields.get(name)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ModelFileError(f"its {name!r} is {type(value).__name__}, not {kind.__name__}")
    return value


def _file_name(fields: dict[str, Any]) -> str:
    name = _take(fields, "network_file", str)
    if re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,200}\.(pth|safetensors)", name) is None:
        raise ModelFileError(f"{name[:80]!r} is no name of a weights file")
    return str(name)


def _check_members(stated: dict[str, Any], members: Mapping[str, bytes]) -> None:
    if set(stated) != set(members):
        raise ModelFileError("model.json lists other members than the file has")
    for name, content in members.items():
        if stated[name] != {"size": len(content), "sha256": _sha256(content)}:
            raise ModelFileError(f"{name} is not the one that model.json describes")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _recipe(fields: Any) -> Recipe:
    """Rebuild a recipe and check each of its values: networks and images are made after them."""
    try:
        recipe = Recipe.from_json(json.dumps(fields))
        frame = recipe.frame
        sane = (
            all(isinstance(text, str) for text in (recipe.backbone, recipe.weights, recipe.layer, frame.decode))
            and re.fullmatch("[0-9a-f]{64}", recipe.weights_digest) is not None
            and isinstance(recipe.version, str | None)
            and recipe.view is None
            and (recipe.pool in POOLS and recipe.dtype in DTYPES and recipe.precision in PRECISIONS)
            and (frame.resize in RESIZES and frame.interpolation in INTERPOLATIONS)
            and len(recipe.shape) in (1, 3)
            and all(type(n) is int and n > 0 for n in recipe.shape)
            and math.prod(recipe.shape) <= _MAX_ROW
            and all(type(n) is int and 0 < n <= _MAX_SIDE for n in (frame.height, frame.width))
            and type(frame.shorter) is int
            and 0 <= frame.shorter <= _MAX_SIDE
            and len(frame.background) == len(recipe.mean) == len(recipe.std) == 3
            and all(type(n) is int and 0 <= n <= 255 for n in frame.background)
            and all(math.isfinite(x) for x in (*recipe.mean, *recipe.std))
            and min(recipe.std) > 0
        )
    except (OptionError, TypeError) as error:
        raise ModelFileError(f"its recipe cannot be read: {error}") from error
    if not sane:
        raise ModelFileError("its recipe holds values that no recipe has")
    return recipe


def _views(fields: dict[str, Any]) -> Views:
    views = Views(n=_take(fields, "n", int), augment=_take(fields, "augment", str), seed=_take(fields, "seed", int))
    if not 2 <= views.n <= _MAX_VIEWS or str(Augmentation.parse(views.augment)) != views.augment or not views.augment:
        raise ModelFileError("its augmented views are not as featx writes them")
    return views


def _request(fields: Any) -> Request:
    try:
        request = Request.from_json(json.dumps(fields))
    except OptionError as error:
        raise ModelFileError(f"its request cannot be read: {error}") from error
    texts = (request.backbone, request.weights, request.resize, request.normalize, request.background)
    whole = (request.seed, 0 if request.image_size is None else request.image_size)
    if not all(type(text) is str for text in (*texts, *request.layers)) or not all(type(n) is int for n in whole):
        raise ModelFileError("its request holds values that no request has")
    return request
