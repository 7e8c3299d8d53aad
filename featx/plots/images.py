"""Images in a grid, with what was predicted under each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx.plots.style import INK, WRONG, own_axes, shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from PIL import Image

    from featx.attribution import Saliency

#: Side of an image, and height of its caption, in units of a cell.
_SIDE, _CAPTION = 0.94, 0.30


def plot_images(
    images: Sequence[Image.Image],
    captions: Sequence[str] = (),
    *,
    wrong: Sequence[bool] = (),
    columns: int = 4,
    ax: Axes | None = None,
) -> Axes:
    """Draw images in rows and columns on one Axes.

    Parameters
    ----------
    images : sequence of PIL.Image.Image
        Of any size; each is fitted into a square.
    captions : sequence of str
        A line or two under each image.
    wrong : sequence of bool
        Which captions are those of mistakes, drawn in another colour.
    columns : int
        Images a row.
    ax : Axes, optional
        Where to draw.
    """
    ax = own_axes(ax)
    n_rows = -(-len(images) // columns)
    height = 1 + (_CAPTION if captions else 0.06)
    for i, image in enumerate(images):
        left, top = i % columns + (1 - _SIDE) / 2, (i // columns) * height
        w, h = (_SIDE * side / max(image.size) for side in image.size)
        x, y = left + (_SIDE - w) / 2, top + (_SIDE - h) / 2
        ax.imshow(image.convert("RGBA"), extent=(x, x + w, y + h, y), interpolation="nearest", aspect="auto")
        if captions:
            text = "\n".join(shortened(line, 26) for line in captions[i].split("\n"))
            color = WRONG if i < len(wrong) and wrong[i] else INK
            ax.text(left + _SIDE / 2, top + _SIDE + 0.02, text, ha="center", va="top", fontsize=7, color=color)
    ax.set(xlim=(0, columns), ylim=(n_rows * height, 0), aspect="equal")
    ax.set_axis_off()
    return ax


def plot_saliency(
    seen: Saliency,
    captions: Sequence[str] = (),
    *,
    wrong: Sequence[bool] = (),
    columns: int = 4,
    ax: Axes | None = None,
) -> Axes:
    """Draw images, and beside each what in it speaks for its label.

    Parameters
    ----------
    seen : Saliency
        From `featx.saliency`.
    captions : sequence of str
        A line or two under each image; by default the label.
    wrong : sequence of bool
        Which captions are those of mistakes, drawn in another colour.
    columns : int
        Pairs a row.
    ax : Axes, optional
        Where to draw.
    """
    from PIL import Image

    pairs = zip(seen.images, seen.overlays(), strict=True)
    images = [Image.fromarray(pixels) for pair in pairs for pixels in pair]
    texts = [text for caption in captions or seen.labels for text in (caption, "")]
    mistakes = [flag for flag in wrong for _ in range(2)]
    return plot_images(images, texts, wrong=mistakes, columns=2 * columns, ax=ax)
