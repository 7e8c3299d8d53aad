"""Between a `Model` in memory and the members of its file: data out, checked data in."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import pickle
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

import featx
from featx.errors import FeatxError, ModelFileError
from featx.heads.state import export_state, is_exportable, restore_state
from featx.model import archive
from featx.model.card import Card, parse_json
from featx.model.familiarity import FEWEST_ROWS, Familiarity
from featx.model.model import Model, Network
from featx.model.scaling import SCALES, FeatureScaler
from featx.model.scores import relative_scores

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from numpy.typing import NDArray

    from featx.backbones import Backbone
    from featx.recipe import Request

    Arrays = dict[str, NDArray[Any]]

#: What the probe of a table consists of.
_PROBE = {"pixels", "features"}
#: Before the name of a tensor of which a model holds the shape only.
_SHAPE_OF = "shape of "


def save(model: Model, path: Path, *, bundle: bool = False, unsafe_pickle: bool = False) -> Path:
    """Write `model` to `path`; see `Model.save`."""
    members: dict[str, bytes] = {}
    arrays: Arrays = {}
    meta: dict[str, Any] = {"pickled": type(model.head).__name__}
    if is_exportable(model.head):
        meta, state = export_state(model.head)
        arrays = {f"head.{name}": array for name, array in state.items()}
        if "booster" in meta:
            members["head.json"] = json.dumps(meta.pop("booster"), allow_nan=False).encode()
    elif unsafe_pickle:
        members["head.pickle"] = pickle.dumps(model.head)
    else:
        raise ModelFileError(
            f"A {type(model.head).__name__} has no form that is data alone, and a pickle runs whatever is in it when "
            "it is loaded. Save it so all the same, here and where it is loaded: --unsafe-pickle"
        )
    arrays |= {f"scaler.{name}": value for name, value in vars(model.scaler).items() if name.endswith("_")}
    members["head.safetensors"] = save_safetensors(arrays)
    if model.probe:
        members["probe.safetensors"] = save_safetensors(dict(model.probe))
    members["items.safetensors"] = save_safetensors({"trained_on": model.trained_on, "chosen_on": model.chosen_on})
    if model.familiarity is not None:
        members["familiarity.safetensors"] = save_safetensors(vars(model.familiarity))
    network = _network(model) if bundle else model.network
    if network is not None:
        members["network.safetensors"] = network.tensors
    card = Card(
        featx=featx.__version__,
        recipe=model.recipe,
        request=model.request,
        classes=model.classes,
        scale=model.scaler.kind,
        head_name=model.head_name,
        head=meta,
        calibration=model.calibration,
        report=model.report,
        network_file=None if network is None else network.file,
        views=model.views,
    )
    archive.write(path, {"model.json": card.to_json(members), **members})
    return path


def load(path: str | Path, *, allow_code: bool = False, unsafe_pickle: bool = False) -> Model:
    """Read a model that `Model.save` wrote. Nothing in the file is trusted, imported or executed.

    Parameters
    ----------
    path : path-like
        The file.
    allow_code : bool
        Accept a model whose backbone is somebody's own ``package.module:function``, which predicting
        images imports and calls.
    unsafe_pickle : bool
        Accept a pickled head, which runs whatever is in it.

    Raises
    ------
    MissingDataError
        If there is no such file.
    ModelFileError
        If it is damaged, was not written by featx, or needs a permission that was not given.
    """
    path = Path(path)
    members = archive.read(path)
    try:
        return _restore(members, allow_code=allow_code, unsafe_pickle=unsafe_pickle)
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


def _restore(members: dict[str, bytes], *, allow_code: bool, unsafe_pickle: bool) -> Model:
    if "model.json" not in members or "head.safetensors" not in members or "items.safetensors" not in members:
        raise ModelFileError("a member is missing")
    card = Card.from_json(members.pop("model.json"), members)
    own_code = [made.backbone for made in (card.request, card.recipe) if made is not None and ":" in made.backbone]
    if own_code and not allow_code:
        raise ModelFileError(
            f"its backbone is the code {own_code[0]!r}, which predicting would import and call. "
            "If you trust it: --allow-code"
        )
    arrays = load_safetensors(members["head.safetensors"])
    scaler = _restore_scaler(card, _part(arrays, "scaler."))
    head = _restore_head(card, _part(arrays, "head."), members, unsafe_pickle=unsafe_pickle)
    items = load_safetensors(members["items.safetensors"])
    if set(items) != {"trained_on", "chosen_on"} or not all(map(_is_hashes, items.values())):
        raise ModelFileError("its list of trained items is not one of hashes")
    probe = load_safetensors(members["probe.safetensors"]) if "probe.safetensors" in members else {}
    if probe and set(probe) != _PROBE:
        raise ModelFileError("its probe is not one")
    model = Model(
        head=head,
        head_name=card.head_name,
        classes=card.classes,
        scaler=scaler,
        calibration=card.calibration,
        familiarity=_restore_familiarity(members, head),
        recipe=card.recipe,
        request=card.request,
        report=card.report,
        probe=probe,
        trained_on=items["trained_on"],
        chosen_on=items["chosen_on"],
        views=card.views,
        network=None if card.network_file is None else Network(members["network.safetensors"], card.network_file),
    )
    if "head.pickle" not in members:
        _try_once(model)
    return model


def _part(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _restore_scaler(card: Card, arrays: Arrays) -> FeatureScaler:
    if card.scale not in SCALES or set(arrays) != ({"mean_", "scale_"} if card.scale == "standard" else set()):
        raise ModelFileError("its scaling is not one of featx")
    scaler = FeatureScaler(card.scale)
    for name, array in arrays.items():
        if array.dtype != np.float32 or not np.isfinite(array).all() or (name == "scale_" and array.min() <= 0):
            raise ModelFileError(f"the {name} of its scaling are not sensible numbers")
        setattr(scaler, name, array)
    if arrays and card.recipe is not None:
        c, *sides = card.recipe.shape
        if any(array.shape != (c, *(1 for _ in sides)) for array in arrays.values()):
            raise ModelFileError("its scaling is for rows of another shape")
    return scaler


def _restore_head(card: Card, arrays: Arrays, members: dict[str, bytes], *, unsafe_pickle: bool) -> Any:
    if "head.pickle" in members:
        if not unsafe_pickle:
            raise ModelFileError(
                "its head is a pickle, which runs whatever is in it when it is loaded. If you trust it: --unsafe-pickle"
            )
        return pickle.loads(members["head.pickle"])  # noqa: S301 - the user said so, and why not is in the message above
    meta = dict(card.head)
    if "head.json" in members:
        meta["booster"] = parse_json(members["head.json"])
    head = restore_state(meta, arrays)
    known = np.asarray(head.classes_)
    if known.dtype.kind not in "iu" or known.min() < 0 or known.max() >= len(card.classes):
        raise ModelFileError("its head knows classes that the model does not")
    if card.recipe is not None and head.n_features_in_ != math.prod(card.recipe.shape):
        raise ModelFileError("its head is for rows of another length")
    return head


def _restore_familiarity(members: dict[str, bytes], head: Any) -> Familiarity | None:
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
    return Familiarity(**arrays)


def _try_once(model: Model) -> None:
    """Score a row of zeros: settings of the wrong kind show now, not at the user's first image."""
    shape = getattr(model.head, "row_shape_", (model.head.n_features_in_,))
    with np.errstate(all="ignore"):
        scores = relative_scores(model.head, model.scaler.transform(np.zeros((1, *shape), dtype=np.float32)))
    if scores.shape != (1, len(model.head.classes_)) or not np.isfinite(scores).all():
        raise ModelFileError("its head gives no finite scores")


