"""How to extract: what may change the speed of a run, but never the features."""

from __future__ import annotations

from dataclasses import dataclass

from featx.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to extract: what may change the speed, but never the features.

    Attributes
    ----------
    engine, device : str
        As in ``featx extract``.
    batch_size, workers : int or None
        Images a forward and decoding processes; None to choose.
    max_errors : str
        Bad images that are still no failure: a count or a percentage of all images.
    rehash : bool
        Read every image again instead of trusting size and times of its file.
    refresh : bool
        Compute every row of these images again. Tables that hold some of them are set aside first, and where this
        machine's probe disagrees with the cache's, all tables of the recipe.
    """

    engine: str = "auto"
    device: str = "auto"
    batch_size: int | None = None
    workers: int | None = None
    max_errors: str = "1%"
    rehash: bool = False
    refresh: bool = False

    def __post_init__(self) -> None:
        allowed_errors(self.max_errors, 100)
        for name in ("batch_size", "workers"):
            value = getattr(self, name)
            if value is not None and value < (name == "batch_size"):
                raise OptionError(f"--{name.replace('_', '-')} must be a positive number, got {value}.")


def allowed_errors(max_errors: str, n: int) -> float:
    """Return how many of `n` images may be bad.

    Examples
    --------
    >>> allowed_errors("1%", 500), allowed_errors("3", 500)
    (5.0, 3.0)
    """
    try:
        allowed = float(max_errors.rstrip("%")) * (n / 100 if max_errors.endswith("%") else 1)
    except ValueError:
        allowed = -1.0
    if not allowed >= 0:
        raise OptionError(f"--max-errors takes a count or a percentage, for example 10 or 1%; got {max_errors!r}.")
    return allowed
