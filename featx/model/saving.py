"""What a model consists of, and the way into a file and back: data out, checked data in."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

import featx
from featx.errors import FeatxError, ModelFileError
from featx.heads.state import export_state, is_exportable, restore_state
from featx.model import archive
from featx.model.inputs import Input
from featx.model.manifest import Manifest
from featx.model.network import Network, bundled
from featx.model.predictions import FEWEST_ROWS
from featx.model.report import FitReport
from featx.model.scaling import FeatureScaler
from featx.model.schema import parse_json
from featx.model.scores import Calibration, OODScore, relative_scores
from featx.model.vote import Vote, Voter
from featx.recipe import HANDED_OVER, joined_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featx.features.items import Combining
    from featx.model.outputs import Outputs
    from featx.recipe import Recipe, Request, Views

    Arrays = dict[str, NDArray[Any]]

#: The arrays of each scaling.
_SCALING: dict[str, tuple[set[str], ...]] = {
    "standard": ({"mean_", "scale_"},),
    "l2": (set(), {"widths_", "weights_"}),
    "none": (set(),),
}
#: What the probe of a table consists of.
_PROBE = {"pixels", "features"}


def _no_items() -> NDArray[np.uint8]:
    return np.zeros((0, 32), dtype=np.uint8)


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class ModelParts:
    """Everything that a model file holds. `featx.Model` adds what can be done with it, and explains each."""

    head: Any
    head_name: str
    classes: tuple[str, ...]
    scaler: FeatureScaler
    calibration: Calibration = field(default_factory=Calibration)
    ood: OODScore | Vote | None = None
    inputs: tuple[Input, ...] = ()
    report: FitReport = field(default_factory=FitReport)
    trained_on: NDArray[np.uint8] = field(default_factory=_no_items)
    chosen_on: NDArray[np.uint8] = field(default_factory=_no_items)
    network: Network | None = None
    views: Views | None = None
    outputs: Outputs | None = None
    items: Combining | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what the head says of a row: the classes, or else the labels or numbers."""
        return self.classes if self.outputs is None else self.outputs.names

    @property
    def key(self) -> str:
        """Key of the rows that it takes; empty for those of one's own."""
        return joined_key([made.recipe.key for made in self.inputs])

    @property
    def recipe(self) -> Recipe | None:
        """The recipe of its one input; None where there are several, or none."""
        return self.inputs[0].recipe if len(self.inputs) == 1 else None

    @property
    def request(self) -> Request | None:
        """The request of its one input; None where there are several, or none."""
        return self.inputs[0].request if len(self.inputs) == 1 else None

    @property
    def probe(self) -> Arrays:
        """The probe of its one input; empty where there are several, or none."""
        return self.inputs[0].probe if len(self.inputs) == 1 else {}


Parts = TypeVar("Parts", bound=ModelParts)


def is_savable(head: Any) -> bool:
    """Say whether a head has a data-only form; one of models that vote has if they all have."""
    if isinstance(head, Vote):
        return all(is_savable(voter.model.head) for voter in head.voters)
    return is_exportable(head)


def check_savable(head: Any, *, unsafe_pickle: bool = False) -> None:
    """Raise ModelFileError for a head that has no data-only form, fitted or not, unless pickles are allowed."""
    if not (unsafe_pickle or is_savable(head)):
        raise ModelFileError(
            f"A {type(head).__name__} has no form that is data alone, and a pickle runs whatever is in it when "
            "it is loaded. Save it so all the same, here and where it is loaded: --unsafe-pickle (unsafe_pickle=True)"
        )


def write(parts: ModelParts, path: Path, *, bundle: bool = False, unsafe_pickle: bool = False) -> Path:
    """Write a model to a file; see `featx.Model.save`."""
    check_savable(parts.head, unsafe_pickle=unsafe_pickle)
    archive.write(path, _members(parts, bundle=bundle))
    return path


