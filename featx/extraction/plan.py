"""A `Plan`: what is asked, resolved to recipes, identified by content; and a `Segment`: rows that are still missing."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx import __version__
from featx.engines import kept
from featx.errors import CacheError, ImageError, OptionError
from featx.extraction.options import Options
from featx.images import File, item_id
from featx.machine import n_cores
from featx.progress import Progress
from featx.recipe import Recipe, Request
from featx.store.catalog import first_of_each
from featx.store.opening import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from featx.backbones import Backbone
    from featx.datasets import Dataset
    from featx.images import Unread
    from featx.progress import OnProgress
    from featx.recipe import View, Views
    from featx.store import Store

#: Libraries whose version may change what a name resolves to.
_LIBRARIES = ("torch", "torchvision", "timm")
#: Images that a thread hashes before it is asked for them.
_HASHED_TOGETHER = 32
#: Where installed packages offer backbones of their own.
_PLUGINS = "featx.backbones"


@dataclass(frozen=True, eq=False)
class Segment:
    """A unit of work that is committed whole: images of which rows of the same recipes are missing.

    `Plan.missing` gives all images that lack the same rows as one segment; whoever computes them cuts it to the size
    that suits his engine.

    Attributes
    ----------
    recipes : sequence of Recipe
        All layers of one view, then all of another, …
    positions : ndarray of int, shape (n,)
        Of the images in the dataset, ascending, each content once.
    """

    recipes: Sequence[Recipe]
    positions: np.ndarray

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def views(self) -> list[View | None]:
        """The views, in order; None for the image as it is."""
        return list(dict.fromkeys(recipe.view for recipe in self.recipes))

    @property
    def n_passes(self) -> int:
        """Forward passes: each view of an image is one."""
        return len(self) * len(self.views)

    @property
    def step(self) -> str:
        """What `Progress` calls the work on it."""
        return "extract" if None in self.views else "views"

    def cut(self, n: int) -> list[Segment]:
        """Return it in segments of `n` images, the last of what is left."""
        cuts = range(n, len(self), n)
        return [Segment(self.recipes, part) for part in np.split(self.positions, list(cuts))] if len(self) else []


@dataclass(eq=False)
class Plan:
    """Rows of `recipes` for every image of `dataset`, and which of them the cache has.

    Attributes
    ----------
    dataset : Dataset
    request : Request
        What was asked for.
    recipes : list of Recipe
        What that came to, one a layer.
    store : Store
        The cache.
    item_ids : ndarray of uint8, shape (n, 32)
        Content hash of each image; zeros where its bytes could not be read.
    unreadable : dict of int to ImageError
        Images without bytes, by position.
    options : Options
        How to compute.
    views : Views or None
        Augmented views of the training images that are asked for as well.
    blind : bool
        Nothing is found, as after a refresh.
    """

    dataset: Dataset
    request: Request
    recipes: list[Recipe]
    store: Store
    item_ids: np.ndarray
    unreadable: dict[int, ImageError] = field(default_factory=dict)
    options: Options = field(default_factory=Options)
    views: Views | None = None
    blind: bool = False
    loaded: Backbone | None = field(default=None, repr=False)

    @property
    def backbone(self) -> Backbone:
        """The network itself; loaded on first use, and held against the recipes' digest."""
        if self.loaded is None:
            from featx import backbones

            backbone, recipes = backbones.resolve(self.request)
            if [r.key for r in recipes] != [r.key for r in self.recipes]:
                raise OptionError(
                    f"{self.request.backbone} is no longer what it was when this run began: "
                    "its weights file or library changed. Run the command again."
                )
            self.loaded = backbone
        return self.loaded

    def found(self, recipe: Recipe) -> np.ndarray:
        """Rows that the cache holds, bool of shape (n,)."""
        if self.blind:
            return np.zeros(len(self.item_ids), dtype=bool)
        found: np.ndarray = self.store.find(recipe.key, self.item_ids) & self._readable
        return found

    def refused(self, recipe: Recipe) -> dict[int, str]:
        """Rows that are known to be no images, with the reason."""
        return {} if self.blind else self.store.known_errors(recipe.key, self.item_ids)

    def is_done(self, segment: Segment) -> bool:
        """Say whether the cache holds, for every image and recipe of `segment`, a row or why there is none."""
        return self.has(segment.recipes, segment.positions)

    def has(self, recipes: Sequence[Recipe], positions: np.ndarray) -> bool:
        """Say whether the cache holds, for every recipe and position, a row or why there is none."""
        item_ids = self.item_ids[positions]
        for recipe in recipes:
            found = self.store.find(recipe.key, item_ids)
            found[list(self.store.known_errors(recipe.key, item_ids))] = True
            if not found.all():
                return False
        return True

    @property
    def viewed(self) -> np.ndarray:
        """Rows of which augmented views are made, bool of shape (n,): nothing but training looks at them.

        These are the rows of split ``train`` or, where no row is, those in no split.
        """
        splits = self.dataset.split_by(self.item_ids)
        train: np.ndarray = splits == "train"
        return train if train.any() else np.asarray(splits == "")

    def splits(self, recipe: Recipe) -> np.ndarray:
        """Split of each row, shape (n,); validation rows still to be drawn are drawn from those with features."""
        return self.dataset.split_by(self.item_ids, self.found(recipe.plain))

    @property
    def n_rows(self) -> int:
        """Rows of all tables of one layer."""
        n = len(self.item_ids)
        return n if self.views is None else n + (self.views.n - 1) * int(self.viewed.sum())

    def missing(self) -> Iterator[Segment]:
        """Yield what is missing: the images as they are, then augmented views, each as the cache is at that moment."""
        lacking = self._lacking(self.recipes)
        if lacking.any():
            yield self._segment(self.recipes, lacking)
        if self.views is not None:
            yield from self._missing_views(self.views)

    def _missing_views(self, views: Views) -> Iterator[Segment]:
        """Yield what is missing of augmented views: together the images that lack the same ones."""
        of_views = {number: [views.recipe(recipe, number) for recipe in self.recipes] for number in views.numbers}
        wanted = self.viewed
        for recipe in self.recipes:
            wanted[list(self.refused(recipe))] = False
        lacking = np.stack([self._lacking(recipes) & wanted for recipes in of_views.values()])
        for pattern in np.unique(lacking, axis=1).T:
            if pattern.any():
                chosen = [recipe for number in views.numbers if pattern[number - 1] for recipe in of_views[number]]
                yield self._segment(chosen, (lacking == pattern[:, None]).all(axis=0))

    @property
    def _readable(self) -> np.ndarray:
        mask = np.ones(len(self.item_ids), dtype=bool)
        mask[list(self.unreadable)] = False
        return mask

    def _lacking(self, recipes: Sequence[Recipe]) -> np.ndarray:
        """Say which images lack a row of some of `recipes` and may have one, bool of shape (n,)."""
        wanted: np.ndarray = np.zeros(len(self.item_ids), dtype=bool)
        for recipe in recipes:
            lacking = ~self.found(recipe) & self._readable
            lacking[list(self.refused(recipe))] = False
            wanted |= lacking
        return wanted

    def _segment(self, recipes: Sequence[Recipe], chosen: np.ndarray) -> Segment:
        """Return one segment of the images that `chosen` (bool, (n,)) names, each content once."""
        return Segment(recipes, first_of_each(self.item_ids, np.flatnonzero(chosen)))


