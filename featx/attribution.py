"""Where in an image a model finds what speaks for a label: gradient times activation, place by place."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from featx import backbones
from featx.backbones.layers import has_class_token, n_prefix_tokens
from featx.backbones.network import MAP, MAP_CHANNELS_LAST, TOKENS, first_tensor, layout
from featx.engines.pytorch import blank, from_pixels
from featx.errors import OptionError
from featx.images import prepare
from featx.model.vote import Vote
from featx.packing.answers import Scaling
from featx.packing.heads import scores_of
from featx.settings import check_choice

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from featx.backbones import Backbone
    from featx.model import Model
    from featx.recipe import Recipe

#: Images that go through the network together: with what gradients need, each takes several times its usual memory.
_BATCH = 8
#: What is left of the light where nothing speaks for the label.
_DIMMED = 0.4


@dataclass(frozen=True, eq=False, repr=False)
class Saliency:
    """Images as the network gets them, and where in them is what speaks for a label.

    Attributes
    ----------
    images : ndarray of uint8, shape (n, height, width, 3)
        Cut and resized to the network's input.
    maps : ndarray of float32, shape (n, height, width)
        0–1. The place that speaks most for the label has 1; all are 0 where none does.
    labels : tuple of str
        What each map is of.
    """

    images: NDArray[np.uint8]
    maps: NDArray[np.float32]
    labels: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<Saliency: {len(self.maps)} images of {self.maps.shape[2]} × {self.maps.shape[1]} pixels>"

    def overlays(self) -> NDArray[np.uint8]:
        """Return the images, in colour and light where they speak for the label, dim and grey elsewhere.

        Returns
        -------
        ndarray of uint8, shape (n, height, width, 3)
        """
        images, weight = self.images.astype(np.float32), self.maps[..., None]
        grey = images @ np.array([[0.299], [0.587], [0.114]], np.float32)
        return (weight * images + (1 - weight) * _DIMMED * grey).round().astype(np.uint8)


def saliency(model: Model, images: Sequence[Any], label: str | Sequence[str] | None = None) -> Saliency:
    """Show where in each image a model finds what speaks for a label.

    On the last layer that knows places, the map of a convolution or the tokens of a transformer, a place counts with
    the sum over its channels of activation times gradient of the label's score, above the mean score of all labels. For
    a linear head on an averaged map that is what the place adds to the score; for one on a class token, what the last
    block takes from the patch.

    Parameters
    ----------
    model : Model
        On layers of one backbone, with a head that has gradients: logreg, ridge, svm, centroid, knn, mlp or conv.
    images : sequence
        Paths, encoded bytes, `PIL.Image.Image` or arrays of uint8, shape (h, w, 3).
    label : str or sequence of str, optional
        One for all images, or one for each; by default what the model says of it.

    Returns
    -------
    Saliency

    Raises
    ------
    OptionError
        If the model has another head, several backbones or none, or does not know the label.
    ImageError
        If an image cannot be read.

    Notes
    -----
    HiResCAM (Draelos & Carin, arXiv:2011.08891); on an averaged map equal to CAM (Zhou et al., arXiv:1512.04150).

    Examples
    --------
    >>> import featx
    >>> from sklearn.datasets import load_digits
    >>> digits = load_digits()
    >>> images = (15.9 * digits.images[:60, :, :, None].repeat(3, axis=3)).astype("uint8")
    >>> table = featx.extract(images, labels=digits.target[:60], image_size=64)
    >>> seen = featx.saliency(featx.fit(table, "ridge"), images[:2])
    >>> seen.maps.shape
    (2, 64, 64)
    """
    if model.outputs is not None:
        raise OptionError("Saliency is of one class an image, and this model predicts several labels or numbers.")
    if isinstance(model.head, Vote):
        raise OptionError("Saliency is of one head, and in this model several vote. Fit one: featx fit --head logreg")
    wanted = [label] * len(images) if isinstance(label, str) else label
    if wanted is not None and len(wanted) != len(images):
        raise OptionError(f"There are {len(wanted)} labels for {len(images)} images: give one for all or one for each.")
    known = [model.classes[code] for code in model.head.classes_]
    for name in wanted or ():
        check_choice("label", name, known)
    with _scorer(model) as scorer:
        frames = [prepare(image, scorer.frame) for image in images]
        maps: list[NDArray[np.float32]] = []
        columns: list[int] = []
        for start in range(0, len(frames), _BATCH):
            batch = slice(start, start + _BATCH)
            of = None if wanted is None else [known.index(name) for name in wanted[batch]]
            found, of = scorer.maps(torch.from_numpy(np.stack(frames[batch])), of)
            maps.extend(found)
            columns.extend(of)
        sides = (scorer.frame.height, scorer.frame.width)
    return Saliency(
        np.stack(frames) if frames else np.zeros((0, *sides, 3), np.uint8),
        np.stack(maps) if maps else np.zeros((0, *sides), np.float32),
        tuple(known[column] for column in columns),
    )


@contextlib.contextmanager
def _scorer(model: Model) -> Iterator[_Scorer]:
    """Hold a model's network and head as modules of PyTorch."""
    recipes = [made.recipe for made in model.inputs]
    with model.loadable_requests() as requests:
        if not requests:
            raise OptionError("This model was fitted on rows without a recipe, and has never seen an image.")
        if len({recipe.weights_digest for recipe in recipes}) > 1:
            raise OptionError("Saliency is of one backbone, and this model has several. Take a model of one of them.")
        backbone = backbones.load(requests[0])
        if backbone.weights_digest != recipes[0].weights_digest:
            raise OptionError(f"The weights of {backbone.name} are others than those that the model was fitted on.")
        yield _Scorer(model, backbone, recipes)


