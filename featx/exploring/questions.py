"""Questions of the page, answered by rows and, for each, why: what is alike, next, doubtful, twice there, or odd."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featx.curation import duplicates, less_probable
from featx.curation.doubts import neighbour_labels
from featx.curation.suggest import differing
from featx.errors import DataError
from featx.features.nearest import direction, largest
from featx.model.report import Accuracy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from featx.exploring.session import Session

#: Unsure rows among which those that differ are taken, for each that is asked for.
_AMONG = 10
#: Rows that stand for all where oddness is measured, and how many of them are a row's neighbours.
_REFERENCES, _NEIGHBOURS = 1500, 5
_MOST = 2000


def alike(session: Session, like: Sequence[Any], unlike: Sequence[Any], k: int) -> dict[str, Any]:
    """Return the rows most like some and unlike others: numbers of rows, or ``{"photo": number}``.

    Raises
    ------
    DataError
        If nothing, or something unknown, is asked for.
    """
    if not like:
        raise DataError("Choose a row, or drop a photo in, to search for what is like it.")
    vectors = [[_vector(session, one) for one in side] for side in (like, unlike)]
    cosines = session.table.cosines.to(direction(*vectors))
    named = [one for one in (*like, *unlike) if isinstance(one, int)]
    cosines[named] = -np.inf
    found = largest(cosines, min(k, _MOST, len(cosines) - len(set(named))))
    return {"rows": found.tolist(), "why": [f"{100 * cosine:.1f} % alike" for cosine in cosines[found].tolist()]}


def next_to_label(session: Session, n: int) -> dict[str, Any]:
    """Return unlabelled rows that teach most: unsure ones that are unlike one another; at the start, ones for all."""
    pool = np.flatnonzero((session.y < 0) & ~session.held_out)
    if not len(pool):
        return {"rows": [], "why": [], "note": "Every image that may teach has a label."}
    p, random = session.head.probabilities, np.random.default_rng(session.revision)
    if not p.shape[1]:
        drawn = np.sort(random.permutation(pool)[: max(600, 4 * n)])
        chosen = drawn[differing(session.table, drawn, np.ones(len(drawn)), n, random)]
        note = "Nothing is learned yet: these stand for all. Label some of two classes or more."
        return {"rows": chosen.tolist(), "why": [""] * len(chosen), "note": note}
    two = np.sort(p[pool], axis=1)[:, -2:].astype(np.float64)
    margin = two[:, 1] - two[:, 0]
    unsure = np.argsort(margin, kind="stable")[: _AMONG * n]
    chosen = unsure[differing(session.table, pool[unsure], 1 - margin[unsure], n, random)]
    chosen = chosen[np.argsort(margin[chosen], kind="stable")]
    best = np.argsort(-p[pool[chosen]], axis=1)[:, :2]
    why = [
        f"{session.classes[a]} {100 * p[row, a]:.0f} % or {session.classes[b]} {100 * p[row, b]:.0f} %"
        for row, (a, b) in zip(pool[chosen].tolist(), best.tolist(), strict=True)
    ]
    return {"rows": pool[chosen].tolist(), "why": why}


def doubted(session: Session, n: int) -> dict[str, Any]:
    """Return labelled rows that look wrong and that nobody has labelled or kept here, the most doubtful first."""
    p, y = session.head.honest, session.y
    rows = np.flatnonzero((y >= 0) & (y < p.shape[1]) & ~session.touched)
    found = rows[less_probable(y[rows], p[rows].astype(np.float64))] if len(rows) and p.shape[1] else rows[:0]
    n_all, found = len(found), found[:n]
    likely = p[found].argmax(axis=1) if len(found) else np.empty(0, np.intp)
    among = np.flatnonzero(y >= 0)
    votes = neighbour_labels(session.table.with_labels(y, session.classes), among, np.searchsorted(among, found))
    names, why = session.classes, []
    for row, guess, near in zip(found.tolist(), likely.tolist(), votes, strict=True):
        of_label, of_guess = int((near == y[row]).sum()), int((near == guess).sum())
        why.append(
            f"rather {names[guess]}, {100 * p[row, guess]:.0f} %; of {int((near >= 0).sum())} neighbours "
            f"{of_guess} are {names[guess]}, {of_label} {names[y[row]]}"
        )
    note = f"{n_all:,} labels look wrong." if n_all else "No label looks wrong."
    return {"rows": found.tolist(), "why": why, "likely": likely.tolist(), "note": note}


def twice_there(session: Session, near: float) -> dict[str, Any]:
    """Return images that are nearly the same, cluster by cluster, those that stand in two splits first."""
    found = duplicates(session.table.with_labels(session.y, session.classes), near=near)
    splits = session.table.splits[found.rows].tolist()
    why = [
        f"cluster {cluster:,}{f' · {split}' if split else ''} · {100 * similarity:.1f} %"
        for cluster, split, similarity in zip(
            found.columns["cluster"], splits, found.columns["similarity"], strict=True
        )
    ]
    notes = found.notes or (f"{found.facts['clusters']:,} clusters.",)
    return {"rows": found.rows[:_MOST].tolist(), "why": why[:_MOST], "note": " ".join(notes)}


def odd(session: Session, n: int) -> dict[str, Any]:
    """Return the rows that are least like any others: the mean cosine of their five nearest among 1,500 drawn rows."""
    table = session.table
    drawn = np.sort(np.random.default_rng(0).permutation(len(table))[:_REFERENCES])
    R = np.asarray(table[drawn].reshape(len(drawn), -1), np.float32)
    R /= np.maximum(np.linalg.norm(R, axis=1, keepdims=True), 1e-30)
    k, found = min(_NEIGHBOURS + 1, len(drawn)), np.empty(len(table), np.float32)
    place = np.full(len(table), -1, np.intp)
    place[drawn] = np.arange(len(drawn))
    for where, block in table.blocks(8 << 20, in_place=True):
        X = np.asarray(block.reshape(len(block), -1), np.float32)
        cosines = (X @ R.T) / np.maximum(np.linalg.norm(X, axis=1), 1e-30)[:, None]
        own = np.flatnonzero(place[where] >= 0)
        cosines[own, place[where[own]]] = -1
        found[where] = np.partition(cosines, -k, axis=1)[:, -k:].mean(axis=1)
    rows = np.argsort(found, kind="stable")[:n]
    return {"rows": rows.tolist(), "why": [f"{100 * found[row]:.0f} % like its nearest" for row in rows.tolist()]}


def slices(session: Session, name: str) -> dict[str, Any]:
    """Return accuracy by the values of a column, the worst first.

    Raises
    ------
    DataError
        If there is no such column.
    """
    codes, values = column_codes(session, name)
    y, guess = session.y, session.prediction()
    rows = []
    for code, value in enumerate(values):
        mine = np.flatnonzero((codes == code) & (y >= 0) & (guess >= 0))
        if len(mine):
            found = Accuracy.of(guess[mine] == y[mine], session.groups[mine])
            low, high = found.ci95
            wrong = mine[guess[mine] != y[mine]][:_MOST].tolist()
            rows.append({"value": value, "n": len(mine), "accuracy": found.value, "low": low, "high": high} |
                        {"wrong": wrong})  # fmt: skip
    return {"slices": sorted(rows, key=lambda row: row["accuracy"])}


def column_codes(session: Session, name: str) -> tuple[NDArray[Any], list[str]]:
    """Return the values of a column, of the table or of what is learned, as numbers (n,) of a list.

    Raises
    ------
    DataError
        If there is none of that name.
    """
    if name == "label":
        return session.y, session.classes
    if name == "prediction":
        return session.prediction(), session.classes
    if name not in session.columns:
        raise DataError(f"There is no column {name!r}.")
    column = session.columns[name]
    return column.codes, column.values


def _vector(session: Session, what: Any) -> NDArray[Any]:
    if isinstance(what, dict) and 0 <= what.get("photo", -1) < len(session.photos):
        return session.photos[what["photo"]]
    if isinstance(what, int) and 0 <= what < len(session.table):
        return session.table[what]
    raise DataError("Search by numbers of rows, or by photos that were dropped in.")
