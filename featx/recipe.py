"""What decides how pixels become a vector: the `Recipe`, its canonical JSON and its key.

A `Request` is what a user asks for (``vgg16``, ``block3_pool``); a `Recipe` is what that came to
(which tensors, which module, which pixels). Two runs share rows of the cache exactly when their
recipes have the same `Recipe.key`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from featx.errors import OptionError

#: Version of the canonical JSON form below.
FORMAT = 1
#: Raised by hand when featx itself computes other numbers from the same recipe (decode, resize, pooling).
EPOCH = 1

POOLS = ("none", "flatten", "avg", "max", "gem", "cls")
RESIZES = ("crop", "squash", "pad")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
DTYPES = ("float32", "float16")
#: Decode policies (`Frame.decode`) by the names that users type.
DECODES = {"full": "pillow-1", "draft": "pillow-1-draft"}


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The geometry of one network input: how an RGB image of any size becomes ``height × width`` pixels.

    Attributes
    ----------
    height, width : int
        Size of the result, in pixels.
    resize : {"crop", "squash", "pad"}
        ``crop``: the shorter side goes to `shorter`, then the centre is cropped. ``squash``: straight
        to ``height × width``, the aspect ratio is lost. ``pad``: the longer side fits, the rest is
        `background`.
    shorter : int
        Length in pixels that the shorter side is resized to before the crop (``crop`` only, else 0).
    interpolation : str
        One of `INTERPOLATIONS`, Pillow's antialiased filters.
    background : tuple of int
        RGB, 0–255, under transparent pixels and around padded ones.
    decode : str
        Name of the decode policy, one of the values of `DECODES`.
    """

    height: int
    width: int
    resize: str
    shorter: int
    interpolation: str
    background: tuple[int, int, int] = (255, 255, 255)
    decode: str = DECODES["full"]


