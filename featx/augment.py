"""Random changes of an image that leave its class as it is, written as text: ``flip,rotate=2,zoom=0.1``.

Words, in any order, each at most once:

==================  ====================================================================================
``flip``            left and right exchanged, for every second image
``vflip``           top and bottom exchanged, for every second image
``rotate=DEG``      turned by up to so many degrees, either way
``zoom=F``          magnified by 1 - F to 1 + F, both axes alike
``shift=F``         moved by up to this share of the side; ``shift=FX/FY`` for each axis
``shear=DEG``       sheared along x by up to so many degrees, either way
``crop=PX``         moved by up to so many whole pixels, as a random crop of the padded image
``randaugment``     two operations drawn at random (Cubuk et al., CVPR Workshops 2020)
``trivialaugment``  one operation of random strength (Müller and Hutter, ICCV 2021)
``brightness=F``    multiplied by 1 - F to 1 + F; ``brightness=LO:HI`` for other bounds
``contrast=F``      blended with its mean grey by such a factor, or ``LO:HI``
``saturation=F``    blended with its grey image by such a factor, or ``LO:HI``
``hue=F``           hue turned by up to F of the colour circle, either way (at most 0.5)
``erase=P``         a rectangle painted over with probability P (Zhong et al., AAAI 2020)
==================  ====================================================================================

Turning, zooming, shifting and shearing are one bilinear interpolation. Where an image is moved away
from a border, its outermost pixels are repeated, as Keras does by default.

Presets stand for words: `PRESETS`; words beside a preset override its own. The terms of Keras's
``ImageDataGenerator`` are taken as well: `KERAS_TERMS`. There ``zoom_range`` draws each axis apart, and
shifts of 1 or more are pixels; here they are shares only.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.errors import OptionError, UnknownNameError

Pixels = npt.NDArray[np.uint8]

#: What a preset stands for, from weak to strong.
PRESETS = {
    "light": "flip,rotate=2,zoom=0.1",
    "standard": "flip,rotate=10,zoom=0.15,shift=0.1,brightness=0.2,contrast=0.2,saturation=0.2",
    "strong": "flip,trivialaugment,erase=0.25",
}
#: Terms of Keras's ImageDataGenerator and what they are called here.
KERAS_TERMS = {
    "horizontal_flip": "flip",
    "vertical_flip": "vflip",
    "rotation_range": "rotate",
    "zoom_range": "zoom",
    "width_shift_range": "shift",
    "height_shift_range": "shift",
    "shear_range": "shear",
    "brightness_range": "brightness",
}
#: Colour of an erased rectangle: the mean of ImageNet.
_ERASED = (124.0, 116.0, 104.0)
#: An image is padded by no more than this on each side.
_MOST_PIXELS = 512
#: How an error says where all words are listed.
_LISTING = "python -m pydoc featx.augment"


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random changes of network-sized images.

    Each attribute is a word of the module's list; the defaults change nothing. Make one with `parse`.

    Examples
    --------
    >>> a = Augmentation.parse("zoom_range=0.1,horizontal_flip,rotation_range=2")
    >>> str(a), a == Augmentation.parse("light")
    ('flip,rotate=2,zoom=0.1', True)
    """

    flip: bool = False
    vflip: bool = False
    rotate: float = 0.0
    zoom: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    shear: float = 0.0
    crop: int = 0
    randaugment: bool = False
    trivialaugment: bool = False
    brightness: tuple[float, float] = (1.0, 1.0)
    contrast: tuple[float, float] = (1.0, 1.0)
    saturation: tuple[float, float] = (1.0, 1.0)
    hue: float = 0.0
    erase: float = 0.0

    @classmethod
    def parse(cls, spec: str) -> Augmentation:
        """Return what `spec` describes; an empty one changes nothing.

        Raises
        ------
        UnknownNameError
            If a word is neither of the list nor a preset nor a term of Keras.
        OptionError
            If a word has no value it needs, a value it cannot have, or is there twice.
        """
        preset: dict[str, Any] = {}
        chosen: dict[str, Any] = {}
        for word in filter(None, (word.strip() for word in spec.split(","))):
            if word in PRESETS:
                preset |= dict(map(_parse_word, PRESETS[word].split(",")))
                continue
            name, value = _parse_word(word)
            if name == "shift" and name in chosen:  # the two axes are two terms of Keras
                value = _both_axes(word, chosen.pop(name), value)
            if name in chosen:
                raise OptionError(f"--augment names {name!r} twice in {spec!r}. Leave out one of them.")
            chosen[name] = value
        return cls(**preset | chosen)

    def __str__(self) -> str:
        """Return the canonical form: equal augmentations have equal texts, and `parse` reads them."""
        return ",".join(_words(self))

    def apply(self, pixels: Pixels, seeds: npt.NDArray[np.int64]) -> Pixels:
        """Change each image as its own seed says, whatever other images are beside it.

        The random state of torch is left as it was.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (n, h, w, 3)
        seeds : ndarray of int64, shape (n,)
            See `seed_of`.

        Returns
        -------
        ndarray of uint8, shape (n, h, w, 3)
        """
        import torch

        changed = np.empty_like(pixels)
        change = _pipeline(self, *pixels.shape[1:3])
        with torch.random.fork_rng(devices=[]):
            for place, seed in enumerate(seeds.tolist()):
                torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach the GPUs too
                image = torch.tensor(pixels[place]).permute(2, 0, 1).contiguous()
                changed[place] = change(image).permute(1, 2, 0).numpy()
        return changed


