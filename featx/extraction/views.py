"""From what a user says about augmented views to `Views`."""

from __future__ import annotations

from featx.augment import PRESETS, Augmentation
from featx.errors import OptionError
from featx.recipe import Views


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
