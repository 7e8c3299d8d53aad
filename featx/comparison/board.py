"""A leaderboard as text that fits a terminal, and as HTML for a notebook."""

from __future__ import annotations

import html
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]


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
    Column("kind", lambda row: row["kind"], is_number=False),
    Column("backbone", lambda row: row["backbone"], is_number=False),
    Column("layer", lambda row: row["layer"] or "", is_number=False),
    Column("pool", lambda row: row["pool"] or "", 11, is_number=False),
    Column("head", lambda row: row["head"], is_number=False),
    Column("pixels", lambda row: str(row["image_size"] or ""), 8),
    Column("a class", lambda row: f"{row['images_per_class']:,}" if row["images_per_class"] else ""),
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