class _Scorer:
    """From images to scores, and from a score back to places.

    Attributes
    ----------
    frame : Frame
        How images come to the network's size.
    """

    def __init__(self, model: Model, backbone: Backbone, recipes: list[Recipe]) -> None:
        self.frame = recipes[0].frame
        self._name = model.head_name
        self._module = backbone.module
        self._rows = from_pixels(backbone, recipes)
        self._head = nn.Sequential(Scaling(model.scaler), nn.Flatten(), scores_of(model.head, model.head_name))
        self._n_prefix = n_prefix_tokens(backbone.module)
        candidates = [_with_places(backbone, recipe.layer) for recipe in recipes]
        with self._run(blank(recipes, 1), candidates) as (rows, outputs):
            self._layers = [self._last(row, there) for row, there in zip(rows, outputs, strict=True)]

    def maps(self, pixels: Tensor, columns: list[int] | None) -> tuple[NDArray[np.float32], list[int]]:
        """Return maps (n, height, width) for uint8 images (n, height, width, 3), and of which scores they are."""
        total = torch.zeros(len(pixels), self.frame.height, self.frame.width)
        with self._run(pixels, [[layer] for layer in self._layers]) as (rows, outputs):
            scores = self._head(rows[0] if len(rows) == 1 else torch.cat([row.flatten(1) for row in rows], 1))
            columns = scores.argmax(1).tolist() if columns is None else columns
            asked = scores[torch.arange(len(scores)), columns] - scores.mean(1)
            if not asked.requires_grad:
                raise OptionError(f"A {self._name} head has no gradients. One that has: featx fit --head logreg")
            steepness = torch.autograd.grad(asked.sum(), rows, retain_graph=True)
            for row, steep, there in zip(rows, steepness, outputs, strict=True):
                # By this tap's rows alone: deeper ones are made of its layer as well, and have their own turn.
                (output,) = there.values()
                (gradient,) = torch.autograd.grad((row * steep).sum(), output, retain_graph=True)
                total += self._on_image((gradient * output).detach())
        total = total.clamp(min=0)
        return (total / total.amax((1, 2), keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)).numpy(), columns

    @contextlib.contextmanager
    def _run(
        self, pixels: Tensor, layers: list[list[str]]
    ) -> Iterator[tuple[tuple[Tensor, ...], list[dict[str, Tensor]]]]:
        """Hold the rows of images, of each tap, and the outputs of `layers` that each was made of, with gradients."""
        with torch.enable_grad(), _outputs(self._module, {one for of_tap in layers for one in of_tap}) as outputs:
            # What the images are multiplied with has a gradient, so everything that is made of them has.
            rows = self._rows(pixels.float() * torch.ones((), requires_grad=True))
            yield rows, [{one: outputs[one] for one in of_tap} for of_tap in layers]

    def _last(self, row: Tensor, outputs: dict[str, Tensor]) -> str:
        """Return the last layer of which more than one place matters to a tap's row of an image."""
        gradients = torch.autograd.grad(row.sum(), list(outputs.values()), retain_graph=True, allow_unused=True)
        for layer, gradient in zip(reversed(outputs), reversed(gradients), strict=True):
            if gradient is not None and (self._placed(gradient.abs()) > 0).sum() > 1:
                return layer
        raise OptionError("Nothing in this network before the model's layer knows where in the image it is.")

    def _placed(self, shares: Tensor) -> Tensor:
        """Return shares of all channels together, of each place, shape (n, rows, columns)."""
        kind = layout(tuple(shares.shape[1:]))
        if kind != TOKENS:
            return shares.sum(-1 if kind == MAP_CHANNELS_LAST else 1)
        of_patches = shares[:, self._n_prefix :].sum(-1)
        n = of_patches.shape[1]
        n_rows = round(math.sqrt(n * self.frame.height / self.frame.width))
        if n_rows == 0 or n % n_rows:
            raise OptionError(f"The network's {n} tokens are no grid over the image.")
        return of_patches.reshape(len(shares), n_rows, -1)

    def _on_image(self, shares: Tensor) -> Tensor:
        sides = (self.frame.height, self.frame.width)
        placed = self._placed(shares)[:, None]
        return nn.functional.interpolate(placed, sides, mode="bilinear", align_corners=False)[:, 0]


def _with_places(backbone: Backbone, tapped: str) -> list[str]:
    """Return the layers up to `tapped`, in order, whose outputs may tell one place of an image from another."""
    names = list(dict.fromkeys(layer.name for layer in backbone.layers()))
    names = names[: names.index(tapped) + 1]
    shapes = {name: backbone.output_shape(name) for name in names}
    kinds = (TOKENS,) if has_class_token(backbone.module) else (MAP, MAP_CHANNELS_LAST)
    placed = [name for name in names if layout(shapes[name]) in kinds]
    if placed and layout(shapes[placed[-1]]) == TOKENS:
        # Queries, keys and hidden units have other widths than what goes from block to block.
        widths = [shapes[name] for name in placed]
        usual = max(set(widths), key=widths.count)
        placed = [name for name in placed if shapes[name] == usual]
    return placed


@contextlib.contextmanager
def _outputs(module: nn.Module, layers: set[str]) -> Iterator[dict[str, Tensor]]:
    """Collect outputs of `layers`; what follows gets a copy, so that an activation in place cannot overwrite them."""
    outputs: dict[str, Tensor] = {}

    def collect(layer: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            tensor = first_tensor(output)
            if tensor is None:
                return output
            outputs[layer] = tensor
            copied = tensor.clone()
            return copied if isinstance(output, Tensor) else type(output)([copied, *output[1:]])

        return hook

    handles = [module.get_submodule(layer).register_forward_hook(collect(layer), prepend=True) for layer in layers]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
