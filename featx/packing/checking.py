"""A packed model is held against the model that it was made of: on built-in images, and on some of the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from featx.errors import DataError, FeatxError, OptionError, ProbeError
from featx.heads.boosted import XGBoostHead, XGBoostRegressor
from featx.images import decode, fit
from featx.model.vote import Vote
from featx.probe import PROBE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from featx.datasets import Dataset
    from featx.model import Model
    from featx.packing.settings import Packing
    from featx.recipe import Frame

    #: What a file says of uint8 images (n, h, w, 3), shape (n, k).
    Run = Callable[[NDArray[np.uint8]], NDArray[Any]]

#: How far a probability may be from featx's, and where something is not fp32 or a head is not continuous.
TOLERANCE, LOOSE_TOLERANCE = 1e-4, 2e-2
#: Share of labels that must stay at int8.
LEAST_SAME = 0.99
#: Of a user's images: how many are held against the model, at int8, and how many int8 is calibrated on.
_MOST_CHECKED, _MOST_CHECKED_INT8, _MOST_CALIBRATED = 16, 256, 64
#: Fewer do not tell whether labels stay.
_FEWEST_INT8 = 32
#: Parts of the built-in photo (width, height): panoramas, a tall strip, and images that are smaller than any input.
_SHAPES = ((300, 40), (40, 300), (31, 17), (2, 3))
#: Decoded photos that are held at once.
_HELD = 8


class Compared(NamedTuple):
    """What came of a comparison; see `featx.packing.writing.Packed`."""

    n_checked: int
    apart: float
    same: float


@dataclass(frozen=True, eq=False)
class OwnImages:
    """A user's images, of which some calibrate and others check.

    Attributes
    ----------
    dataset : Dataset or None
        None where they are not there any more.
    calibrates, checks : ndarray of int
        Positions; none in both.
    """

    dataset: Dataset | None
    calibrates: NDArray[np.intp]
    checks: NDArray[np.intp]

    @classmethod
    def of(cls, model: Model, how: Packing) -> OwnImages:
        """Return the images that `how` names, or those that the model was fitted on, as far as they are there.

        Raises
        ------
        OptionError
            If they are too few for int8.
        """
        from featx.datasets import open_dataset

        dataset = _fitted_on(model) if how.check is None else open_dataset(how.check)
        n = 0 if dataset is None else len(dataset)
        if how.precision == "int8":
            if n < _FEWEST_INT8:
                raise OptionError(
                    f"--precision int8 is calibrated on images like those to come, and checked on others: "
                    f"{_FEWEST_INT8} at least, and there are {n}. Name a folder: --check DATA"
                )
            calibrates = _spread(n, min(_MOST_CALIBRATED, n // 2))
            others = np.setdiff1d(np.arange(n), calibrates)
            return cls(dataset, calibrates, others[_spread(len(others), _MOST_CHECKED_INT8)])
        return cls(dataset, _spread(0, 0), _spread(n, n if how.check is not None else _MOST_CHECKED))

    def decoded(self, rows: NDArray[np.intp], frame: Frame) -> Iterator[NDArray[np.uint8]]:
        """Yield images at some positions, as far as they can be read."""
        if self.dataset is None or not len(rows):
            return
        for _, image in self.dataset.iterate(rows.tolist()):
            if isinstance(image, FeatxError):
                continue
            try:
                yield np.asarray(decode(image, background=frame.background, white=frame.white))
            except DataError:
                continue

    def calibration(self, frame: Frame) -> NDArray[np.uint8]:
        """Return images to calibrate on, fitted to a frame, uint8 of shape (n, height, width, 3)."""
        return np.stack([fit(Image.fromarray(image), frame) for image in self.decoded(self.calibrates, frame)])


def compare(model: Model, run: Run, images: OwnImages, precision: str, *, exact: bool) -> Compared:
    """Hold a file against a model on images of several sizes.

    Parameters
    ----------
    model : Model
    run : callable
        Runs the file.
    images : OwnImages
    precision : {"fp32", "fp16", "int8"}
        Of the file.
    exact : bool
        Whether its runtime resizes to the bit.

    Raises
    ------
    ProbeError
        If it says something else.
    """
    frame = model.inputs[0].recipe.frame
    apart, same = _differences(model, run, chain(_built_in(frame), images.decoded(images.checks, frame)))
    found = Compared(len(apart), float(apart.max()), float(same.mean()))
    if precision == "int8" and (model.outputs is None or model.outputs.task == "multilabel"):
        if found.same < LEAST_SAME:
            raise ProbeError(
                f"At int8 the packed model gives {100 * found.same:.1f} % of the model's labels of {len(apart)} images "
                f"({100 * LEAST_SAME:.0f} % are needed), so it was not written. Try --precision fp16."
            )
        return found
    allowed = TOLERANCE if exact and precision == "fp32" and _continuous(model) else LOOSE_TOLERANCE
    if not (apart <= allowed).all():
        advice = "Pack another head, such as logreg, or keep the model file."
        advice = advice if precision == "fp32" else "Try --precision fp32."
        raise ProbeError(
            f"The packed model says something else than featx about {int((~(apart <= allowed)).sum())} of {len(apart)} "
            f"images, by up to {found.apart:.1e} ({allowed:.0e} is allowed), so it was not written. {advice}"
        )
    return found


def _continuous(model: Model) -> bool:
    """Whether a last bit changes little: boosted trees hold rounded numbers against those of training rows."""
    if isinstance(model.head, Vote):
        return all(_continuous(voter.model) for voter in model.head.voters)
    fp32 = all(made.recipe.precision == "fp32" for made in model.inputs)
    return fp32 and not isinstance(model.head, XGBoostHead | XGBoostRegressor)


def _differences(
    model: Model, run: Run, images: Iterable[NDArray[np.uint8]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return for each image how far the file is from the model, and the share of labels that are the same."""
    pairs = []
    rest = iter(images)
    while some := list(islice(rest, _HELD)):
        found = model.classify([Image.fromarray(image) for image in some], workers=0, engine="eager")
        expected = found.probabilities if model.outputs is None else found.array  # type: ignore[union-attr]
        pairs += [(one, run(image[None])[0]) for one, image in zip(expected, some, strict=True)]
    theirs, ours = (np.array(side, np.float64) for side in zip(*pairs, strict=True))
    apart, same = np.abs(ours - theirs), np.ones(len(ours))
    if model.outputs is None:
        same = (ours.argmax(axis=1) == theirs.argmax(axis=1)).astype(float)
    elif model.outputs.task == "multilabel":
        cuts = np.array(model.outputs.thresholds)
        same = ((ours >= cuts) == (theirs >= cuts)).mean(axis=1)
    else:
        apart /= np.maximum(np.abs(theirs).max(axis=0), np.finfo(float).tiny)
    return apart.max(axis=1), same


def _built_in(frame: Frame) -> Iterator[NDArray[np.uint8]]:
    """Yield the probe's images, and parts of its photo, of many shapes."""
    for data in PROBE.values():
        yield np.asarray(decode(data, background=frame.background))
    photo = decode(PROBE["photo"]).resize((400, 400))
    for width, height in _SHAPES:
        yield np.asarray(photo.crop((50, 50, 50 + width, 50 + height)))


def _spread(n: int, most: int) -> NDArray[np.intp]:
    """Return at most so many of `n` positions, evenly spread."""
    return np.linspace(0, n - 1, min(n, most)).astype(np.intp) if n else np.empty(0, np.intp)


def _fitted_on(model: Model) -> Dataset | None:
    from featx.datasets import reopen

    try:
        table = model.table()
        source = None if table is None else table.tables[0].provenance.get("source")
        return reopen(source) if source else None
    except FeatxError:
        return None
