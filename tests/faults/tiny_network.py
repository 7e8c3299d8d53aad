"""Extraction in a second: a network of a few weights, and what the fault tests say of its rows."""

import numpy as np
import torch
from PIL import Image

from featx import extraction
from featx.extraction import Options
from featx.recipe import Request

SIDE = 16
#: Relative change of every feature: what another version of a library might do, which no key can see.
drift = 0.0


class Drifting(torch.nn.Module):
    """Passes features on, changed by `drift`."""

    def forward(self, x):
        return x * (1 + drift)


class Logarithm(torch.nn.Module):
    """Infinite for zero, not a number below."""

    def forward(self, x):
        return torch.log(x)


def tiny():
    layers = [torch.nn.Conv2d(3, 8, 3, stride=2), torch.nn.ReLU(), torch.nn.Conv2d(8, 24, 3, stride=2), Drifting()]
    return torch.nn.Sequential(*layers), {"height": SIDE, "width": SIDE, "resize": "squash"}


def logarithm():
    """Return a network that is infinite for a black image."""
    literals = {"height": SIDE, "width": SIDE, "resize": "squash", "mean": (0, 0, 0), "std": (1, 1, 1)}
    return torch.nn.Sequential(torch.nn.Identity(), Logarithm()), literals


def undefined():
    """Return a network that gives no number for images darker than a tenth."""
    network, literals = logarithm()
    return network, literals | {"mean": (0.1, 0.1, 0.1)}


def huge():
    """Return a network whose features of a white image are past the range of float16."""
    network, literals = logarithm()
    network[1] = Scaled()
    return network, literals


class Reciprocal(torch.nn.Module):
    """Infinite for zero."""

    def forward(self, x):
        return 1 / x


class Complement(torch.nn.Module):
    """From 1 / x to 1 / (1 - x): infinite for one, not for zero."""

    def forward(self, x):
        return 1 / (1 - 1 / x)


def crossed():
    """Return a network whose first layer is infinite for a black image, and the second for a white one."""
    _, literals = logarithm()
    return torch.nn.Sequential(Reciprocal(), Complement()), literals


class Scaled(torch.nn.Module):
    """Features up to 100,000."""

    def forward(self, x):
        return x * 100_000


def request(network="tiny", **fields):
    return Request(backbone=f"tiny_network:{network}", weights="none", version="1", **fields)


def run(source, cache, network="tiny", *, dtype="float32", dataset=None, **how):
    """Extract, in this process unless told otherwise."""
    options = Options(**{"workers": 0, "engine": "eager", "batch_size": 4, **how})
    opened = extraction.open_dataset(source, **dataset or {})
    return extraction.run(opened, request(network, dtype=dtype), cache=cache, options=options)


def photo(path, seed):
    """Write an image of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def album(folder, n=12, classes=("cat", "dog", "eel")):
    """Write `n` images of noise into class folders."""
    for i in range(n):
        photo(folder / classes[i % len(classes)] / f"{i}.png", i)
    return folder


def rows_by_content(table):
    """Return each row under the content that it is of."""
    return {item.tobytes(): row.tobytes() for item, row in zip(table.item_ids, table.X, strict=True)}
