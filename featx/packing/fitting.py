"""`featx.images.fit` as a module of PyTorch, so that it can be a part of a graph: the same pixels to the bit.

Pillow's weights are integers of 22 binary places and its sums fit 32 bits, so products of matrices of doubles, which
hold 53, add them up without rounding, in whatever order. The weights themselves are worked out from the size of the
image in Pillow's own steps (`featx.images.resizing`, where their source is named).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import __version__ as pillow_version
from torch import Tensor, nn

from featx.errors import OptionError
from featx.images.resizing import PLACES
from featx.recipe import Frame

#: Of a pass, before it is known: where its output begins and how long the whole image becomes; all in pixels.
_Span = tuple[Tensor, Tensor]


class FitFrame(nn.Module):
    """Resize and crop, squash or pad images of any one size to a frame.

    Parameters
    ----------
    frame : Frame
    down_first : bool, optional
        Whether the passes are turned around where that saves work, as Pillow does since its version 13; by default as
        the Pillow that is installed.

    Raises
    ------
    OptionError
        If the frame's filter is none of those that are polynomials in pieces.

    Examples
    --------
    >>> frame = Frame(height=2, width=2, resize="squash", shorter=0, interpolation="box")
    >>> FitFrame(frame)(torch.arange(12, dtype=torch.uint8).reshape(1, 4, 1, 3).repeat(1, 1, 4, 1))[0, :, 0]
    tensor([[ 2,  3,  4],
            [ 8,  9, 10]], dtype=torch.uint8)
    """

    def __init__(self, frame: Frame, *, down_first: bool | None = None) -> None:
        super().__init__()
        if frame.interpolation not in _FILTERS:
            raise OptionError(
                f"Images are resized by {frame.interpolation} here, which a packed model cannot do; it can by "
                f"{', '.join(_FILTERS)}. Extract and fit again with --interpolation bicubic."
            )
        self.frame = frame
        self.down_first = int(pillow_version.partition(".")[0]) >= 13 if down_first is None else down_first

    def forward(self, images: Tensor) -> Tensor:
        """Return uint8 pixels (n, frame.height, frame.width, 3) of uint8 images (n, h, w, 3)."""
        frame, (h, w) = self.frame, images.shape[1:3]
        height, width = (torch.scalar_tensor(side, dtype=torch.float64) for side in (h, w))
        rows, columns = {"crop": self._cropped, "squash": self._squashed, "pad": self._padded}[frame.resize](
            height, width
        )
        down, rows_inside = self._weights(h, height, rows, frame.height)
        across, columns_inside = self._weights(w, width, columns, frame.width)
        pixels: Tensor
        planes = images.permute(0, 3, 1, 2).double()
        if self.down_first:
            turned = (height > rows[1]) & (height - rows[1] > 2 * (width - columns[1]))
            pixels = torch.cond(turned, _down_then_across, _across_then_down, (planes, down, across))
        else:
            pixels = _across_then_down(planes, down, across)
        pixels = pixels.permute(0, 2, 3, 1)
        if frame.resize == "pad":
            inside = (rows_inside[:, None] & columns_inside)[:, :, None]
            pixels = torch.where(inside, pixels, torch.tensor(frame.background, dtype=torch.float64))
        return pixels.to(torch.uint8).contiguous()

    def _cropped(self, height: Tensor, width: Tensor) -> tuple[_Span, _Span]:
        shorter = torch.tensor(float(self.frame.shorter), dtype=torch.float64)
        longer = torch.floor(shorter * torch.maximum(height, width) / torch.minimum(height, width))
        upright = width <= height
        new_height, new_width = torch.where(upright, longer, shorter), torch.where(upright, shorter, longer)
        return (_margin(new_height, self.frame.height), new_height), (_margin(new_width, self.frame.width), new_width)

    def _squashed(self, height: Tensor, width: Tensor) -> tuple[_Span, _Span]:
        zero = torch.zeros_like(height)
        return (zero, zero + self.frame.height), (torch.zeros_like(width), zero + self.frame.width)

    def _padded(self, height: Tensor, width: Tensor) -> tuple[_Span, _Span]:
        ratio = torch.maximum(height / self.frame.height, width / self.frame.width)
        spans = []
        for length, side in ((height, self.frame.height), (width, self.frame.width)):
            resized = torch.round(length / ratio).clamp(min=1)
            spans.append((-torch.floor((side - resized) / 2), resized))
        return spans[0], spans[1]

    def _weights(self, n: int, length: Tensor, span: _Span, n_out: int) -> tuple[Tensor, Tensor]:
        """Return the weights of one pass, (n_out, n) whole numbers, and which of its outputs lie within the image.

        Outputs beyond the image are made of nothing, which is black.
        """
        first, resized = span
        support, weight_of = _FILTERS[self.frame.interpolation]
        scale = length / resized
        stretch = scale.clamp(min=1.0)
        reach = support * stretch
        places = torch.arange(n_out, dtype=torch.float64) + first
        inside = (places >= 0) & (places < resized)
        centre = ((places + 0.5) * scale)[:, None]
        low = torch.floor((centre - reach + 0.5).clamp(min=0))
        high = torch.floor(torch.minimum(centre + reach + 0.5, length))
        inputs = torch.arange(n, dtype=torch.float64)
        counted = (inputs >= low) & (inputs < high) & inside[:, None]
        weights = torch.where(counted, weight_of((inputs - centre + 0.5) * (1.0 / stretch)), 0.0)
        total = torch.cumsum(weights, dim=1)[:, -1:]  # one after another, as Pillow adds them
        weights = weights / torch.where(total == 0, 1.0, total)
        return torch.trunc(weights * (1 << PLACES) + torch.where(weights < 0, -0.5, 0.5)), inside


def _margin(length: Tensor, crop: int) -> Tensor:
    """As `featx.images.resizing` has it: where a crop begins, negative where it is larger than the image."""
    return torch.where(length < crop, -torch.floor((crop - length) / 2), torch.round((length - crop) / 2))


def _across_then_down(planes: Tensor, down: Tensor, across: Tensor) -> Tensor:
    return _to_bytes(down @ _to_bytes(planes @ across.T))


def _down_then_across(planes: Tensor, down: Tensor, across: Tensor) -> Tensor:
    return _to_bytes(_to_bytes(down @ planes) @ across.T)


def _to_bytes(sums: Tensor) -> Tensor:
    return torch.floor((sums + (1 << (PLACES - 1))) / (1 << PLACES)).clamp(0, 255)


def _box(x: Tensor) -> Tensor:
    return torch.where((x > -0.5) & (x <= 0.5), 1.0, 0.0).double()


def _bilinear(x: Tensor) -> Tensor:
    x = x.abs()
    return torch.where(x < 1.0, 1.0 - x, 0.0)


def _bicubic(x: Tensor) -> Tensor:
    x = x.abs()
    near, far = (1.5 * x - 2.5) * x * x + 1.0, (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    return torch.where(x < 1.0, near, torch.where(x < 2.0, far, 0.0))


#: As in `featx.images.resizing`: how far each filter reaches and what it weighs.
_FILTERS: dict[str, tuple[float, Callable[[Tensor], Tensor]]] = {
    "box": (0.5, _box),
    "bilinear": (1.0, _bilinear),
    "bicubic": (2.0, _bicubic),
}
