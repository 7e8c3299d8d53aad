"""The probe: a few built-in images whose pixels and features a table carries, to catch what a key cannot see.

A key names weights and preprocessing; it cannot see a decoder, a library or a switch that computes other numbers
from the same names. So the pixels (exactly) and the features (within a tolerance) of these images are stored with a
table, measured again before rows are added or a model meets new images, and compared.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from featx.errors import ProbeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from featx.recipe import Frame

#: Name → encoded image: a PNG of fine detail, a JPEG with subsampled colour larger than most frames, a PNG with
#: transparency, a grey JPEG that its EXIF turns by 90°. ``tests/test_probe.py`` holds the code that drew them.
PROBE = {
    name.partition(".")[0]: Path(__file__).with_name("probe_images").joinpath(name).read_bytes()
    for name in ("waves.png", "photo.jpg", "glass.png", "turned.jpg")
}
_TOLERANCE = {"fp32": 1e-4}
_LOW_PRECISION_TOLERANCE = 2e-2


class _Runs(Protocol):
    """What the probe needs of an engine."""

    def run(self, pixels: np.ndarray) -> list[np.ndarray]: ...


def measure(prepare: Callable[[bytes, Frame], np.ndarray], engine: _Runs, frame: Frame) -> list[dict[str, np.ndarray]]:
    """Decode, fit and run the probe images.

    Parameters
    ----------
    prepare : callable
        `featx.images.prepare`: encoded bytes and a frame → uint8 pixels (h, w, 3).
    engine : Engine
    frame : Frame

    Returns
    -------
    list of dict
        For each recipe of the engine, ``"pixels"``: SHA-256 of each image's pixels, uint8 (n, 32), and
        ``"features"``: its row of each image, (n, …).
    """
    pixels = np.stack([prepare(data, frame) for data in PROBE.values()])
    hashes = np.stack([_sha256(image) for image in pixels])
    return [{"pixels": hashes, "features": rows} for rows in engine.run(pixels)]


def compare(stored: Mapping[str, np.ndarray], measured: Mapping[str, np.ndarray], precision: str) -> None:
    """Check that this machine computes what `stored` was computed with.

    Parameters
    ----------
    stored, measured : mapping
        ``"pixels"`` and ``"features"`` as `measure` gives them for one recipe.
    precision : {"fp32", "tf32", "bf16", "fp16"}
        As computed: sets the tolerance, 1e-4 relative L2 at fp32 and 2e-2 below it.

    Raises
    ------
    ProbeError
        If a pixel differs, or features differ past the tolerance.
    """
    before, now = np.asarray(stored["pixels"]), np.asarray(measured["pixels"])
    if not np.array_equal(before, now):
        other = [name for name, same in zip(PROBE, _rows_equal(before, now), strict=True) if not same]
        raise ProbeError(
            f"This machine makes other pixels of the probe images {', '.join(other)} than the table was made from: was "
            "Pillow updated? Type --refresh to compute the table again here."
        )
    allowed = tolerance(precision)
    apart = distance(np.asarray(stored["features"]), np.asarray(measured["features"]))
    if not apart <= allowed:
        raise ProbeError(
            f"This machine computes other features than those of the table: the probe images differ by {apart:.1e} "
            f"(relative L2; {allowed:.0e} is allowed at {precision}). Type --refresh to compute the table again here."
        )


def _sha256(image: np.ndarray) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(image.tobytes()).digest(), np.uint8)


def _rows_equal(before: np.ndarray, now: np.ndarray) -> Sequence[bool]:
    if before.shape != now.shape:
        return [False] * len(PROBE)
    return [bool(same) for same in (before == now).all(axis=1)]


def tolerance(precision: str) -> float:
    """Return the relative L2 distance of an image's features that engines and machines may differ by."""
    return _TOLERANCE.get(precision, _LOW_PRECISION_TOLERANCE)


def distance(before: np.ndarray, now: np.ndarray) -> float:
    """Return the largest relative L2 distance of one image's features; infinite for other shapes, nan for nan."""
    if before.shape != now.shape:
        return float("inf")
    before = before.reshape(len(before), -1).astype(np.float64)
    now = now.reshape(len(now), -1).astype(np.float64)
    norms = np.linalg.norm(before, axis=1)
    return float(np.max(np.linalg.norm(now - before, axis=1) / np.where(norms > 0, norms, 1)))
