"""Whether new images are like those that a model knows: by their familiarity, and by what it says of them."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import DataError
from featx.evaluation.rows import known_content
from featx.extraction.options import ComputeOptions
from featx.features import joined_if_tables
from featx.model.model import Model
from featx.model.target_predictions import LabelPredictions, NumberPredictions
from featx.settings import check, keywords, option, part_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from featx.model import Predictions

    Counts = NDArray[np.float64]

#: Equal parts into which familiarity, and numbers, are cut.
_PARTS = 10
#: How rarely chance alone must come to a shift that is told.
_CHANCE = 0.01
#: Rows less familiar than this are unfamiliar; one in a hundred known ones is.
UNFAMILIAR = 0.01
#: Fewer rows tell nothing of shares.
_FEWEST = 30


@dataclass(frozen=True)
class Drifting:
    """What counts as a drift, and against what."""

    _: KW_ONLY
    reference: Any = option(
        None, "What new images are held against. Default: the table that the model was fitted on.", metavar="TABLE|DATA"
    )
    max_psi: float = option(0.25, "A larger population stability index is a drift.", metavar="N", above=0)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class _OnImages:
    images: Any = None


@dataclass(frozen=True, kw_only=True)
class _Drift(ComputeOptions, Drifting, _OnImages):
    cache: str | Path | None = None


@dataclass(frozen=True)
class Shift:
    """How far shares have moved.

    Attributes
    ----------
    name : str
        Of what: ``familiarity``, ``predictions``, or a label or number.
    psi : float
        The population stability index, the sum of (q − p) ln(q / p) over parts with shares p before and q now.
    chance : float
        What chance alone exceeds once in a hundred times, for as many rows.
    before, now : dict of str to float
        Share of each part.
    """

    name: str
    psi: float
    chance: float
    before: dict[str, float]
    now: dict[str, float]

    def is_drift(self, max_psi: float) -> bool:
        """Whether it is both large and more than chance."""
        return self.psi > max(max_psi, self.chance)


@dataclass(frozen=True, kw_only=True)
class Drift:
    """What became of new images under a model.

    Attributes
    ----------
    n, n_unreadable : int
        New images, and how many more could not be read.
    n_reference : int
        Rows that they were held against by what the model says of them; 0 where there are none.
    unfamiliar : float or None
        Share of new images that are less familiar than 99 in 100 known ones; None where the model does not tell.
    shifts : tuple of Shift
        The largest of its kind each: familiarity, predictions.
    max_psi : float
    notes : tuple of str
        What could not be looked at, and why.
    """

    n: int
    n_unreadable: int
    n_reference: int
    unfamiliar: float | None
    shifts: tuple[Shift, ...]
    max_psi: float
    notes: tuple[str, ...] = ()

    @property
    def drifted(self) -> bool:
        """Whether anything has."""
        return any(shift.is_drift(self.max_psi) for shift in self.shifts)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form of ``featx drift``."""
        return {
            "drifted": self.drifted,
            "n": self.n,
            "unreadable": self.n_unreadable,
            "n_reference": self.n_reference,
            "unfamiliar": self.unfamiliar,
            "max_psi": self.max_psi,
            "shifts": [vars(shift) | {"drifted": shift.is_drift(self.max_psi)} for shift in self.shifts],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        lines = [f"{self.n:,} new images" + (f", {self.n_unreadable:,} not readable" if self.n_unreadable else "")]
        if self.unfamiliar is not None:
            lines.append(f"unfamiliar   {100 * self.unfamiliar:.1f} % (of known ones 1 %)")
        for shift in self.shifts:
            told = "drifted" if shift.is_drift(self.max_psi) else "as before"
            lines.append(f"{shift.name:<12} PSI {shift.psi:.3f} (chance {shift.chance:.3f}): {told}")
            moved = sorted(shift.now, key=lambda part: -abs(shift.now[part] - shift.before[part]))[:3]
            lines += [f"  {part}: {100 * shift.before[part]:.1f} % → {100 * shift.now[part]:.1f} %" for part in moved]
        return "\n".join([*lines, *self.notes])


@keywords(_Drift)
def drift(model: Model, how: _Drift) -> Drift:
    """Hold new images against those that a model knows. No label is needed.

    Familiarity of known images is spread evenly by its very definition, so that of new ones is held against equal
    parts. What the model says of new images is held against what it says of a reference: rows that it was not trained
    on, where these are enough. A shift is told where its index is above `max_psi` and above what chance comes to.

    Parameters
    ----------
    model : Model
    images : Features, path, sequence of images, or Dataset
        The new ones, as `featx.Model.classify` takes them.
    {options}
    cache : path-like, optional
        As of `featx.Model.classify`.

    Returns
    -------
    Drift

    Raises
    ------
    DataError
        If there are too few images to tell, or nothing to hold them against.

    Notes
    -----
    B. Yurdakul, "Statistical properties of population stability index", 2018: without a shift the index over b parts of
    n and m rows is distributed as (1/n + 1/m) times a chi-squared variable with b − 1 degrees of freedom.
    """
    classify = vars(part_of(ComputeOptions, how)) | {"cache": how.cache}
    found = model.classify(how.images, **classify)
    good = np.array([i for i in range(len(found)) if i not in found.errors], dtype=np.intp)
    if len(good) < _FEWEST:
        raise DataError(
            f"{len(good):,} images can be read, and fewer than {_FEWEST} tell nothing of shares. Give more."
        )
    shifts, notes, unfamiliar = [], [], None
    if found.familiarity is None:
        notes.append("The model cannot tell how familiar images are: fit it with more validation rows (--val 0.2).")
    else:
        familiar = found.familiarity[good]
        unfamiliar = float((familiar < UNFAMILIAR).mean())
        counts = np.histogram(familiar, bins=_PARTS, range=(0, 1))[0]
        parts = [f"{i / _PARTS:.1f}-{(i + 1) / _PARTS:.1f}" for i in range(_PARTS)]
        shifts.append(shift_of("familiarity", parts, np.full(_PARTS, 1 / _PARTS), counts))
    reference, why = _reference(model, how.reference, classify)
    if reference is None:
        notes.append(why)
    else:
        before = np.array([i for i in range(len(reference)) if i not in reference.errors], dtype=np.intp)
        shifts.append(_of_predictions(reference, before, found, good))
    if not shifts:
        raise DataError(f"There is nothing to hold the images against. {' '.join(notes)}")
    return Drift(
        n=len(good),
        n_unreadable=len(found.errors),
        n_reference=0 if reference is None else len(reference) - len(reference.errors),
        unfamiliar=unfamiliar,
        shifts=tuple(shifts),
        max_psi=how.max_psi,
        notes=tuple(notes),
    )


def shift_of(name: str, parts: list[str], before: Counts, now: Counts) -> Shift:
    """Return how far shares have moved.

    Parameters
    ----------
    name : str
    parts : list of str, length b
        What each is called.
    before : ndarray, shape (b,)
        Counts; or shares, which are then known without doubt.
    now : ndarray, shape (b,)
        Counts.

    Examples
    --------
    >>> shift = shift_of("x", ["a", "b"], np.array([50, 50]), np.array([80, 20]))
    >>> round(shift.psi, 2), round(shift.chance, 2), shift.is_drift(0.25)
    (0.41, 0.13, True)
    """
    from scipy.special import chdtri

    n_before, n_now, b = before.sum(), now.sum(), len(parts)
    is_known = bool(n_before <= 1 + 1e-9)
    # Half a row more in each part: one that is empty by chance would be infinitely far.
    p = before / n_before if is_known else (before + 0.5) / (n_before + 0.5 * b)
    q = (now + 0.5) / (n_now + 0.5 * b)
    psi = float(((q - p) * np.log(q / p)).sum())
    scale = 1 / n_now + (0 if is_known else 1 / n_before)
    chance = float(chdtri(max(b - 1, 1), _CHANCE) * scale)
    shares = [dict(zip(parts, (counts / counts.sum()).tolist(), strict=True)) for counts in (before, now)]
    return Shift(name, psi, chance, *shares)


def _reference(
    model: Model, given: Any, classify: dict[str, Any]
) -> tuple[Predictions | LabelPredictions | NumberPredictions | None, str]:
    """Return what the model says of the reference, or None and why there is none."""
    table = model.table() if given is None else joined_if_tables(given)
    if table is None and given is None:
        return None, "The table that the model was fitted on is not there, so shares are not compared: --reference DATA"
    if table is not None:
        new = ~known_content(table.item_ids, model.trained_on)
        given = table.select(np.flatnonzero(new)) if new.sum() >= _FEWEST else table
    found = model.classify(given, **classify)
    if len(found) - len(found.errors) < _FEWEST:
        return None, f"The reference has fewer than {_FEWEST} images, so shares are not compared."
    return found, ""


def _of_predictions(before: Any, old: NDArray[np.intp], now: Any, new: NDArray[np.intp]) -> Shift:
    """Return the largest shift of what is said: of classes together, of labels and numbers one by one."""
    if isinstance(now, LabelPredictions):
        shifts = []
        for column, name in enumerate(now.outputs.names):
            cut = now.outputs.thresholds[column]
            there = [(found.array[rows, column] >= cut).sum() for found, rows in ((before, old), (now, new))]
            counts = [np.array([n, len(rows) - n]) for n, rows in zip(there, (old, new), strict=True)]
            shifts.append(shift_of(name, [name, f"no {name}"], *counts))
    elif isinstance(now, NumberPredictions):
        shifts = []
        for column, name in enumerate(now.outputs.names):
            known = before.array[old, column]
            edges = np.unique(np.quantile(known, np.linspace(0, 1, _PARTS + 1)[1:-1]))
            counts = [
                np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1)
                for values in (known, now.array[new, column])
            ]
            ends = ["", *(f"{edge:.4g}" for edge in edges), ""]
            parts = [f"{name} {low} to {high}" for low, high in pairwise(ends)]
            shifts.append(shift_of(name, parts, *counts))
    else:
        pairs = ((before, old), (now, new))
        counts = [np.bincount(found.best[rows], minlength=len(now.classes)) for found, rows in pairs]
        said = np.flatnonzero(counts[0] + counts[1])  # a class that is never said is no part
        shifts = [shift_of("predictions", [now.classes[i] for i in said], counts[0][said], counts[1][said])]
    return max(shifts, key=lambda shift: shift.psi)
