"""What a model's rows are made of: an `Input` for each block of columns, and how images become such rows."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.model.network import unpacked
from featx.recipe import DEFAULT_LAYER

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from featx.datasets import Dataset
    from featx.extraction import Options, RowMaker
    from featx.features import Features
    from featx.model.network import Network
    from featx.recipe import Frame, Recipe, Request, Views


@dataclass(frozen=True, eq=False)
class Input:
    """A block of a model's columns: how it is made from an image.

    Attributes
    ----------
    recipe : Recipe
        What makes it.
    request : Request or None
        What loads the network for it; None where nobody knows any more.
    probe : dict of str to ndarray
        What the recipe made of the built-in images where the model was fitted; empty where that is not known.
    """

    recipe: Recipe
    request: Request | None = None
    probe: dict[str, NDArray[Any]] = field(default_factory=dict)


def described(made: Input) -> str:
    """Return an input in a few words: ``timm/resnet18 layer4 avg (key 1f0c2a3b)``."""
    recipe = made.recipe
    return f"{recipe.backbone} {recipe.layer} {recipe.pool} (key {recipe.key[:8]})"


def inputs_of(table: Features) -> tuple[Input, ...]:
    """Return how the rows of `table` are made: of a join each block; nothing for arrays of one's own."""
    parts = [(part, part.recipe) for part in table.tables]
    return tuple(Input(recipe, _request(part, recipe), dict(part.probe)) for part, recipe in parts if recipe)


def _request(table: Features, recipe: Recipe) -> Request | None:
    """Return what makes this very table again: one of several layers extracted together has its own name."""
    request = table.request
    if request is None or request.is_one:
        return request
    return dataclasses.replace(request, layers=(recipe.layer or "output",), pool=recipe.pool)


@contextlib.contextmanager
def loadable_requests(inputs: Sequence[Input], network: Network | None) -> Iterator[list[Request]]:
    """Hold a request for each of `inputs` whose weights are there: the user's own, or those bundled."""
    requests = [made.request for made in inputs if made.request is not None]
    if network is None:
        yield requests
        return
    with unpacked(requests[0], network) as loadable:
        yield [dataclasses.replace(request, weights=loadable.weights) for request in requests]


def in_one_pass(requests: Sequence[Request]) -> list[Request]:
    """Return `requests` with those together that one pass over the images answers: layers of one network and pooling.

    Examples
    --------
    >>> from featx.recipe import Request
    >>> [r.layers for r in in_one_pass([Request(layers=("a",)), Request(), Request("vgg16", layers=("a",))])]
    [('a', 'default'), ('a',)]
    """
    together: dict[Request, list[str]] = {}
    for request in requests:
        alike = dataclasses.replace(request, layers=())
        together.setdefault(alike, []).extend(request.layers or (DEFAULT_LAYER,))
    named = {alike: () if layers == [DEFAULT_LAYER] else tuple(layers) for alike, layers in together.items()}
    return [dataclasses.replace(alike, layers=layers) for alike, layers in named.items()]


class ImageRows:
    """Rows of several inputs side by side, made of images: each network runs once for all its layers.

    Parameters
    ----------
    inputs : sequence of Input
        All with a request.
    network : Network, optional
        The weights of their network, if they travel with the model.
    """

    def __init__(self, inputs: Sequence[Input], network: Network | None = None) -> None:
        from featx.extraction import RowMaker

        places: dict[Recipe, list[int]] = {}
        for place, made in enumerate(inputs):
            # Everything but what is tapped: equal for all layers of one network.
            places.setdefault(dataclasses.replace(made.recipe, layer="", pool="", shape=()), []).append(place)
        self._makers: list[tuple[list[int], RowMaker]] = []
        for of_network in places.values():
            mine = [inputs[place] for place in of_network]
            maker = RowMaker(
                lambda mine=mine: loadable_requests(mine, network),  # type: ignore[misc]
                [made.recipe for made in mine],
                [made.probe or None for made in mine],
                network.converted if network else None,
            )
            self._makers.append((of_network, maker))

    @property
    def frames(self) -> tuple[Frame, ...]:
        """What images are fitted to for the networks, each frame once."""
        return tuple(dict.fromkeys(maker.frame for _, maker in self._makers))

    def of_pixels(self, pixels: Sequence[NDArray[np.uint8]], options: Options) -> NDArray[Any]:
        """Return rows (n, …) of images that are fitted already.

        Parameters
        ----------
        pixels : sequence of ndarray of uint8, shape (n, height, width, 3)
            The same images for each of `frames`.
        options : Options
        """
        blocks: dict[int, NDArray[Any]] = {}
        for places, maker in self._makers:
            found = maker.run(pixels[self.frames.index(maker.frame)], options)
            blocks |= dict(zip(places, found, strict=True))
        in_order = [blocks[place] for place in sorted(blocks)]
        return in_order[0] if len(in_order) == 1 else np.hstack(in_order)

    def rows(
        self, dataset: Dataset, *, views: Views | None = None, cache: str | Path | None = None, **how: Any
    ) -> tuple[list[NDArray[Any]], dict[int, str]]:
        """Return rows for each image of `dataset`, and why some have none, as `featx.extraction.RowMaker.rows` does.

        Returns
        -------
        rows : list of ndarray of shape (n, …)
            Of each view, the plain one first; NaN where there is none.
        reasons : dict of int to str
            Why, by position.
        """
        blocks: dict[int, list[NDArray[Any]]] = {}
        reasons: dict[int, str] = {}
        for places, maker in self._makers:
            found, failed = maker.rows(dataset, views=views, cache=cache, **how)
            blocks |= {place: found[i :: len(places)] for i, place in enumerate(places)}
            reasons = failed | reasons
        in_order = [blocks[place] for place in sorted(blocks)]
        if len(in_order) == 1:
            return in_order[0], reasons
        return [np.hstack(of_view) for of_view in zip(*in_order, strict=True)], reasons
