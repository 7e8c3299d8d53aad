"""`Comparison`: the rows of a leaderboard, best first, and who is really better than whom."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.comparison.board import as_html, as_text
from featx.comparison.runs import Row
from featx.evaluate import mcnemar
from featx.files import write_whole
from featx.files.disk import explained

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: The file of a comparison in its folder.
FILE = "comparison.json"


@dataclass(frozen=True, eq=False)
class Comparison:
    """What a comparison came to.

    Attributes
    ----------
    rows : list of dict
        By validation accuracy, best first; rows that failed come last, with their ``error``. ``kind`` (frozen,
        finetune or scratch), ``backbone``, ``layer``, ``pool``, ``head``, ``image_size``, ``images_per_class``,
        ``train_accuracy``, ``val_accuracy``, ``test_accuracy`` (0–1), ``ci95`` (Wilson, of test where there is
        one, else of validation), ``extract_seconds`` (what the pass that gave these features cost when it ran;
        layers of one pass share it; null where the cache does not tell) and ``extract_seconds_now``,
        ``fit_seconds``, ``n_parameters`` (trained), ``settings``, ``mcnemar`` (p against the best on the same rows),
        ``history`` (an entry an epoch), ``model`` (path from `folder`). Of several ``seeds`` a row shows the run of
        median validation accuracy; ``val_range`` and ``test_range`` span all of them.
    data : dict
        Name, classes, and rows of each split.
    folder : Path or None
        Where models and ``comparison.json`` are; None if nothing was kept.
    """

    rows: list[dict[str, Any]]
    data: dict[str, Any]
    folder: Path | None = None

    @classmethod
    def judge(
        cls, rows: list[Row], truth: NDArray[np.int64], data: dict[str, Any], folder: Path | None = None
    ) -> Comparison:
        """Rank rows by validation accuracy, and test each against the best on the judged rows.

        Parameters
        ----------
        rows : list of Row
        truth : ndarray of int, shape (n,)
            Classes of the judged rows.
        """
        n_classes = len(data["classes"])
        ranked = sorted(rows, key=lambda row: -row.shown.val["accuracy"] if row.shown else 1.0)
        best = ranked[0].shown if ranked else None
        records = [row.to_dict(n_classes) for row in ranked]
        for row, record in zip(ranked, records, strict=True):
            record["mcnemar"] = None
            if best is not None and row.shown is not None and row.shown is not best:
                record["mcnemar"] = _p_value(truth, row.shown.predicted, best.predicted)
        return cls(records, data, folder)

    @property
    def best(self) -> dict[str, Any] | None:
        """The row of highest validation accuracy, the first of equals; None if all failed."""
        return next((row for row in self.rows if row["error"] is None), None)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form of ``featx compare``: ``rows``, ``best`` (one of them) and ``data``."""
        return {"rows": self.rows, "best": self.best, "data": self.data}

    def save(self) -> Path | None:
        """Write ``comparison.json`` into `folder` and return its path."""
        if self.folder is None:
            return None
        path = self.folder / FILE
        with explained("write", path):
            write_whole(path, json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False, indent=1))
        return path

    def __str__(self) -> str:
        shown = self._shown()
        lines = [as_text(shown), _legend(self.data)] if shown else []
        reasons = defaultdict(list)
        for row in self.rows:
            if row["error"]:
                reasons[row["error"]["message"]].append(_name(row))
        return "\n".join([*lines, *(f"Not done: {_several(names)}: {reason}" for reason, names in reasons.items())])

    def _repr_html_(self) -> str:
        return as_html(self._shown())

    def _shown(self) -> list[dict[str, Any]]:
        best = self.best
        return [row | {"is_best": row is best} for row in self.rows if row["error"] is None]


def _p_value(truth: NDArray[np.int64], predicted: list[int], best: list[int]) -> float | None:
    a, b = np.array(predicted), np.array(best)
    both = (a >= 0) & (b >= 0)
    return mcnemar(truth[both], a[both], b[both]).p_value if both.any() else None


def _legend(data: dict[str, Any]) -> str:
    judge = data["judged"]
    rows = f"{data[judge]:,} {'test' if judge == 'test' else 'validation'} rows"
    return f"* best on validation, which alone chooses. 95 % and p (McNemar, against the best): of the {rows}."


def _name(row: dict[str, Any]) -> str:
    words = [row["kind"], row["backbone"], row["layer"], row["pool"], row["head"]]
    return " ".join(filter(None, words))


def _several(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more"
