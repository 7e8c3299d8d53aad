"""The weights of a backbone that travel in a model file: out of a loaded network, and back into one."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save as save_safetensors

from featx.errors import ModelFileError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from featx.backbones import Backbone
    from featx.recipe import Recipe, Request

#: Before the name of a tensor of which a model holds the shape only.
_SHAPE_OF = "shape of "


@dataclass(frozen=True)
class Network:
    """A backbone's state.

    Attributes
    ----------
    tensors : bytes
        As safetensors.
    file : str
        Name of the weights file. The libraries tell by it what preprocessing belongs to the weights.
    converted : dict of str to bytes
        The files of the same as OpenVINO reads it, cut behind the model's layer; empty if there are none.
    """

    tensors: bytes
    file: str = "network.safetensors"
    converted: dict[str, bytes] = field(default_factory=dict)


def bundled(made: Sequence[tuple[Recipe, Request]]) -> Network:
    """Return the weights of the backbone that a model's rows are made with, to go into its file.

    Raises
    ------
    ModelFileError
        If there is none, or there are several, or the weights are others by now.
    """
    if not made:
        raise ModelFileError("A model of rows without a recipe has no backbone to bundle. Leave out --bundle.")
    if len({recipe.weights_digest for recipe, _ in made}) > 1:
        names = ", ".join(dict.fromkeys(request.backbone for _, request in made))
        raise ModelFileError(f"A model file holds one backbone, and this model has {names}. Leave out --bundle.")
    from featx import backbones
    from featx.engines.choose import converted_files

    recipe, request = made[0]
    backbone = backbones.load(request)
    if backbone.weights_digest != recipe.weights_digest:
        raise ModelFileError(
            f"The weights of {request.backbone} are no longer those that the model was fitted on, so they cannot "
            "be bundled. Extract and fit again: featx extract, featx fit --bundle"
        )
    return dataclasses.replace(
        network_of(backbone), converted=converted_files(backbone, [recipe for recipe, _ in made])
    )


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
def unpacked(request: Request, network: Network | None) -> Iterator[Request]:
    """Hold a request whose weights are there: the user's own, or those bundled as a file for so long."""
    if network is None:
        yield request
        return
    with tempfile.TemporaryDirectory(prefix="featx-") as folder:
        yield dataclasses.replace(request, weights=str(_unpack(network, Path(folder))))


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
