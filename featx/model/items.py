"""Items: tables of images as tables of what several of them are of, and what training rows teach of combining them."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from featx.datasets.splits import group_ids
from featx.errors import DataError, OptionError
from featx.features import Features
from featx.features.items import Combining, ItemRows
from featx.features.rows import ArrayTable, JoinedRows
from featx.model.attention import learn_attention
from featx.model.settings import COMBINATIONS
from featx.targets import Targets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray


#: What ``--combine`` takes beside the ways of `featx.features.items`.
AUTO, NONE = "auto", "none"


def choose_combining(table: Features, combine: str) -> Combining | None:
    """Return how the images of `table` become items as ``--combine`` says, not learned yet; None for images alone.

    Raises
    ------
    OptionError
        If the table has no items, or no slots, to combine.
    """
    has_items, has_slots = (table.items != "").any(), (table.slots != "").any()
    if combine == NONE or (combine == AUTO and not has_items):
        return None
    if not has_items:
        raise OptionError(
            f"--combine {combine} makes one row of the images of an item, and the table does not say which these are. "
            "Extract the images with: --item-column COLUMN"
        )
    how = ("slots" if has_slots else "mean") if combine == AUTO else combine
    if how not in COMBINATIONS:
        raise OptionError(f"--combine takes auto, none, {', '.join(COMBINATIONS)}; got {how!r}.")
    if how == "slots" and not has_slots:
        raise OptionError(
            "--combine slots puts images side by side by what they show, and the table does not say that. Extract the "
            "images with: --slot-column COLUMN"
        )
    slots = tuple(np.unique(table.slots[table.slots != ""]).tolist()) if how == "slots" else ()
    return Combining(how, slots)


def combining_of(table: Features) -> Combining | None:
    """Return how the rows of a table of items are made; None for a table of images."""
    ways = [part.combining for part, _ in _item_rows(table, np.arange(0))]
    return dataclasses.replace(ways[0], learned=tuple(known for way in ways for known in way.learned)) if ways else None


def first_images(table: Features) -> tuple[Features, list[NDArray[np.intp]]] | None:
    """Return the table of images that one of items is made of, and which are of each item; None for other tables."""
    part, rows = next(_item_rows(table, np.arange(len(table))), (None, np.arange(0)))
    if part is None:
        return None
    return part.images, [part.order[part.starts[row] : part.starts[row + 1]] for row in rows.tolist()]


def contents_of(table: Features, positions: NDArray[np.intp]) -> NDArray[np.uint8]:
    """Return the content hashes of some rows; of items also those of their images, without zeros."""
    images = first_images(table)
    if images is None:
        return table.item_ids[positions]
    members = np.concatenate([images[0].item_ids[images[1][row]] for row in positions.tolist()])
    found = np.concatenate([table.item_ids[positions], np.unique(members, axis=0)])
    return found[found.any(axis=1)]


def any_known(table: Features, known: Callable[[NDArray[np.uint8]], NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """Return for which rows `known` says yes to their content, or to that of one of the images of an item, (n,)."""
    images, found = first_images(table), known(table.item_ids)
    if images is not None:
        of_images = known(images[0].item_ids)
        found |= np.array([of_images[members].any() for members in images[1]], bool)
    return found


def _item_rows(table: Features, positions: NDArray[np.intp]) -> Iterator[tuple[ItemRows, NDArray[np.intp]]]:
    """Yield what reads the items of each block, and which of them the rows of `table` at `positions` are."""
    rows, reader = table.row_numbers[positions], table.whole_rows
    if isinstance(reader, ItemRows):
        yield reader, rows
    elif isinstance(reader, JoinedRows):
        for block in reader.blocks:
            yield from _item_rows(cast("Features", block), rows)


def as_items(table: Features, combining: Combining) -> Features:
    """Return a table with a row for each item of `table`, in the order in which they appear.

    Parameters
    ----------
    table : Features
        Of images; or of items already, which are combined anew.
    combining : Combining

    Raises
    ------
    DataError
        If images of one item have different labels or splits, or the table has no items.
    """
    if combining_of(table) is not None:
        return _combined_anew(table, iter(combining.learned or ()), combining)
    if not (table.items != "").any():
        raise DataError(
            "The model predicts items of several images, and the table does not say which belong together. Extract "
            "them with: --item-column COLUMN"
        )
    names = np.where(table.items == "", table.ids, table.items)
    slots = table.slots
    used = np.isin(slots, combining.slots) if combining.how == "slots" else np.ones(len(table), bool)
    _, first, item = np.unique(names, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    item, first = rank[item], np.sort(first)  # numbered as they appear
    rows = np.flatnonzero(used)
    order = rows[np.argsort(item[rows], kind="stable")]
    starts = np.searchsorted(item[order], np.arange(len(first) + 1))
    codes = np.searchsorted(combining.slots, slots[order]) if combining.how == "slots" else np.zeros(len(order), int)
    about = _columns(table, names[first], item, first)
    blocks = tuple(
        Features(
            ArrayTable(
                rows=ItemRows(part, order, starts, codes, combining.block(number)),
                key=part.key,
                recipe=part.recipe.to_json() if part.recipe else "",
                request=part.request.to_json() if part.request else "",
                provenance=part.provenance,
                probe=part.probe,
                errors=table.errors,
                **about,
            )
        )
        for number, part in enumerate(table.tables)
    )
    if len(blocks) == 1:
        return blocks[0]
    joined = dataclasses.replace(
        blocks[0].plain_table, rows=JoinedRows(blocks), key=table.key, recipe="", request="", probe={}, blocks=blocks
    )
    return Features(joined)


def _columns(table: Features, names: NDArray[Any], item: NDArray[np.intp], first: NDArray[np.intp]) -> dict[str, Any]:
    """Return what a table of items says beside its rows."""
    n, targets = len(first), table.given_targets

    def agreed(values: NDArray[Any], known: NDArray[np.bool_], what: Callable[[Any], str]) -> NDArray[Any]:
        found = values[first].copy()
        rows = np.flatnonzero(known)[::-1]
        found[item[rows]] = values[rows]  # that of the first image that has one
        apart = rows[values[rows] != found[item[rows]]]
        if len(apart):
            row = int(apart[-1])
            raise DataError(
                f"Item {str(names[item[row]])!r} has images of {what(found[item[row]])} and of {what(values[row])}. "
                "Give all images of an item one, or go by images: --combine none"
            )
        return found

    y = agreed(table.y, table.y >= 0, lambda label: f"class {table.classes[label]!r}")
    splits = agreed(table.splits, table.splits != "", lambda split: f"split {str(split)!r}")
    array = None
    if targets is not None:
        columns = [
            agreed(column, ~np.isnan(column), lambda value, name=name: f"{name} {value:g}")  # type: ignore[misc]
            for name, column in zip(targets.names, targets.array.T, strict=True)
        ]
        array = Targets(targets.task, targets.names, np.stack(columns, axis=1))
    times = None
    if table.times is not None:
        times = np.full(n, -np.inf)
        np.maximum.at(times, item, np.where(np.isnan(table.times), -np.inf, table.times))
        times[np.isneginf(times)] = np.nan
    return {
        "y": y,
        "ids": names,
        "classes": table.classes,
        "splits": splits,
        "targets": array,
        "times": times,
        "item_ids": _contents(table, item, n),
        "groups": _groups(table, names, item, first),
        "items": names,
        "slots": np.full(n, ""),
    }


def _contents(table: Features, item: NDArray[np.intp], n: int) -> NDArray[np.uint8]:
    """Return a hash of the images of each item and what they show, whatever their order; zeros without contents."""
    contents: list[list[bytes]] = [[] for _ in range(n)]
    for number, content, slot in zip(item.tolist(), table.item_ids, table.slots.tolist(), strict=True):
        contents[number].append(content.tobytes() + slot.encode())
    found = np.zeros((n, 32), np.uint8)
    if table.item_ids.any():
        for number, of_item in enumerate(contents):
            found[number] = np.frombuffer(hashlib.sha256(b"\0".join(sorted(of_item))).digest(), np.uint8)
    return found


def _groups(table: Features, names: NDArray[Any], item: NDArray[np.intp], first: NDArray[np.intp]) -> NDArray[np.str_]:
    """Return the group of each item: what its images have been given, and items that share an image are in one."""
    given = np.where(table.groups == "", names[item], table.groups)
    linked = group_ids(table.item_ids, given)
    _, number = np.unique(linked, axis=0, return_inverse=True)
    of_item = number.ravel()[first]
    several = np.bincount(of_item) > 1
    name = dict(zip(of_item[::-1].tolist(), given[first][::-1].tolist(), strict=True))
    return np.array([name[k] if several[k] else "" for k in of_item.tolist()], dtype=str)


def _combined_anew(table: Features, learned: Iterator[Any], combining: Combining) -> Features:
    return table.with_rows(_rows_anew(table.whole_rows, learned, combining))


def _rows_anew(rows: Any, learned: Iterator[Any], combining: Combining) -> Any:
    if isinstance(rows, ItemRows):
        known = next(learned, None)
        return rows.combined_by(dataclasses.replace(combining, learned=() if known is None else (known,)))
    return JoinedRows([_combined_anew(block, learned, combining) for block in rows.blocks])


def taught(
    table: Features,
    positions: NDArray[np.intp],
    labels: Callable[[NDArray[np.intp]], NDArray[Any]],
    task: str,
    seed: int,
) -> Features:
    """Return a table of items as its rows at `positions` teach to combine them; the same where nothing is to be taught.

    Parameters
    ----------
    table : Features
    positions : ndarray of int
        Training rows.
    labels : callable
        What heads learn of rows.
    task : str
        As `featx.targets.TASKS`.
    seed : int
    """
    combining = combining_of(table)
    if combining is None or combining.learned or not combining.learns:
        return table
    learned = []
    for part, of_rows in _item_rows(table, positions):
        if combining.how == "slots":
            learned.append({"fill": _means_of_slots(part, of_rows, len(combining.slots))})
        else:
            learned.append(learn_attention(part, of_rows, labels(positions), task, seed))
    return as_items(table, dataclasses.replace(combining, learned=tuple(learned)))


def _means_of_slots(part: ItemRows, rows: NDArray[np.intp], n_slots: int) -> NDArray[np.float32]:
    total, n = np.zeros((n_slots, part.images.shape[1])), np.zeros(n_slots)
    for some in part.blocks_of(rows):
        where, _ = part.members(some)
        np.add.at(total, part.codes[where], part.images[part.order[where]].astype(np.float64))
        n += np.bincount(part.codes[where], minlength=n_slots)
    return np.asarray(total / np.maximum(n, 1)[:, None], np.float32)


def combine_images(
    rows: NDArray[Any], widths: list[int], items: NDArray[Any], slots: NDArray[Any] | None, combining: Combining
) -> tuple[NDArray[Any], NDArray[np.float32], list[NDArray[np.intp]]]:
    """Return the names of items, their rows (k, e), and which images each is made of.

    Parameters
    ----------
    rows : ndarray, shape (n, d)
        Of images; those of NaN could not be made, and are left out.
    widths : list of int
        Columns of each block.
    items, slots : ndarray of str, shape (n,)
        Item of each image, and what it shows of it.
    combining : Combining
        Learned.

    Notes
    -----
    An item without any image that could be read has a row of NaN.
    """
    names, first, item = np.unique(items, return_index=True, return_inverse=True)
    order_of = np.argsort(first)
    item = np.argsort(order_of)[item]
    good = ~np.isnan(rows).any(axis=1)
    if combining.how == "slots":
        given = np.full(len(rows), "") if slots is None else slots
        good &= np.isin(given, combining.slots)
    there = np.unique(item[good])
    order = np.flatnonzero(good)[np.argsort(item[good], kind="stable")]
    starts = np.append(np.searchsorted(item[order], there), len(order))
    codes = np.searchsorted(combining.slots, given[order]) if combining.how == "slots" else np.zeros(len(order), int)
    X = rows[order].astype(np.float32, copy=False)
    blocks = np.split(X, np.cumsum(widths)[:-1], axis=1) if widths else [X]
    found = np.full((len(names), X.shape[1] * combining.times_wider), np.nan, np.float32)
    if len(there):
        found[there] = np.hstack([combining.block(k).rows(block, starts, codes) for k, block in enumerate(blocks)])
    members = [np.flatnonzero(item == k) for k in range(len(names))]
    return names[order_of], found, members