def seed_of(item_id: bytes, view: int, seed: int) -> int:
    """Return the seed of one view of one image, 0 to 2⁶³ - 1, from what the image is and not where it stands.

    Parameters
    ----------
    item_id : bytes
        SHA-256 of the image.
    view : int
        Number of the view.
    seed : int
        Of the run.

    Examples
    --------
    >>> seed_of(b"image", 1, 0) == seed_of(b"image", 2, 0)
    False
    """
    text = b"%d %d " % (view, seed) + item_id
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1


def _words(augmentation: Augmentation) -> Iterator[str]:
    for field in dataclasses.fields(Augmentation):
        value = getattr(augmentation, field.name)
        if value == field.default:
            continue
        if value is True:
            yield field.name
        elif field.name == "shift":
            yield f"shift={'/'.join(map(_short, value[:1] if value[0] == value[1] else value))}"
        else:
            yield f"{field.name}={':'.join(map(_short, value if isinstance(value, tuple) else (value,)))}"


def _short(number: float) -> str:
    """Return a number without an exponent and without trailing zeros, to the digits that are kept."""
    return f"{number:.6f}".rstrip("0").rstrip(".")


def _parse_word(word: str) -> tuple[str, Any]:
    term, equals, text = (part.strip() for part in word.partition("="))
    name = KERAS_TERMS.get(term, term)
    if name not in _READERS:
        raise UnknownNameError.among("augmentation", term, [*_READERS, *PRESETS, *KERAS_TERMS], _LISTING)
    read, form = _READERS[name]
    try:
        value = read(text) if equals or read is _switch else None
    except ValueError:
        value = None
    if value is None:
        raise OptionError(f"--augment takes {form}, got {word!r}.")
    if term in ("width_shift_range", "height_shift_range"):
        value = (value[0], 0.0) if term.startswith("width") else (0.0, value[1])
    return name, value