@dataclass(frozen=True, kw_only=True)
class View:
    """An augmented view: the network-sized image, changed at random.

    Attributes
    ----------
    number : int
        1, 2, … View 0 is the image as it is.
    augment : str
        Canonical form of a `featx.augment.Augmentation`.
    seed : int
        What is drawn depends on the image, the number and this.
    """

    number: int
    augment: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides how an image's bytes become a row of features, and nothing else.

    Paths, labels, splits, order, batch size, workers, device, engine and library versions are *not*
    part of it: they must not change the features, and the probe catches them when they do.

    Attributes
    ----------
    backbone : str
        Resolved name with its library, for example ``torchvision/vgg16``.
    weights : str
        Tag of the weights (``IMAGENET1K_V1``, ``random-0``, ``file``); their content is `weights_digest`.
    weights_digest : str
        SHA-256 (hex) over name, dtype, shape and bytes of every tensor of the network's state.
    layer : str
        Native module path of the tap.
    pool : str
        One of `POOLS`; ``auto`` is already resolved.
    shape : tuple of int
        Shape of one row, ``(d,)`` or ``(c, h, w)``.
    dtype : {"float32", "float16"}
        As stored.
    precision : {"fp32", "tf32", "bf16", "fp16"}
        As computed.
    frame : Frame
        How pixels reach the network's input size.
    mean, std : tuple of float
        Per channel, in units of pixels scaled to 0–1.
    version : str or None
        The user's word for the version of his own backbone function.
    view : View or None
        How the image is changed at random; None for the image as it is.
    """

    backbone: str
    weights: str
    weights_digest: str
    layer: str
    pool: str
    shape: tuple[int, ...]
    dtype: str
    precision: str
    frame: Frame
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    version: str | None = None
    view: View | None = None

    def to_json(self) -> str:
        """Return the canonical JSON: sorted keys, no white space, ASCII, shortest round-trip floats.

        A plain recipe says nothing of views, so that asking for views leaves its key as it is.
        """
        fields = dataclasses.asdict(self) | {"format": FORMAT, "epoch": EPOCH}
        if self.view is None:
            del fields["view"]
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)

    @property
    def key(self) -> str:
        """SHA-256 (hex) of the canonical JSON: the name under which rows of this recipe are kept."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def plain(self) -> Recipe:
        """The recipe of the image as it is."""
        return dataclasses.replace(self, view=None)

    @property
    def row_bytes(self) -> int:
        """Size of one row as stored, in bytes."""
        n_values = 1
        for length in self.shape:
            n_values *= length
        return n_values * (4 if self.dtype == "float32" else 2)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Rebuild a recipe from `to_json`.

        Raises
        ------
        OptionError
            If the text is of another format, or its fields are not those of a recipe.
        """
        try:
            fields = json.loads(text)
            found = (fields.pop("format"), fields.pop("epoch"))
            if "view" in fields:
                fields["view"] = View(**fields["view"])
            recipe = cls(**_tuples(fields | {"frame": Frame(**_tuples(fields["frame"]))}))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise OptionError(f"Not a recipe of featx: {error}. Make the table again: featx extract") from error
        if found != (FORMAT, EPOCH):
            raise OptionError(
                f"The recipe is of format {found[0]}.{found[1]}, this featx reads {FORMAT}.{EPOCH}. "
                "Make the table again: featx extract"
            )
        return recipe


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples; frozen dataclasses hold nothing else."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


@dataclass(frozen=True, kw_only=True)
class Views:
    """Augmented views of each image: what is drawn for them, and how many there are.

    Attributes
    ----------
    n : int
        Views in all, at least 2. View 0 is the image as it is.
    augment : str
        Canonical form of a `featx.augment.Augmentation` that changes something.
    seed : int
        Another seed draws other views.
    """

    n: int
    augment: str
    seed: int = 0

    @property
    def numbers(self) -> range:
        """Numbers of the augmented views, without the plain one."""
        return range(1, self.n)

    def recipe(self, plain: Recipe, view: int) -> Recipe:
        """Return the recipe of one augmented view of what `plain` makes of an image."""
        return dataclasses.replace(plain, view=View(number=view, augment=self.augment, seed=self.seed))


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a user asks of a backbone, before weights are loaded and names are resolved.

    Attributes
    ----------
    backbone : str
        A name from ``featx backbones`` or ``package.module:function``.
    weights : str
        ``imagenet``, ``none`` (random, from `seed`), a path, or a tag of the library.
    layers : tuple of str
        Native or Keras names; empty for the backbone's default.
    pool : str
        ``auto`` or one of `POOLS`.
    image_size : int or None
        Side of the square input in pixels; None for the weights' own.
    resize, normalize, interpolation : str
        ``weights`` for what belongs to the weights. `normalize` also takes ``unit``, ``none`` or
        ``MEAN/STD`` with one or three comma-separated numbers each, for pixels scaled to 0–1.
    background : str
        A colour name or ``#rrggbb``.
    decode : {"full", "draft"}
        ``draft`` lets JPEGs much larger than the network's input be decoded at 1/2, 1/4 or 1/8 of their size.
    precision, dtype : str
        As in `Recipe`.
    seed : int
        For random weights.
    version : str or None
        As in `Recipe`; a ``package.module:function`` is not cached without it.
    """

    backbone: str = "efficientnet_lite0"
    weights: str = "imagenet"
    layers: tuple[str, ...] = ()
    pool: str = "auto"
    image_size: int | None = None
    resize: str = "weights"
    normalize: str = "weights"
    interpolation: str = "weights"
    background: str = "white"
    decode: str = "full"
    precision: str = "fp32"
    dtype: str = "float32"
    seed: int = 0
    version: str | None = None

    def __post_init__(self) -> None:
        _one_of("--pool", self.pool, ("auto", *POOLS))
        _one_of("--resize", self.resize, ("weights", *RESIZES))
        _one_of("--interpolation", self.interpolation, ("weights", *INTERPOLATIONS))
        _one_of("--decode", self.decode, tuple(DECODES))
        _one_of("--precision", self.precision, PRECISIONS)
        _one_of("--dtype", self.dtype, DTYPES)
        if self.image_size is not None and self.image_size < 1:
            raise OptionError(f"--image-size must be at least 1 pixel, got {self.image_size}.")

    def to_json(self) -> str:
        """Return the request as JSON with sorted keys, the form that tables and models carry."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Request:
        """Rebuild a request from `to_json`."""
        try:
            return cls(**_tuples(json.loads(text)))
        except (TypeError, ValueError, AttributeError) as error:
            raise OptionError(f"Not a request of featx: {error}.") from error


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise OptionError(f"{option} must be one of {', '.join(allowed)}; got {value!r}.")
