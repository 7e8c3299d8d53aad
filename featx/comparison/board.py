"""A leaderboard: what its rows are called, as text that fits a terminal, and as HTML for a notebook."""

from __future__ import annotations

import html
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]

#: The ways to a classifier, cheapest first, in words.
WAYS = {"frozen": "frozen", "scratch": "from scratch", "finetune": "fine-tuned"}
_HEADS = {
    "logreg": "logistic regression",
    "logreg-cv": "logistic regression",
    "mlp": "dense network",
    "xgboost": "boosted trees",
    "knn": "nearest neighbours",
    "ridge": "ridge regression",
    "lda": "linear discriminant",
    "centroid": "nearest class mean",
    "svm": "support vector machine",
    "attentive": "learned queries",
    "conv": "convolutional network",
}


#: Ways to a row that go without saying.
_USUAL = (None, "auto", "avg")


def names_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the rows of a board are called: layers are named only of backbones that are compared at several."""
    taps: dict[Any, set[Any]] = defaultdict(set)
    for row in rows:
        if row.get("kind") == "frozen":
            taps[row.get("backbone")].add((row.get("layer"), row.get("pool")))
    return [name_of(row, tap=len(taps[row.get("backbone")]) > 1) for row in rows]


def name_of(row: Mapping[str, Any], *, tap: bool = True) -> str:
    """Return what a row, or a model as one, is called; whoever reads it need not know how featx calls its parts.

    Parameters
    ----------
    row : mapping
        As in `Comparison.rows`.
    tap : bool
        Whether to name the layer of a frozen backbone, and what makes a row of it.

    Examples
    --------
    >>> name_of({"kind": "frozen", "backbone": "vgg16", "layer": "block3_pool", "head": "mlp", "images_per_class": 50})
    'vgg16 frozen at block3_pool, dense network, 50 images a class'
    >>> name_of({"kind": "scratch", "backbone": "scratch/leaky", "head": "its own layers"})
    'leaky from scratch'
    """
    kind, layer, pool, n = (row.get(key) for key in ("kind", "layer", "pool", "images_per_class"))
    words = [_network(row), WAYS.get(str(kind), kind)]
    if kind == "frozen" and tap:
        words += [f"at {layer}" if layer not in (None, "default") else "", f"({pool})" if pool not in _USUAL else ""]
    parts = [" ".join(filter(None, words)), head_of(row), f"{n:,} image{'s' * (n != 1)} a class" if n else ""]
    return ", ".join(filter(None, parts))


def head_of(row: Mapping[str, Any]) -> str:
    """Return the head of a row in words; of a network that trains, layers that were asked for and no others."""
    head = str(row.get("head") or "")
    if row.get("kind") == "frozen":
        return _HEADS.get(head, head)
    return f"new {head}" if head.startswith("layers ") else ""


def _network(row: Mapping[str, Any]) -> str:
    return str(row.get("backbone") or "").removeprefix("scratch/")


@dataclass(frozen=True)
class Column:
    """One column: its title, the cell of a row, and how soon it goes where there is no room.

    0 goes only where all rows say the same in it, and those go first; -1 never goes.
    """

    title: str
    cell: Callable[[Record], str]
    goes: int = 0
    is_number: bool = True


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _interval(shares: list[float] | None) -> str:
    return "" if shares is None else f"{100 * shares[0]:.1f}–{100 * shares[1]:.1f}"


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:,.1f} s"


def _p(p: float | None) -> str:
    return "" if p is None else "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


COLUMNS = (
    Column("", lambda row: "*" if row["is_best"] else "", -1, is_number=False),
    Column("training", lambda row: WAYS[row["kind"]], is_number=False),
    Column("backbone", _network, is_number=False),
    Column("layer", lambda row: row["layer"] or "", is_number=False),
    Column("pool", lambda row: row["pool"] or "", 11, is_number=False),
    Column("head", head_of, is_number=False),
    Column("pixels", lambda row: str(row["image_size"] or ""), 8),
    Column("per class", lambda row: f"{row['images_per_class']:,}" if row["images_per_class"] else ""),
    Column("lr", lambda row: f"{row['settings']['lr']:g}" if "lr" in row["settings"] else "", 10),
    Column("epochs", lambda row: str(len(row["history"].get("loss", "")) or ""), 9),
    Column("train %", lambda row: _percent(row["train_accuracy"]), 7),
    Column("val %", lambda row: _percent(row["val_accuracy"]), -1),
    Column("of seeds", lambda row: _interval(row["val_range"]) if len(row["seeds"]) > 1 else "", 3),
    Column("test %", lambda row: _percent(row["test_accuracy"]), -1),
    Column("95 %", lambda row: _interval(row["ci95"]), 1),
    Column("p", lambda row: _p(row["mcnemar"]), 2),
    Column("parameters", lambda row: f"{row['n_parameters']:,}" if row["n_parameters"] else "", 6),
    Column("extract", lambda row: _seconds(row["extract_seconds"]), 5),
    Column("fit", lambda row: _seconds(row["fit_seconds"]), 4),
)


def as_text(rows: list[Record], width: int | None = None) -> str:
    """Lay out `rows`, dropping columns that do not fit.

    Parameters
    ----------
    rows : list of dict
        Rows of `Comparison.rows`, in the order to show, with ``is_best``.
    width : int, optional
        Columns of the terminal; its own by default.
    """
    width = width or shutil.get_terminal_size().columns
    columns = _filled(rows)
    while sum(map(max, _widths(rows, columns))) + 2 * (len(columns) - 1) > width:
        spare = max(columns, key=lambda column: _spare(rows, column))
        if not _spare(rows, spare):
            break
        columns.remove(spare)
    widths = [max(lengths) for lengths in _widths(rows, columns)]
    lines = [[column.title for column in columns], *([column.cell(row) for column in columns] for row in rows)]
    return "\n".join(_line(cells, widths, columns) for cells in lines)


def as_html(rows: list[Record]) -> str:
    """Return `rows` as a table; everything in it is escaped."""
    columns = _filled(rows)
    head = "".join(f"<th>{html.escape(column.title)}</th>" for column in columns)
    body = ["".join(f"<td>{html.escape(column.cell(row))}</td>" for column in columns) for row in rows]
    lines = "".join(f"<tr>{cells}</tr>" for cells in body)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


def _filled(rows: list[Record]) -> list[Column]:
    """Return the columns in which any row has something to say."""
    return [column for column in COLUMNS if any(column.cell(row) for row in rows)]


def _spare(rows: list[Record], column: Column) -> int:
    """Return how soon a column goes: those that say the same of all rows before all others; 0 stays."""
    same = column.goes >= 0 and len({column.cell(row) for row in rows}) == 1
    return len(COLUMNS) if same else max(0, column.goes)


def _widths(rows: list[Record], columns: list[Column]) -> list[list[int]]:
    return [[len(column.title), *(len(column.cell(row)) for row in rows)] for column in columns]


def _line(cells: list[str], widths: list[int], columns: list[Column]) -> str:
    places = zip(cells, widths, columns, strict=True)
    return "  ".join(cell.rjust(w) if column.is_number else cell.ljust(w) for cell, w, column in places).rstrip()