def make_plan(
    dataset: Dataset,
    request: Request,
    store: Store,
    options: Options | None = None,
    *,
    views: Views | None = None,
    on_progress: OnProgress | None = None,
) -> Plan:
    """Resolve `request` and identify the images of `dataset`, so that the cache can be asked for rows.

    Parameters
    ----------
    dataset : Dataset
    request : Request
    store : Store
    options : Options, optional
    views : Views, optional
        Augmented views of the training images.
    on_progress : callable, optional
        Called with a `Progress` after each image that is read for its hash.

    Raises
    ------
    OptionError
        If views are asked for and no row is for training, and all that `resolve` raises.
    """
    options = options or Options()
    recipes, backbone = resolve(request, store)

    def hashed(done: int, total: int, seconds: float) -> None:
        if on_progress is not None:
            on_progress(Progress("hash", done, total, seconds))

    item_ids, unreadable = identify(dataset, store, rehash=options.rehash, on_progress=hashed)
    dataset.split_by(item_ids)  # a share that cannot be drawn is refused before any work
    plan = Plan(dataset, request, recipes, store, item_ids, unreadable, options, views, loaded=backbone)
    if views is not None and not plan.viewed.any():
        raise OptionError(
            "--views are for training rows, and the data has only validation and test rows. Leave it out."
        )
    return plan


def identify(
    dataset: Dataset,
    store: Store,
    *,
    rehash: bool = False,
    on_progress: Callable[[int, int, float], None] | None = None,
) -> tuple[np.ndarray, dict[int, ImageError]]:
    """Hash every row of `dataset` that the cache's memo of file stamps does not know yet.

    Parameters
    ----------
    dataset : Dataset
        Rows to identify.
    store : Store
        Keeps the memo ``(path, size, mtime, inode) → hash``.
    rehash : bool
        Read every byte again. Needed only where a file was edited with its size and times kept.
    on_progress : callable, optional
        Called with (hashed so far, to hash, seconds) after each row.

    Returns
    -------
    item_ids : ndarray of uint8, shape (n, 32)
        SHA-256 of each row's bytes; zeros where the bytes could not be read.
    unreadable : dict of int to ImageError
        Why, by position.
    """
    stamps, unreadable = dataset.stamps(), dict[int, ImageError]()
    item_ids, known = np.zeros((len(dataset), 32), dtype=np.uint8), np.zeros(len(dataset), dtype=bool)
    if stamps is not None and not rehash:
        item_ids, known = store.known_hashes(stamps)
    unknown, started = np.flatnonzero(~known), time.perf_counter()
    for done, (index, found) in enumerate(_hashed(dataset.unread(unknown)), start=1):
        if isinstance(found, ImageError):
            unreadable[index] = found
        else:
            item_ids[index] = np.frombuffer(found, dtype=np.uint8)
        if on_progress is not None:
            on_progress(done, len(unknown), time.perf_counter() - started)
    if stamps is not None and len(unknown):
        learned = np.setdiff1d(unknown, list(unreadable))
        store.remember_hashes(stamps[learned], item_ids[learned])
    return item_ids, unreadable


