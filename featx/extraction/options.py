"""How to extract: what may change the speed of a run, but never the features; and which views are drawn."""

from __future__ import annotations

from dataclasses import dataclass

from featx.errors import OptionError
from featx.recipe import Views
from featx.settings import check, option


@dataclass(frozen=True, kw_only=True)
class MachineOptions:
    """What of a machine is used."""

    device: str = option("auto", "Where it runs.", metavar="auto|cpu|cuda[:i]|mps")
    workers: int | None = option(
        None, "Decoding processes; 0 decodes in this one. Default: chosen.", metavar="N", least=0, most=1024
    )


@dataclass(frozen=True, kw_only=True)
class ErrorOptions:
    """What is done about images that cannot be read."""

    max_errors: str = option("1%", "Images that cannot be read, still no failure.", metavar="N|N%")


@dataclass(frozen=True, kw_only=True)
class ComputeOptions(MachineOptions):
    """How features are computed: what may change the speed, but never the features."""

    engine: str = option("auto", "What runs the network.", choices=("auto", "eager", "compile", "openvino"))
    batch_size: int | None = option(None, "Images a forward. Default: chosen.", metavar="N", least=1, most=1_000_000)


@dataclass(frozen=True, kw_only=True)
class Options(ErrorOptions, ComputeOptions):
    """How to extract: what may change the speed, but never the features.

    With `refresh`, tables that hold some of these images are set aside first, and where this machine's probe
    disagrees with the cache's, all tables of the recipe.
    """

    devices: str | None = option(None, "GPUs of this machine to use together.", metavar="all|N|0,1")
    rehash: bool = option(False, "Read every image again instead of trusting size and times of its file.")
    refresh: bool = option(False, "Compute all rows of these images again; once stopped, go on without it.")

    def __post_init__(self) -> None:
        check(self)
        allowed_errors(self.max_errors, 100)


@dataclass(frozen=True, kw_only=True)
class NumberOfViews:
    """How many views of an image are used."""

    views: int | None = option(
        None, "Views of each training image, the plain one included.", metavar="N", least=1, most=1000
    )


@dataclass(frozen=True, kw_only=True)
class ViewOptions(NumberOfViews):
    """Augmented views of each training image, see `featx.augment`."""

    augment: str | None = option(
        None, 'How views are changed, as "flip,rotate=2,zoom=0.1" or light|standard|strong.', metavar="SPEC"
    )


def parse_views(n: int | None, augment: str | None, seed: int = 0) -> Views | None:
    """Return the views that ``--views`` and ``--augment`` ask for, None for the plain images alone.

    Parameters
    ----------
    n : int, optional
        Views in all, the plain one included.
    augment : str, optional
        As `featx.augment.Augmentation.parse` takes it.
    seed : int
        Another seed draws other views.

    Raises
    ------
    OptionError
        If one is given without the other, or cannot be.

    Examples
    --------
    >>> parse_views(4, "light")
    Views(n=4, augment='flip,rotate=2,zoom=0.1', seed=0)
    """
    from featx.augment import PRESETS, Augmentation

    if n is not None and n < 1:
        raise OptionError(f"--views counts the plain image too, so it is at least 1; got {n}.")
    if augment is None:
        if n is not None and n > 1:
            raise OptionError(
                f"--views {n} needs to know what to change in an image: --augment flip,rotate=2,zoom=0.1, "
                f"or one of {', '.join(PRESETS)}."
            )
        return None
    if n is None or n == 1:
        raise OptionError("--augment needs the number of views of each image, the plain one included: --views 4")
    canonical = str(Augmentation.parse(augment))
    if not canonical:
        raise OptionError("--augment is empty. Name what to change, for example --augment light, or leave out --views.")
    return Views(n=n, augment=canonical, seed=seed)


def allowed_errors(max_errors: str | int, n: int) -> float:
    """Return how many of `n` images may be bad.

    Examples
    --------
    >>> allowed_errors("1%", 500), allowed_errors("3", 500), allowed_errors(3, 500)
    (5.0, 3.0, 3.0)
    """
    text = str(max_errors)
    try:
        allowed = float(text.rstrip("%")) * (n / 100 if text.endswith("%") else 1)
    except ValueError:
        allowed = -1.0
    if not allowed >= 0:
        raise OptionError(f"--max-errors takes a count or a percentage, for example 10 or 1%; got {max_errors!r}.")
    return allowed