def _both_axes(word: str, first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    if any(a and b for a, b in zip(first, second, strict=True)) or not word.startswith(("width_", "height_")):
        raise OptionError(f"--augment names 'shift' twice, the second time as {word!r}. Leave out one of them.")
    return first[0] + second[0], first[1] + second[1]


# Readers of values: None, or a ValueError, for what cannot be.


def _switch(text: str) -> bool | None:
    return True if text.lower() in ("", "true") else None


def _up_to(limit: float) -> Callable[[str], float | None]:
    def read(text: str) -> float | None:
        number = round(float(text), 6)
        return number if 0 < number <= limit else None

    return read


def _pixels(text: str) -> int | None:
    return int(text) if 0 < int(text) <= _MOST_PIXELS else None


def _shares(text: str) -> tuple[float, float] | None:
    numbers = [round(float(part), 6) for part in text.split("/")]
    if len(numbers) > 2 or not all(0 <= number < 1 for number in numbers) or not any(numbers):
        return None
    return numbers[0], numbers[-1]


def _factors(text: str) -> tuple[float, float] | None:
    numbers = [float(part) for part in text.split(":")]
    low, high = numbers if len(numbers) == 2 else (1 - numbers[0], 1 + numbers[0])
    low, high = round(low, 6), round(high, 6)
    return (low, high) if len(numbers) <= 2 and 0 <= low <= high < math.inf and low != high else None


#: Each word with what reads its value and how that is written.
_READERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "flip": (_switch, "flip without a value"),
    "vflip": (_switch, "vflip without a value"),
    "rotate": (_up_to(180), "rotate=DEG up to 180"),
    "zoom": (_up_to(0.9), "zoom=F up to 0.9"),
    "shift": (_shares, "shift=F or shift=FX/FY, shares of the side below 1"),
    "shear": (_up_to(60), "shear=DEG up to 60"),
    "crop": (_pixels, f"crop=PX, whole pixels up to {_MOST_PIXELS}"),
    "randaugment": (_switch, "randaugment without a value"),
    "trivialaugment": (_switch, "trivialaugment without a value"),
    "brightness": (_factors, "brightness=F up to 1 or brightness=LO:HI"),
    "contrast": (_factors, "contrast=F up to 1 or contrast=LO:HI"),
    "saturation": (_factors, "saturation=F up to 1 or saturation=LO:HI"),
    "hue": (_up_to(0.5), "hue=F up to 0.5"),
    "erase": (_up_to(1), "erase=P up to 1"),
}


@functools.lru_cache(maxsize=16)
def _pipeline(augmentation: Augmentation, height: int, width: int) -> Callable[[Any], Any]:
    """Return what changes one image, a uint8 tensor (3, height, width), geometry first and erasing last."""
    from torchvision.transforms import v2

    a = augmentation
    steps: list[Callable[[Any], Any]] = []
    if a.flip:
        steps.append(v2.RandomHorizontalFlip())
    if a.vflip:
        steps.append(v2.RandomVerticalFlip())
    if a.rotate or a.zoom or any(a.shift) or a.shear:
        steps.append(functools.partial(_move, _moves(a)))
    if a.crop:
        steps.append(v2.RandomCrop((height, width), padding=a.crop, padding_mode="edge"))
    if a.randaugment:
        steps.append(v2.RandAugment())
    if a.trivialaugment:
        steps.append(v2.TrivialAugmentWide())
    steps.append(v2.ColorJitter(a.brightness, a.contrast, a.saturation, a.hue))
    if a.erase:
        steps.append(v2.RandomErasing(a.erase, value=_ERASED))
    whole: Callable[[Any], Any] = v2.Compose(steps)
    return whole


def _moves(a: Augmentation) -> Any:
    from torchvision.transforms import v2

    return v2.RandomAffine(a.rotate, translate=a.shift, scale=(1 - a.zoom, 1 + a.zoom), shear=a.shear)


def _move(moves: Any, image: Any) -> Any:
    """Turn, zoom, shift and shear in one interpolation; what comes in from beyond a border repeats it."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    drawn = moves.make_params([image])
    side = max(image.shape[-2:])
    # Half the side of the square that the output sees in the input: of each row of the inverse matrix, the sum.
    turn, slant = math.radians(drawn["angle"]), math.tan(math.radians(drawn["shear"][0]))
    reach = (abs(math.cos(turn)) + abs(math.sin(turn))) * (1 + abs(slant))
    reach *= (side / 2 + max(map(abs, drawn["translate"]))) / drawn["scale"]
    padding = 1 + max(0, math.ceil(reach - min(image.shape[-2:]) / 2))
    padded = functional.pad(image, [padding], padding_mode="edge")
    moved = functional.affine(padded, **drawn, interpolation=InterpolationMode.BILINEAR)
    return functional.center_crop(moved, list(image.shape[-2:]))
