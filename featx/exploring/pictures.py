"""`Pictures`: the images of rows, small ones on pages of 256, made in processes of their own and kept on disk."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.datasets import item_id
from featx.errors import ImageError
from featx.files.atomic import write_whole
from featx.images.pool import DecodePool
from featx.recipe import Frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from featx.datasets import Dataset
    from featx.features import Features

#: Pictures along a side of a page, their own side in pixels, and that of one looked at by itself.
ACROSS, SIDE, LARGE = 16, 80, 512
PER_PAGE = ACROSS * ACROSS
#: Tables whose pages are kept on disk: those looked at last.
_KEPT_TABLES = 8
_GREY = 128


class Pictures:
    """Images of the rows of a table, believed only if their content is the row's.

    Parameters
    ----------
    table : Features
    dataset : Dataset or None
        Where the images are; nowhere, and every picture is missing.
    order : ndarray of int, shape (n,)
        Rows as they stand on the pages: neighbours on the map share one.
    folder : path, optional
        Where pages are kept; below the user's cache directory by default, nowhere if there is none.
    """

    def __init__(
        self, table: Features, dataset: Dataset | None, order: NDArray[np.intp], folder: Path | None = None
    ) -> None:
        self._dataset, self._order = dataset, order
        self._items, self._ids = table.item_ids, table.ids
        place = {name: i for i, name in enumerate(dataset.ids)} if dataset is not None else {}
        self._place = np.array([place.get(name, -1) for name in self._ids.tolist()], np.intp)
        root = _cache_folder() if folder is None else folder
        digest = hashlib.sha256(np.ascontiguousarray(self._items[order]).tobytes() + b"%d" % SIDE).hexdigest()
        self._folder = root / digest[:24] if root is not None and self._items.any() else None
        self._locks = {side: threading.Lock() for side in (SIDE, LARGE)}
        self._pools: dict[int, DecodePool] = {}
        if self._folder is not None:
            _keep_latest(self._folder)

    @property
    def n_pages(self) -> int:
        """How many pages there are."""
        return -(-len(self._order) // PER_PAGE)

    def page(self, number: int) -> bytes:
        """Return a page of 16 × 16 small pictures as a JPEG; grey where there is none."""
        path = None if self._folder is None else self._folder / f"{number:05}.jpg"
        if path is not None and path.exists():
            with contextlib.suppress(OSError):
                return path.read_bytes()
        with self._locks[SIDE]:
            if path is not None and path.exists():
                return path.read_bytes()
            rows = self._order[number * PER_PAGE : (number + 1) * PER_PAGE].tolist()
            sheet = np.full((ACROSS * SIDE, ACROSS * SIDE, 3), _GREY, np.uint8)
            made = self._decoded(rows, SIDE, "crop")
            for at, row in enumerate(rows):
                if row in made:
                    y, x = SIDE * (at // ACROSS), SIDE * (at % ACROSS)
                    sheet[y : y + SIDE, x : x + SIDE] = made[row]
            data = _jpeg(sheet)
            if path is not None and made:
                with contextlib.suppress(OSError):  # a full disk costs time alone
                    write_whole(path, data)
        return data

    def large(self, row: int) -> bytes:
        """Return the image of one row, fitted to 512 × 512, as a JPEG.

        Raises
        ------
        ImageError
            If it is gone, cannot be read, or is another now.
        """
        with self._locks[LARGE]:
            made = self._decoded([row], LARGE, "pad")
        if row not in made:
            raise ImageError("The image is gone, cannot be read, or is another than the row was made of.")
        return _jpeg(made[row], 88)

    def close(self) -> None:
        """End the decoding processes."""
        for side, lock in self._locks.items():
            with lock:
                pool = self._pools.pop(side, None)
                if pool is not None:
                    pool.close()

    def _decoded(self, rows: Sequence[int], side: int, resize: str) -> dict[int, NDArray[np.uint8]]:
        wanted = {int(self._place[row]): row for row in rows if self._place[row] >= 0}
        if not wanted or self._dataset is None:
            return {}
        read: list[tuple[int, Any]] = []
        for index, data in self._dataset.iterate(sorted(wanted)):
            row = wanted[index]
            if not isinstance(data, ImageError) and item_id(data) == self._items[row].tobytes():
                read.append((row, data))
        if side not in self._pools:
            shorter, workers = (side, max(1, min(2, os.cpu_count() or 1))) if side == SIDE else (0, 1)
            how: Any = {"resize": resize, "shorter": shorter, "interpolation": "bilinear", "background": (_GREY,) * 3}
            frame = Frame(height=side, width=side, **how)
            self._pools[side] = DecodePool(frame, n_workers=workers, n_images=1)
        decoded = self._pools[side].map(read)
        return {row: pixels for row, pixels in decoded if not isinstance(pixels, ImageError)}


def _jpeg(pixels: NDArray[np.uint8], quality: int = 80) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


def _cache_folder() -> Path | None:
    from featx.engines.kept import folder

    networks = folder()
    return None if networks is None else networks.parent / "thumbnails"


def _keep_latest(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        others = sorted(folder.parent.iterdir(), key=lambda one: -one.stat().st_mtime)
        for old in others[_KEPT_TABLES:]:
            shutil.rmtree(old, ignore_errors=True)