def _members(parts: ModelParts, *, bundle: bool = False) -> dict[str, bytes]:
    """Return the members of a model's file; of models that vote each has its own, under its number."""
    members: dict[str, bytes] = {}
    arrays: Arrays = {}
    meta: dict[str, Any] = {"pickled": type(parts.head).__name__}
    if isinstance(parts.head, Vote):
        meta = {"voters": len(parts.head.voters), "n_features": parts.head.n_features_in_}
        arrays = _vote_arrays(parts.head)
        for number, voter in enumerate(parts.head.voters):
            members |= archive.nested(number, _members(_without_items(voter.model)))
    elif is_exportable(parts.head):
        meta, state = export_state(parts.head)
        arrays = {f"head.{name}": array for name, array in state.items()}
        if "booster" in meta:
            members["head.json"] = json.dumps(meta.pop("booster"), allow_nan=False).encode()
    else:
        members["head.pickle"] = pickle.dumps(parts.head)
    arrays |= {f"scaler.{name}": value for name, value in vars(parts.scaler).items() if name.endswith("_")}
    members["head.safetensors"] = save_safetensors(arrays)
    if probes := _probes(parts.inputs):
        members["probe.safetensors"] = save_safetensors(probes)
    members["items.safetensors"] = save_safetensors({"trained_on": parts.trained_on, "chosen_on": parts.chosen_on})
    if parts.ood is not None and not isinstance(parts.ood, Vote):
        members["familiarity.safetensors"] = save_safetensors(vars(parts.ood))
    if parts.items is not None and parts.items.learned:
        members["combining.safetensors"] = save_safetensors(
            {f"{k}.{name}": array for k, known in enumerate(parts.items.learned) for name, array in known.items()}
        )
    network = parts.network
    if bundle and network is None:
        network = bundled([(made.recipe, made.request) for made in parts.inputs if made.request is not None])
    if network is not None:
        members |= {"network.safetensors": network.tensors} | network.converted
    manifest = Manifest(
        featx=featx.__version__,
        inputs=parts.inputs,
        classes=parts.classes,
        scale=parts.scaler.kind,
        head_name=parts.head_name,
        head=meta,
        calibration=parts.calibration,
        report=parts.report,
        network_file=None if network is None else network.file,
        views=parts.views,
        outputs=parts.outputs,
        items=parts.items,
    )
    return {"model.json": manifest.to_json(members), **members}


