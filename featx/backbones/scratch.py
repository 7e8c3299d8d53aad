"""The convolutional networks that walkthroughs train from scratch: ``scratch/leaky`` and its like.

Each is a backbone, the part up to the flattened map, with a head stack of its own (`head_layers`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from featx.backbones.network import Tap
from featx.backbones.registry import Loaded, Preprocessing, square
from featx.backbones.weights import as_file, fit_state, read_state, seeded
from featx.errors import WeightsUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Plan(NamedTuple):
    """The layers of the convolutional part, those of the head, and the side of the input in pixels."""

    features: str
    head: str
    image_size: int


_PLANS = {
    "leaky": _Plan("conv16 leaky conv32 leaky max", "flat 256 leaky.1", 32),
    "leaky-dropout": _Plan("conv16 leaky drop.2 conv32 leaky drop.2 max", "flat 256 leaky.1 drop.5", 32),
    "leaky-deep": _Plan(
        "conv16 leaky conv32 leaky max drop.25 conv32 leaky conv64 leaky max drop.25", "flat 256 leaky.1 drop.5", 32
    ),
    "cnn25": _Plan(" ".join(f"conv{width} bn relu max" for width in (16, 32, 64, 128, 256)), "flat drop.5", 100),
}


class Plain(nn.Module):
    """A stack of layers under the name ``features``."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.features = nn.Sequential(*layers)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the last map, (n, c, h, w), of normalised pixels (n, 3, height, width)."""
        maps: Tensor = self.features(pixels)
        return maps


def names() -> list[str]:
    """Return the names of the networks, without ``scratch/``."""
    return list(_PLANS)


def tags() -> dict[str, list[str]]:
    """Return, for each network, the tags of its pretrained weights: there are none."""
    return {name: [] for name in _PLANS}


def head_layers(name: str) -> str:
    """Return the layers between the map of network `name` and its last dense layer, as `featx.heads.layers` reads them.

    Examples
    --------
    >>> head_layers("scratch/leaky-deep")
    'flat 256 leaky.1 drop.5'
    """
    return _PLANS[name.removeprefix("scratch/")].head


def load(name: str, weights: str, seed: int) -> Loaded:
    """Build network `name` with Glorot-uniform weights and zero biases drawn from `seed`, or the weights of a file.

    Raises
    ------
    WeightsUnavailable
        If `weights` is neither ``none`` nor a file: nobody has pretrained these networks.
    """
    plan, full_name = _PLANS[name], f"scratch/{name}"
    file = None if weights == "none" else as_file(weights)
    if weights != "none" and file is None:
        raise WeightsUnavailable(f"{full_name} has no pretrained weights, got {weights!r}. Type --weights none.")
    with seeded(seed):
        module = Plain(list(_layers(plan.features)))
    unweighted = () if file is None else fit_state(module, read_state(file), source=str(file), name=full_name)
    frame = square(plan.image_size, shorter=plan.image_size, interpolation="bilinear")
    return Loaded(
        name=full_name,
        weights="file" if file else f"random-{seed}",
        module=module.eval(),
        preprocessing=Preprocessing(frame=frame, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        default=Tap("features", "flatten"),
        files=(file.path,) if file else (),
        unweighted=unweighted,
    )


def _layers(words: str) -> Iterator[nn.Module]:
    channels = 3
    for word in words.split():
        match word:
            case "bn":
                yield nn.BatchNorm2d(channels)
            case "relu":
                yield nn.ReLU()
            case "leaky":
                yield nn.LeakyReLU(0.1)
            case "max":
                yield nn.MaxPool2d(2)
            case _ if word.startswith("drop"):
                yield nn.Dropout(float(word.removeprefix("drop")))
            case _:
                width = int(word.removeprefix("conv"))
                yield _convolution(channels, width)
                channels = width


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    convolution = nn.Conv2d(inputs, outputs, 3, padding="same")
    assert convolution.bias is not None
    nn.init.xavier_uniform_(convolution.weight)
    nn.init.zeros_(convolution.bias)
    return convolution
