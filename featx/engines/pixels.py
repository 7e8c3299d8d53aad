"""From uint8 pixels to rows in one module: the form in which every engine takes a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from featx.backbones import Backbone
    from featx.recipe import Recipe


class FromPixels(nn.Module):
    """A truncated network behind its normalisation.

    Parameters
    ----------
    network : torch.nn.Module
        Takes normalised (n, 3, h, w) floats, returns a tuple of rows.
    mean, std : tuple of float
        Per channel, for pixels scaled to 0–1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return the rows of uint8 images (n, h, w, 3); their memory is channels-last already."""
        images = pixels.permute(0, 3, 1, 2).float()
        rows: tuple[Tensor, ...] = self.network(((images / 255) - self.mean) / self.std)
        return rows


def from_pixels(backbone: Backbone, recipes: list[Recipe]) -> FromPixels:
    """Return `backbone`, truncated for `recipes`, as a module of uint8 images (n, h, w, 3)."""
    return FromPixels(backbone.network(recipes), backbone.mean, backbone.std).eval()


def blank(recipes: list[Recipe], n: int) -> Tensor:
    """Return `n` uint8 images of the recipes' size, noise from a fixed seed, to try an engine on."""
    frame = recipes[0].frame
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, frame.height, frame.width, 3), dtype=torch.uint8, generator=generator)