def read(kind: type[Parts], path: Path, *, allow_code: bool, unsafe_pickle: bool) -> Parts:
    """Make a model of `kind` out of a file; see `featx.load`."""
    members = archive.read(path)
    try:
        return _restore(kind, members, allow_code=allow_code, unsafe_pickle=unsafe_pickle)
    except _NeedsTrust as error:
        raise ModelFileError(f"{path} is not loaded: {error}.") from error
    # What a stranger's values make constructors and numpy say is as much a reason to refuse as our own checks.
    except (
        FeatxError,
        SafetensorError,
        ArithmeticError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise archive.refusal(path, str(error).removesuffix(".")) from error


class _NeedsTrust(ModelFileError):
    """Nothing is wrong with the file, but it asks for more than data."""


def _restore(kind: type[Parts], members: dict[str, bytes], *, allow_code: bool, unsafe_pickle: bool) -> Parts:
    if "model.json" not in members or "head.safetensors" not in members or "items.safetensors" not in members:
        raise ModelFileError("a member is missing")
    manifest = Manifest.from_json(members.pop("model.json"), members)
    names = [named.backbone for made in manifest.inputs for named in (made.request, made.recipe) if named]
    own_code = [name for name in names if ":" in name and not name.startswith(HANDED_OVER)]
    if own_code and not allow_code:
        raise _NeedsTrust(
            f"its backbone is the code {own_code[0]!r}, which predicting would import and call. "
            "If you trust it: --allow-code (allow_code=True)"
        )
    arrays = load_safetensors(members["head.safetensors"])
    scaler = _restore_scaler(manifest, _part(arrays, "scaler."))
    if "voters" in manifest.head:
        trust = {"allow_code": allow_code, "unsafe_pickle": unsafe_pickle}
        voters = [_restore(kind, own, **trust) for own in archive.unnested(members)]
        head: Any = restored_vote(manifest, _part(arrays, "head."), voters)
    else:
        head = _restore_head(manifest, _part(arrays, "head."), members, unsafe_pickle=unsafe_pickle)
    items = load_safetensors(members["items.safetensors"])
    if set(items) != {"trained_on", "chosen_on"} or not all(map(_is_hashes, items.values())):
        raise ModelFileError("its list of trained items is not one of hashes")
    file = manifest.network_file
    model = kind(
        head=head,
        head_name=manifest.head_name,
        classes=manifest.classes,
        scaler=scaler,
        calibration=manifest.calibration,
        ood=_restore_ood(members, head),
        inputs=_restore_probes(manifest, members),
        report=manifest.report,
        trained_on=items["trained_on"],
        chosen_on=items["chosen_on"],
        views=manifest.views,
        outputs=manifest.outputs,
        items=_restore_items(manifest, members, head),
        network=None if file is None else _restore_network(members, file),
    )
    if "head.pickle" not in members:
        _try_once(model)
    return model


def _part(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _restore_scaler(manifest: Manifest, arrays: Arrays) -> FeatureScaler:
    if set(arrays) not in _SCALING[manifest.scale]:
        raise ModelFileError("its scaling is not one of featx")
    scaler = FeatureScaler(manifest.scale)
    if "widths_" in arrays:
        _check_blocks(manifest, arrays)
        for name, array in arrays.items():
            setattr(scaler, name, array)
        return scaler
    for name, array in arrays.items():
        if array.dtype != np.float32 or not np.isfinite(array).all() or (name == "scale_" and array.min() <= 0):
            raise ModelFileError(f"the {name} of its scaling are not sensible numbers")
        setattr(scaler, name, array)
    if arrays and manifest.shape:
        c, *sides = manifest.shape
        if any(array.shape != (c, *(1 for _ in sides)) for array in arrays.values()):
            raise ModelFileError("its scaling is for rows of another shape")
    return scaler


def _restore_items(manifest: Manifest, members: dict[str, bytes], head: Any) -> Combining | None:
    """Return how images become items, with what was learned of it held against what it can be."""
    items = manifest.items
    arrays = load_safetensors(members["combining.safetensors"]) if "combining.safetensors" in members else {}
    learned = []
    widths = [made.recipe.shape[0] if len(made.recipe.shape) == 1 else 0 for made in manifest.inputs]
    widths = widths or [head.n_features_in_ // (items.times_wider if items is not None else 1)]
    for number, width in enumerate(widths if items is not None and items.learns else []):
        known = _part(arrays, f"{number}.")
        if not known:
            continue
        h = known["weight"].shape[0] if "weight" in known and known["weight"].ndim else 0
        shapes = {"fill": (len(items.slots), width)} if items is not None and items.how == "slots" else {
            "mean": (width,), "scale": (width,), "tanh": (width, h), "gate": (width, h), "weight": (h,)
        }  # fmt: skip
        sane = {name: array.shape for name, array in known.items()} == shapes and all(
            array.dtype == np.float32 and np.isfinite(array).all() for array in known.values()
        )
        if not sane or ("scale" in known and known["scale"].min() <= 0):
            raise ModelFileError("how it combines the images of items are not sensible numbers")
        learned.append(known)
    needed = len(widths) if items is not None and items.learns else 0
    if len(learned) != needed or len(arrays) != sum(map(len, learned)):
        raise ModelFileError("how it combines the images of items is not as featx writes it")
    return items and dataclasses.replace(items, learned=tuple(learned))


def _check_blocks(manifest: Manifest, arrays: Arrays) -> None:
    widths, weights = arrays["widths_"], arrays["weights_"]
    sane = (
        widths.dtype == np.int64
        and weights.dtype == np.float32
        and widths.shape == weights.shape == (widths.size,)
        and (widths > 0).all()
        and np.isfinite(weights).all()
        and (weights > 0).all()
        and (int(widths.sum()),) == (manifest.shape or (int(widths.sum()),))
    )
    if not sane:
        raise ModelFileError("the blocks of its scaling are not sensible numbers")


def _restore_head(manifest: Manifest, arrays: Arrays, members: dict[str, bytes], *, unsafe_pickle: bool) -> Any:
    if "head.pickle" in members:
        if not unsafe_pickle:
            raise _NeedsTrust(
                "its head is a pickle, which runs whatever is in it when it is loaded. "
                "If you trust it: --unsafe-pickle (unsafe_pickle=True)"
            )
        return pickle.loads(members["head.pickle"])  # noqa: S301 - the user said so, and why not is in the message above
    meta = dict(manifest.head)
    if "head.json" in members:
        meta["booster"] = parse_json(members["head.json"])
    head = restore_state(meta, arrays)
    if manifest.outputs is None:
        _check_classes(manifest, head)
    if manifest.shape and head.n_features_in_ != math.prod(manifest.shape):
        raise ModelFileError("its head is for rows of another length")
    return head


def _without_items(parts: Any) -> ModelParts:
    """Return a model that votes without what the file holds once for all: contents, probes, network."""
    inputs = tuple(dataclasses.replace(made, probe={}) for made in parts.inputs)
    found: ModelParts = dataclasses.replace(
        parts, inputs=inputs, trained_on=_no_items(), chosen_on=_no_items(), network=None
    )
    return found


def _vote_arrays(vote: Vote) -> Arrays:
    """Return how much each model counts, and which columns it takes."""
    columns = {
        f"head.columns.{number}": voter.columns.astype(np.int64)
        for number, voter in enumerate(vote.voters)
        if voter.columns is not None
    }
    return {"head.weights": np.array([voter.weight for voter in vote.voters]), **columns}


def restored_vote(manifest: Manifest, arrays: Arrays, models: list[Any]) -> Vote:
    """Return the vote of models that were restored, if their weights and columns are sensible."""
    n_features: Any = manifest.head.get("n_features")
    weights = arrays.pop("weights", np.empty(0))
    sane = (
        set(manifest.head) == {"voters", "n_features"}
        and type(n_features) is int
        and n_features > 0
        and manifest.head["voters"] == len(models) > 0
        and weights.dtype == np.float64
        and weights.shape == (len(models),)
        and (weights > 0).all()
        and abs(weights.sum() - 1) < 1e-6
        and set(arrays) <= {f"columns.{number}" for number in range(len(models))}
        and (not manifest.shape or n_features == math.prod(manifest.shape))
        and manifest.scale == "none"
    )
    if not sane:
        raise ModelFileError("its vote is not one of featx")
    names = manifest.classes if manifest.outputs is None else manifest.outputs.names
    task = manifest.outputs and manifest.outputs.task
    for number, model in enumerate(models):
        columns, takes = arrays.get(f"columns.{number}"), model.head.n_features_in_
        inside = n_features == takes if columns is None else (
            columns.dtype == np.int64
            and columns.shape == (takes,)
            and columns.min() >= 0
            and columns.max() < n_features
        )  # fmt: skip
        if not inside or model.columns != names or (model.outputs and model.outputs.task) != task:
            raise ModelFileError("a model that votes in it is for other rows or classes")
    return Vote(
        [
            Voter(model, float(weight), arrays.get(f"columns.{number}"))
            for number, (model, weight) in enumerate(zip(models, weights, strict=True))
        ],
        n_features,
    )


def _check_classes(manifest: Manifest, head: Any) -> None:
    known = np.asarray(head.classes_)
    if known.dtype.kind not in "iu" or known.min() < 0 or known.max() >= len(manifest.classes):
        raise ModelFileError("its head knows classes that the model does not")


def _probes(inputs: tuple[Input, ...]) -> Arrays:
    """Return the arrays of all probes; those of a second input and so on are numbered."""
    return {
        f"{number}.{name}" if number else name: array
        for number, made in enumerate(inputs)
        for name, array in made.probe.items()
    }


def _restore_probes(manifest: Manifest, members: dict[str, bytes]) -> tuple[Input, ...]:
    arrays = load_safetensors(members["probe.safetensors"]) if "probe.safetensors" in members else {}
    restored = []
    for number, made in enumerate(manifest.inputs):
        probe = _part(arrays, f"{number}.") if number else {name: arrays[name] for name in _PROBE & set(arrays)}
        if probe and not _is_probe(probe, made.recipe):
            raise ModelFileError("its probe is not one")
        restored.append(dataclasses.replace(made, probe=probe))
    if arrays.keys() != _probes(tuple(restored)).keys():
        raise ModelFileError("its probe is not one")
    return tuple(restored)


def _is_probe(probe: Arrays, recipe: Recipe) -> bool:
    return bool(
        set(probe) == _PROBE
        and probe["pixels"].dtype == np.uint8
        and probe["pixels"].ndim == 2
        and probe["features"].dtype.kind == "f"
        and probe["features"].shape == (len(probe["pixels"]), *recipe.shape)
        and np.isfinite(probe["features"]).all()
    )


def _restore_ood(members: dict[str, bytes], head: Any) -> OODScore | Vote | None:
    if isinstance(head, Vote):
        return head if head.knows_familiarity else None
    if "familiarity.safetensors" not in members:
        return None
    arrays = load_safetensors(members["familiarity.safetensors"])
    kinds = {name: (array.dtype.name, array.ndim) for name, array in arrays.items()}
    sane = (
        kinds == {"units": ("float16", 2), "distances": ("float32", 1)}
        and all(np.isfinite(array).all() for array in arrays.values())
        and len(arrays["units"]) >= FEWEST_ROWS
        and arrays["units"].shape[1] == getattr(head, "n_features_in_", arrays["units"].shape[1])
        and len(arrays["distances"]) > 0
        and (np.diff(arrays["distances"]) >= 0).all()
    )
    if not sane:
        raise ModelFileError("its sample of training rows is not one")
    return OODScore(**arrays)


def _try_once(model: ModelParts) -> None:
    """Score a row of zeros: settings of the wrong kind show now, not at the user's first image."""
    shape = getattr(model.head, "row_shape_", (model.head.n_features_in_,))
    with np.errstate(all="ignore"):
        rows = model.scaler.transform(np.zeros((1, *shape), dtype=np.float32))
        if model.outputs is not None:
            model.outputs.of(model.head, rows)  # refuses what are no finite numbers
            return
        scores = relative_scores(model.head, rows)
    if scores.shape != (1, len(model.head.classes_)) or not np.isfinite(scores).all():
        raise ModelFileError("its head gives no finite scores")


def _restore_network(members: dict[str, bytes], file: str) -> Network:
    from featx.engines import kept

    converted = {name: members[name] for name in kept.FILES if name in members}
    if len(converted) not in (0, len(kept.FILES)):
        raise ModelFileError("a part of its converted network is missing")
    return Network(members["network.safetensors"], file, converted)


def _is_hashes(array: NDArray[Any]) -> bool:
    return array.dtype == np.uint8 and array.ndim == 2 and array.shape[1] == 32