def _hashed(images: Iterator[tuple[int, Unread | ImageError]]) -> Iterator[tuple[int, bytes | ImageError]]:
    """Read files and hash images in threads, which is what both are good for; a few ahead, in their order."""
    begun: deque[Future[list[tuple[int, bytes | ImageError]]]] = deque()
    with ThreadPoolExecutor(n_cores()) as threads:
        while part := list(islice(images, _HASHED_TOGETHER)):
            begun.append(threads.submit(_hash_all, part))
            if len(begun) > n_cores():
                yield from begun.popleft().result()
        while begun:
            yield from begun.popleft().result()


def _hash_all(images: list[tuple[int, Unread | ImageError]]) -> list[tuple[int, bytes | ImageError]]:
    hashed: list[tuple[int, bytes | ImageError]] = []
    for index, image in images:
        try:
            data = image.read() if isinstance(image, File) else image
            hashed.append((index, data if isinstance(data, ImageError) else item_id(data)))
        except ImageError as error:
            hashed.append((index, error))
    return hashed


def named_network(backbone: Any, transform: Any = None, version: str | None = None) -> tuple[str, str | None]:
    """Return the name and the version to ask for, also of a network that is no name but held in Python.

    Parameters
    ----------
    backbone : str, torch.nn.Module or callable
    transform : callable or mapping, optional
        How images are prepared for a network that is no name.
    version : str, optional
    """
    if not isinstance(backbone, str):
        from featx.backbones import hand_over

        return hand_over(backbone, transform, version)
    if transform is not None:
        raise OptionError(
            f"transform= is for a network of your own; {backbone} has that of its weights. Change it by image_size, "
            "resize, interpolation and normalize."
        )
    return backbone, version


def resolve(request: Request, store: Store) -> tuple[list[Recipe], Backbone | None]:
    """Resolve names, weights and shapes of `request`: one recipe a layer, and the backbone if it had to be loaded.

    A record in the cache, and one for all caches of the user, remember the outcome for the same request, library
    versions and weight files (path, size, mtime, inode), so that a run that finds everything computed, or its network
    converted, never imports torch.
    A user's own function is always called: nothing tells whether it changed.

    Raises
    ------
    OptionError
        If a function of the user's own comes without a version, or any other backbone with one.
    """
    _check_version(request)
    name = _record_name(request)
    for remembered in (store.record(name), kept.recall(name)):
        if remembered is not None and (known := _still_true(remembered)):
            return known, None

    from featx.backbones import resolve as load_and_resolve

    backbone, recipes = load_and_resolve(request)
    if ":" not in request.backbone:
        files = {str(path): _stat(str(path)) for path in backbone.files}
        record = {"files": files, "recipes": [recipe.to_json() for recipe in recipes]}
        kept.remember(name, record)
        with contextlib.suppress(CacheError):  # a folder that cannot be written is refused when there are rows for it
            store.put_record(name, record)
    return recipes, backbone


def _still_true(record: dict[str, Any]) -> list[Recipe]:
    """Return the recipes that a record remembers; none if a file is another by now, or it says nothing of the kind."""
    try:
        if all(_stat(path) == stat for path, stat in record["files"].items()):
            return [Recipe.from_json(text) for text in record["recipes"]]
    except (KeyError, TypeError, AttributeError, OptionError):
        pass
    return []


def resolved_recipes(request: Request, *, cache: str | Path | None = None) -> list[Recipe]:
    """Return what `request` comes to, one recipe for each layer that it names, or for the default layer."""
    store = open_store(cache)
    recipes, _ = resolve(request, store)
    if len(recipes) >= len(request.layers) * len(request.pools):
        return recipes
    # Two names of one layer have one recipe, so that each name must say which is its own.
    alone = (dataclasses.replace(request, layers=(layer,)) for layer in request.layers)
    return [recipe for named in alone for recipe in resolve(named, store)[0]]


def _check_version(request: Request) -> None:
    own = ":" in request.backbone and not request.backbone.startswith(("hf-hub:", "hf_hub:"))
    if own and request.version is None:
        raise OptionError(
            f"{request.backbone} is your own function: say which version of it made the features, "
            "for example --backbone-version 1, and raise it when the function changes."
        )
    if request.version is not None and not own:
        plugins = {entry.name for entry in metadata.entry_points(group=_PLUGINS)}
        if request.backbone not in plugins:
            raise OptionError(
                f"--backbone-version {request.version} is for your own package.module:function; {request.backbone} is "
                "told apart by its weights. Leave it out."
            )


def _record_name(request: Request) -> str:
    versions = [f"featx {__version__}", *(f"{library} {metadata.version(library)}" for library in _LIBRARIES)]
    return "recipe-" + hashlib.sha256("\n".join([request.to_json(), *versions]).encode()).hexdigest()[:32]


def _stat(path: str) -> list[int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - the path is a string in the record
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ino]
