"""Hold this machine against the rows that are already there, before any are added."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np

from featx import probe
from featx.images import prepare

if TYPE_CHECKING:
    from featx.engines import Engine
    from featx.recipe import Recipe
    from featx.store import Store

    Probe = dict[str, np.ndarray]


def check_probes(store: Store, recipes: list[Recipe], engine: Engine) -> None:
    """Measure the probe, compare it with what the rows of `recipes` were computed with, and keep it for the next run.

    Raises
    ------
    ProbeError
        If this machine would compute other pixels or other features.
    """
    measured = probe.measure(prepare, engine, recipes[0].frame)
    for recipe, now in zip(recipes, measured, strict=True):
        before = stored_probe(store, recipe)
        if before is None:
            store.put_note(_note(recipe), {name: _encode(array) for name, array in now.items()})
        else:
            probe.compare(before, now, recipe.precision)


def stored_probe(store: Store, recipe: Recipe) -> Probe | None:
    """Return the probe that rows of `recipe` in this cache were computed with, None if there is none yet."""
    note = store.note(_note(recipe))
    if note is not None:
        return {name: _decode(entry) for name, entry in note.items()}
    for table in store.tables():
        if table.key == recipe.key and table.probe:
            return dict(table.probe)
    return None


def _note(recipe: Recipe) -> str:
    return f"probe-{recipe.key}"


def _encode(array: np.ndarray) -> dict[str, Any]:
    data = base64.b85encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"dtype": array.dtype.str, "shape": list(array.shape), "data": data}


def _decode(entry: dict[str, Any]) -> np.ndarray:
    flat = np.frombuffer(base64.b85decode(entry["data"]), dtype=entry["dtype"])
    return flat.reshape(entry["shape"])


def forget_probe(store: Store, recipe: Recipe) -> None:
    """Forget what the rows of `recipe` were computed with, once none of them are left."""
    store.drop_note(_note(recipe))