def _is_hashes(array: NDArray[Any]) -> bool:
    return array.dtype == np.uint8 and array.ndim == 2 and array.shape[1] == 32


def _network(model: Model) -> Network:
    """Return the backbone's weights."""
    if model.network is not None:
        return model.network
    if model.recipe is None or model.request is None:
        raise ModelFileError("A model of rows without a recipe has no backbone to bundle. Leave out --bundle.")
    from featx import backbones

    backbone = backbones.load(model.request)
    if backbone.weights_digest != model.recipe.weights_digest:
        raise ModelFileError(
            f"The weights of {model.request.backbone} are no longer those that the model was fitted on, so they cannot "
            "be bundled. Extract and fit again: featx extract, featx fit --bundle"
        )
    return network_of(backbone)


def network_of(backbone: Backbone, used: Collection[str] | None = None) -> Network:
    """Return the weights of a loaded backbone, as they are now, in the form that travels with a model.

    Parameters
    ----------
    backbone : Backbone
    used : collection of str, optional
        Names of the parameters that matter, all by default. Of the others shapes alone travel: the classifier of a VGG
        is six sevenths of it. Where the model is used again they are zeros.
    """
    parameters = dict(backbone.module.named_parameters(remove_duplicate=False))
    kept = {id(parameter) for name, parameter in parameters.items() if used is None or name in used}
    tensors = {}
    for name, tensor in backbone.module.state_dict().items():
        if name in parameters and id(parameters[name]) not in kept:
            tensors[_SHAPE_OF + name] = np.array(tensor.shape, dtype=np.int64)
        else:
            tensors[name] = tensor.cpu().contiguous().numpy()
    file = backbone.files[0].name if backbone.files else ""
    return Network(save_safetensors(tensors), file if file.endswith(".pth") else Network.file)


@contextlib.contextmanager
def with_network(model: Model) -> Iterator[Request]:
    """Hold a request whose weights are there: the user's own, or those bundled as a file for so long."""
    assert model.request is not None
    if model.network is None:
        yield model.request
        return
    with tempfile.TemporaryDirectory(prefix="featx-") as folder:
        path = _unpack(model.network, Path(folder))
        yield dataclasses.replace(model.request, weights=str(path))


def _unpack(network: Network, folder: Path) -> Path:
    """Write weights as a file that a backbone is loaded from; what has a shape only is zeros, which take no room."""
    import torch
    from safetensors.torch import load as load_tensors

    path = folder / network.file
    try:
        state = load_tensors(network.tensors)
        absent = [name for name in state if name.startswith(_SHAPE_OF)]
        for name in absent:
            state[name.removeprefix(_SHAPE_OF)] = torch.zeros(()).expand(state.pop(name).tolist())
        if absent or path.suffix == ".pth":
            path = path.with_suffix(".pth")
            torch.save(state, path)
        else:
            path.write_bytes(network.tensors)
    except (SafetensorError, RuntimeError, TypeError) as error:
        raise ModelFileError(f"The backbone's weights in the model file are damaged: {error}.") from error
    return path
