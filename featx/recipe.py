"""What decides how pixels become a vector: the `Recipe`, its canonical JSON and its key.

A `Request` is what a user asks for (``vgg16``, ``block3_pool``); a `Recipe` is what that came to
(which tensors, which module, which pixels). Two runs share rows of the cache exactly when their
recipes have the same `Recipe.key`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

from featx.errors import OptionError
from featx.settings import Seeded, check, option

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Version of the canonical JSON form below.
FORMAT = 1
#: Raised by hand when featx itself computes other numbers from the same recipe (decode, resize, pooling).
EPOCH = 1

POOLS = ("none", "flatten", "avg", "max", "gem", "cls")
RESIZES = ("crop", "squash", "pad")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
DTYPES = ("float32", "float16")
#: What the names of networks begin with that a program holds itself: nothing is imported for them.
HANDED_OVER = "python:"
#: What a network's own choice of a layer is called wherever layers are named.
DEFAULT_LAYER = "default"
#: Sets of layers by one name: the last layer of each size of maps, the blocks at quarters of the way, every block.
LAYER_SETS = ("stages", "quarters", "all")
#: What a set's name begins with among names of layers: networks have modules called ``stages``.
SET = "set:"
#: The largest side of an input, in pixels: one such image is 1 GiB on its way through a network.
LARGEST_SIDE = 8192
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
    white : int or None
        Value of white in grey images of 16 bits; None for what each file says, else full scale.
    """

    height: int
    width: int
    resize: str
    shorter: int
    interpolation: str
    background: tuple[int, int, int] = (255, 255, 255)
    decode: str = DECODES["full"]
    white: int | None = None


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

        A recipe says nothing of views or of white where there is nothing to say: its key is that of old.
        """
        fields = dataclasses.asdict(self) | {"format": FORMAT, "epoch": EPOCH}
        if self.view is None:
            del fields["view"]
        if self.frame.white is None:
            del fields["frame"]["white"]
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


def joined_key(keys: Sequence[str]) -> str:
    """Return the key of rows that recipes of such keys make side by side: of one recipe its own.

    Examples
    --------
    >>> joined_key([]), joined_key(["ab"]), joined_key(["ab", "cd"])[:8]
    ('', 'ab', '41b72d4b')
    """
    if len(keys) < 2:
        return "".join(keys)
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()


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
class PreprocessingOptions(Seeded):
    """Which weights a network has, and how images become what it takes."""

    weights: str = option(
        "imagenet",
        "Pretrained weights by their tag, `none` for random ones, or a file.",
        metavar="imagenet|none|PATH|TAG",
    )
    image_size: int | None = option(
        None,
        "Side of the square input in pixels: the shorter side is resized to it, the centre cropped. "
        "Default: the weights' own.",
        metavar="N",
        least=1,
        most=LARGEST_SIDE,
    )
    resize: str = option("weights", "How an image is fitted to the input.", choices=("weights", *RESIZES))
    normalize: str = option(
        "weights",
        "What is subtracted and divided by: the weights' own, pixels in 0–1 (unit), raw pixels (none), or "
        "one or three numbers each, with commas, for pixels in 0–1.",
        metavar="weights|unit|none|MEAN/STD",
    )
    interpolation: str = option("weights", "Filter that resizes.", choices=("weights", *INTERPOLATIONS))
    background: str = option("white", "Colour under transparent pixels: a name or #rrggbb.", metavar="COLOUR")
    decode: str = option("full", "draft: large JPEGs are read at a half or less, faster.", choices=tuple(DECODES))
    white: int | None = option(
        None,
        "Value of white in grey images of 16 bits, such as 4095. Default: what the file says, else 65535.",
        metavar="N",
        least=255,
        most=65535,
    )
    version: str | None = option(
        None, "Version of your own package.module:function.", metavar="V", flags=("--backbone-version",)
    )


@dataclass(frozen=True, kw_only=True)
class FeatureOptions(PreprocessingOptions):
    """`PreprocessingOptions`, and how exactly features are computed and stored."""

    precision: str = option("fp32", "Of products, as computed.", choices=PRECISIONS)
    dtype: str = option("float32", "Of features, as stored.", choices=DTYPES)


@dataclass(frozen=True)
class BackboneOptions:
    """One network, and how what comes out of its layer becomes a row."""

    backbone: str = option(
        "efficientnet_lite0",
        "A name of `featx backbones`, or your own package.module:function.",
        metavar="NAME",
        positional=True,
    )
    _: KW_ONLY
    pool: str = option(
        "auto",
        "How a layer's output becomes a row; auto averages maps and takes a transformer's class token. Two: avg+max.",
        choices=("auto", *POOLS),
        together=True,
    )

    @property
    def pools(self) -> tuple[str, ...]:
        """Each pooling by itself: ``avg+max`` are two."""
        return tuple(self.pool.split("+"))


@dataclass(frozen=True, kw_only=True)
class LayerSets:
    """Several layers of one network, which come from one pass."""

    layers: Sequence[str] = option(
        (),
        "Several layers: the last of each size of maps (stages), blocks at quarters of the way, all blocks, or names.",
        metavar="stages|quarters|all|A,B",
    )


@dataclass(frozen=True, kw_only=True)
class LayerOptions(BackboneOptions):
    """One network, one of its layers, and how that becomes a row."""

    layer: str | None = option(
        None, "A name of `featx layers`, or default: what the network itself pools.", metavar="L"
    )


@dataclass(frozen=True, kw_only=True)
class Request(BackboneOptions, FeatureOptions):
    """What a user asks of a backbone, before weights are loaded and names are resolved.

    Attributes
    ----------
    backbone, pool : str
        As in `BackboneOptions`.
    layers : tuple of str
        Native or Keras names, `DEFAULT_LAYER`, or `SET` and one of `LAYER_SETS`; empty for the default one.
    weights, image_size, resize, normalize, interpolation, background, decode, white, seed, version
        As in `PreprocessingOptions`. A ``package.module:function`` is not cached without a version.
    precision, dtype : str
        As in `Recipe`.
    """

    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check(self)

    @property
    def is_one(self) -> bool:
        """Whether it comes to one recipe: one layer and one pooling."""
        sets = [layer for layer in self.layers if layer.startswith(SET)]
        return len(self.layers) <= 1 and not sets and len(self.pools) == 1

    def check_one(self, who: str) -> Request:
        """Return the request, refusing one that comes to several recipes.

        Raises
        ------
        OptionError
        """
        if not self.is_one:
            raise OptionError(f"{who} takes one layer and one pooling, got {self.described}. Name one of them.")
        return self

    @property
    def described(self) -> str:
        """Its layers and poolings in words: ``layers stages, pool avg+max``."""
        layers = ",".join(layer.removeprefix(SET) for layer in self.layers) or DEFAULT_LAYER
        return f"layers {layers}, pool {self.pool}"

    @staticmethod
    def named(layer: str | Sequence[str] | None, layers: str | Sequence[str] = ()) -> tuple[str, ...]:
        """Return the `layers` of a request; the default alone goes without a name, as in tables of old.

        Parameters
        ----------
        layer : str, sequence of str or None
            One name, several or none, none of them of a set.
        layers : str or sequence of str
            Names and sets of layers, in a text with commas between them.

        Raises
        ------
        OptionError
            If both are given.

        Examples
        --------
        >>> Request.named("conv1"), Request.named(["default", "conv1"]), Request.named("default"), Request.named(None)
        (('conv1',), ('default', 'conv1'), (), ())
        >>> Request.named(None, "stages"), Request.named(None, "conv1,conv2")
        (('set:stages',), ('conv1', 'conv2'))
        """
        alone = () if layer is None else (layer,) if isinstance(layer, str) else tuple(layer)
        several = Request.several(layers)
        if alone and several:
            raise OptionError("--layer and --layers both say which layers. Leave out one of them.")
        names = alone or several
        return () if names == (DEFAULT_LAYER,) else names

    @staticmethod
    def several(layers: str | Sequence[str]) -> tuple[str, ...]:
        """Return names and sets of layers as a request has them."""
        words = layers.split(",") if isinstance(layers, str) else layers
        return tuple(f"{SET}{word}" if word in LAYER_SETS else word for word in filter(None, words))

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
