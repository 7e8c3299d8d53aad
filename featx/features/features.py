"""`Features`: one table of features, or some of its rows, for those who fit and those who look."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from types import EllipsisType
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.errors import DataError
from featx.features.export import Export, export
from featx.features.nearest import Cosines, Searching
from featx.features.rows import (
    ArrayRows,
    ArrayTable,
    JoinedRows,
    PickedRows,
    Picks,
    find_items,
    in_order,
    row_numbers,
    shuffled,
)
from featx.recipe import Recipe, Request, Views
from featx.settings import keywords
from featx.store import Table, use_table
from featx.store.rows import Indices
from featx.targets import Targets

Selection = int | slice | Sequence[int] | Sequence[bool] | npt.NDArray[Any] | tuple[Any, EllipsisType]


class Features:
    """A table of features: rows ``X``, and for each row its label, id and split.

    Rows are read from the file when they are asked for, and no more of them than were asked for;
    what is returned belongs to the caller. Every block of a file is verified when first touched. A
    ``Features`` may be pickled (it then names its file), forked and used from several threads.

    Make one with `open`, `from_arrays` or ``featx.extract``.

    Parameters
    ----------
    table : Table or ArrayTable
        Where the rows are.
    rows : ndarray of int64, optional
        Which of them; all by default.

    Attributes
    ----------
    shape : tuple of int
        ``(n, d)`` or ``(n, c, h, w)``.
    dtype : numpy.dtype
        float32 or float16.

    Examples
    --------
    >>> t = Features.from_arrays(np.eye(4, dtype="float32"), [0, 1, 0, 1], splits=["train"] * 3 + ["test"])
    >>> t.shape, t[1].tolist(), t.select("test").y.tolist()
    ((4, 4), [0.0, 1.0, 0.0, 0.0], [1])
    >>> X_train, y_train = t.split("train")
    >>> X_train.shape, y_train.tolist()
    ((3, 4), [0, 1, 0])
    """

    def __init__(self, table: Table | ArrayTable, rows: Indices | None = None) -> None:
        self._table = table
        self._rows = rows
        self.shape: tuple[int, ...] = (len(table.rows) if rows is None else len(rows), *table.shape[1:])
        self.dtype = table.dtype

    @classmethod
    def open(cls, path: str | Path) -> Features:
        """Open the table at `path`, which counts as a use of it.

        Raises
        ------
        MissingDataError
            If there is none.
        DataError
            If it is a folder.
        CorruptFileError
            If it is damaged, or no table of featx.
        """
        if not isinstance(path, str | Path):
            raise DataError(
                f"A table is `Features` or the path of one, got {type(path).__name__}. "
                "Of arrays: Features.from_arrays(X, y); of some rows: table.select(rows)"
            )
        if Path(path).is_dir():
            raise DataError(f"{path} is a folder, not a table. Of the images in it: featx.extract({str(path)!r})")
        return cls(use_table(Path(path)))

    @classmethod
    def from_arrays(
        cls,
        X: npt.ArrayLike,
        y: npt.ArrayLike | None = None,
        *,
        ids: Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
        splits: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        items: Sequence[str] | None = None,
        slots: Sequence[str] | None = None,
        times: Sequence[float] | None = None,
        targets: npt.ArrayLike | None = None,
        target_names: Sequence[str] | None = None,
        task: str = "auto",
    ) -> Features:
        """Make a table in memory.

        Parameters
        ----------
        X : array-like, shape (n, …)
            Kept as it is if it is an array of float32 or float16, else converted to float32.
        y : array-like of int, shape (n,), optional
            Numbers of `classes`, -1 for unlabelled; all unlabelled by default.
        ids : sequence of str, optional
            ``"0"``, ``"1"``, … by default.
        classes : sequence of str, optional
            The numbers as text by default.
        splits : sequence of str, optional
            Empty for none.
        groups : sequence of str, optional
            What belongs together, such as patients: no split is drawn through a group. Empty for a row by itself.
        items, slots : sequence of str, optional
            Of what each row is one image of several, and as what: a fit has a row for each item.
        times : sequence of float, optional
            When each row was taken, NaN for unknown: the latest validate.
        targets : array-like of float, shape (n, t) or (n,), optional
            Several labels a row (0 and 1), or numbers, NaN for unlabelled; in place of `y`.
        target_names : sequence of str, optional
            What they are called: ``"0"``, ``"1"``, … by default.
        task : {"auto", "multilabel", "regress"}
            What `targets` are: labels where all are 0, 1 or NaN, else numbers, by default.

        Raises
        ------
        DataError
            If lengths differ, a label has no class, or there are both `y` and `targets`.
        """
        X = np.asarray(X)
        X = X if X.dtype in (np.float32, np.float16) else X.astype(np.float32)
        if X.ndim < 2:
            raise DataError(f"X must have the shape (n, d), got {X.shape}.")
        n = len(X)
        if y is not None and np.asarray(y).dtype.kind not in "iub":
            raise DataError(
                f"y holds numbers of classes, got {np.asarray(y).dtype}. Of names: "
                "classes, y = np.unique(names, return_inverse=True), and give both"
            )
        if y is not None and targets is not None:
            raise DataError("Rows have classes (y) or targets, not both. Leave out one of them.")
        given = None if targets is None else Targets.from_array(targets, target_names, task)
        labels = np.full(n, -1, np.int64) if y is None else np.asarray(y, np.int64)
        n_classes = int(labels.max(initial=-1)) + 1
        names = tuple(map(str, range(n_classes))) if classes is None else tuple(classes)
        table = ArrayTable(
            rows=ArrayRows(X),
            y=labels,
            ids=np.array([str(i) for i in range(n)] if ids is None else list(ids), dtype=str),
            classes=names,
            splits=np.array([""] * n if splits is None else list(splits), dtype=str),
            item_ids=np.zeros((n, 32), np.uint8),
            groups=_texts(groups, n),
            items=_texts(items, n),
            slots=_texts(slots, n),
            times=None if times is None else np.asarray(times, np.float64),
            targets=given,
        )
        lengths = {name: len(getattr(table, name)) for name in ("y", "ids", "splits", "groups", "items", "slots")}
        lengths |= {} if table.times is None else {"times": len(table.times)}
        lengths |= {} if given is None else {"targets": len(given)}
        for name, length in lengths.items():
            if length != n:
                raise DataError(f"X has {n:,} rows, {name} has {length:,}.")
        if n_classes > len(names) or labels.min(initial=0) < -1:
            raise DataError(
                f"Labels must be -1 or numbers of the {len(names)} classes, got {labels.min()} to {labels.max()}."
            )
        return cls(table)

    def __reduce__(self) -> tuple[type[Features], tuple[Any, ...]]:
        return type(self), (self._table, self._rows)  # the columns are in the file

    # Columns

    @cached_property
    def y(self) -> npt.NDArray[np.int64]:
        """Labels as numbers of `classes`, -1 where unlabelled, shape (n,)."""
        return self._column(self._table.y)

    @cached_property
    def ids(self) -> npt.NDArray[np.str_]:
        """Names of the rows, shape (n,)."""
        return self._column(self._table.ids)

    @cached_property
    def splits(self) -> npt.NDArray[np.str_]:
        """Split of each row, empty for none, shape (n,)."""
        return self._column(self._table.splits)

    @cached_property
    def groups(self) -> npt.NDArray[np.str_]:
        """Group of each row, empty for a row by itself, shape (n,)."""
        return self._column(self._table.groups)

    @cached_property
    def items(self) -> npt.NDArray[np.str_]:
        """Item of which each row is an image, empty for a row by itself, shape (n,)."""
        return self._column(self._table.items)

    @cached_property
    def slots(self) -> npt.NDArray[np.str_]:
        """What each row shows of its item, empty for nothing in particular, shape (n,)."""
        return self._column(self._table.slots)

    @cached_property
    def times(self) -> npt.NDArray[np.float64] | None:
        """When each row was taken, NaN for unknown, shape (n,); None where nobody said."""
        return None if self._table.times is None else self._column(self._table.times)

    @cached_property
    def given_targets(self) -> Targets | None:
        """The `targets` with their task and names; None where rows have classes."""
        given = self._table.targets
        return None if given is None else Targets(given.task, given.names, self._column(given.array))

    @property
    def targets(self) -> npt.NDArray[np.float32]:
        """Several labels (0, 1) or numbers a row, NaN for unlabelled, shape (n, t); (n, 0) where rows have classes."""
        given = self.given_targets
        return np.empty((len(self), 0), np.float32) if given is None else given.array

    @cached_property
    def item_ids(self) -> npt.NDArray[np.uint8]:
        """SHA-256 of what each row was made from, shape (n, 32)."""
        return self._column(self._table.item_ids)

    def _column(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return values.copy() if self._rows is None else values[self._rows]

    # What the whole table says

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self._table.classes

    @property
    def task(self) -> str:
        """What rows are labelled for: ``classify`` (`y`), ``multilabel`` or ``regress`` (`targets`)."""
        return "classify" if self._table.targets is None else self._table.targets.task

    @property
    def target_names(self) -> tuple[str, ...]:
        """What the columns of `targets` are called."""
        return () if self._table.targets is None else self._table.targets.names

    @property
    def errors(self) -> list[tuple[str, str]]:
        """Id and reason of each image that could not be read. These are not rows."""
        return self._table.errors

    @property
    def recipe(self) -> Recipe | None:
        """What made the rows; None for arrays of one's own, and for several `tables` side by side."""
        return Recipe.from_json(self._table.recipe) if self._table.recipe else None

    @property
    def request(self) -> Request | None:
        """What was asked for when the rows were made; None where there is no one `recipe`."""
        return Request.from_json(self._table.request) if self._table.request else None

    @property
    def key(self) -> str:
        """Key of the recipe, or of those of its `tables`; empty for arrays of one's own."""
        return self._table.key

    @property
    def tables(self) -> tuple[Features, ...]:
        """The tables that stand side by side in its rows, see `featx.join`; of any other table itself alone."""
        table = self._table
        if not isinstance(table, ArrayTable) or not table.blocks:
            return (self,)
        return tuple(Features(_of_block(table, block), self._rows) for block in table.blocks)

    @property
    def path(self) -> Path | None:
        """The file; None in memory, and for several side by side."""
        return self._table.path

    @property
    def dataset(self) -> str:
        """Name of the dataset: the folder of the file, empty in memory."""
        return self.path.absolute().parent.name if self.path else ""

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions, device, host and seconds of the run that made the file."""
        return self._table.provenance

    @property
    def probe(self) -> dict[str, npt.NDArray[Any]]:
        """What the built-in images gave on the machine that made the file."""
        return self._table.probe

    # Views

    @property
    def views(self) -> int:
        """How many views of each image there are, the plain one included: 1 where none were asked for."""
        return 1 + len(self._view_paths)

    @cached_property
    def augmentation(self) -> Views | None:
        """What the views are; None where there is but the plain one."""
        if not self._view_paths:
            return None
        view = Recipe.from_json(use_table(self._view_paths[0]).recipe).view
        return None if view is None else Views(n=self.views, augment=view.augment, seed=view.seed)

    @cached_property
    def _view_paths(self) -> list[Path]:
        folder = self.path.parent if self.path else Path()
        paths = (folder / name for name in self._table.views)
        return list(takewhile(Path.exists, paths))  # `featx cache gc` and `rm` may have taken some

    def view(self, number: int) -> Features:
        """Return the rows that have an augmented view of that number, as it makes them; view 0 is the table itself.

        Labels, ids and splits are those of this table, and so is the order.

        Raises
        ------
        DataError
            If there is no such view.
        """
        return self if number == 0 else Features(self._picked([self._picks(number)]))

    def all_views(self, n: int | None = None) -> tuple[Features, Indices]:
        """Return the rows of view 0, behind them those of view 1, and so on.

        Parameters
        ----------
        n : int, optional
            How many views, all by default.

        Returns
        -------
        features : Features
            Its first rows are those of this table.
        origin : ndarray of int64
            Of which row of this table each row is a view.

        Raises
        ------
        DataError
            If there are fewer views.
        """
        parts = [self._plain, *map(self._picks, range(1, n or self.views))]
        return Features(self._picked(parts)), np.concatenate([part.origin for part in parts])

    @property
    def _plain(self) -> Picks:
        everything = np.arange(len(self))
        return Picks(self._table, everything if self._rows is None else self._rows, everything)

    def _picks(self, number: int) -> Picks:
        if not 0 < number < self.views:
            raise DataError(
                f"The table has {self.views} views, view {number} is not among them. "
                f"Compute it: featx extract DATA --views {max(2, number + 1)} --augment SPEC"
            )
        return find_items(use_table(self._view_paths[number - 1]), self.item_ids, self._table.rows)

    def _picked(self, parts: list[Picks]) -> ArrayTable:
        """Return the rows of `parts` one behind another, with the labels that they have in this table."""
        origin, targets = np.concatenate([part.origin for part in parts]), self.given_targets
        return ArrayTable(
            rows=PickedRows(parts),
            y=self.y[origin],
            ids=self.ids[origin],
            classes=self.classes,
            splits=self.splits[origin],
            item_ids=self.item_ids[origin],
            groups=self.groups[origin],
            items=self.items[origin],
            slots=self.slots[origin],
            times=None if self.times is None else self.times[origin],
            targets=targets and targets.select(origin),
            key=self.key,
            recipe=self._table.recipe,
            request=self._table.request,
            provenance=self.provenance,
            probe=self.probe,
        )

    # Rows

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def X(self) -> npt.NDArray[Any]:  # noqa: N802 - the field's name for it
        """All rows, read anew at each access: keep it in a variable, or use `blocks` for less memory."""
        return self._take(np.arange(len(self)))

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Return all rows, so that whatever takes arrays takes a table."""
        if copy is False:
            raise ValueError("The rows of a table are in its file: an array of them is always a copy.")
        return self.X if dtype is None else self.X.astype(dtype, copy=False)

    def __getitem__(self, which: Selection) -> npt.NDArray[Any]:
        """Return one row (shape ``shape[1:]``) for an int, else rows in the order asked for."""
        if isinstance(which, tuple) and len(which) == 2 and which[1] is Ellipsis:
            which = which[0]  # as scikit-learn's splitters ask for rows
        if isinstance(which, int | np.integer):
            row: npt.NDArray[Any] = self._take(row_numbers([int(which)], len(self)))[0]
            return row
        return self._take(row_numbers(which, len(self)), mapped=True)

    def select(self, which: str | slice | Sequence[int] | Sequence[bool] | npt.NDArray[Any]) -> Features:
        """Return the rows of a split, or any rows by index or mask. Nothing is read.

        Raises
        ------
        DataError
            If no row is of that split.
        """
        indices = self._of_split(which) if isinstance(which, str) else row_numbers(which, len(self))
        return Features(self._table, indices if self._rows is None else self._rows[indices])

    def split(self, name: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Return ``X`` (shape (m, …)) and ``y`` (shape (m,)) of one split; `targets` where rows have them instead.

        Raises
        ------
        DataError
            If no row is of that split.
        """
        part = self.select(name)
        targets = part.given_targets
        return part.X, part.y if targets is None else targets.y

    def blocks(
        self,
        n_bytes: int = 64 << 20,
        *,
        shuffle: bool = False,
        seed: int | Sequence[int] = 0,
        in_place: bool = False,
    ) -> Iterator[tuple[Indices, npt.NDArray[Any]]]:
        """Yield all rows, once each, in blocks that fit in memory.

        Shuffled, the table is cut into pieces of up to 1 MiB of neighbouring rows. Each block takes
        pieces from anywhere in the table, and its rows are then permuted: reads stay long, and a
        table sorted by class still gives blocks of many classes.

        Parameters
        ----------
        n_bytes : int
            Size of a block, at least one row. No more than one block is held here.
        shuffle : bool
        seed : int or sequence of int
            Of the order, for example ``(seed, epoch)``.
        in_place : bool
            Yield rows that are only to be read, and lie in the mapped file where that can be: no memory is taken for
            them, and none is filled.

        Yields
        ------
        indices : ndarray of int64, shape (m,)
            Rows of this ``Features``: the labels are ``features.y[indices]``.
        X : ndarray, shape (m, …)
        """
        row_bytes = max(1, math.prod(self.shape[1:]) * self.dtype.itemsize)
        n_rows = max(1, n_bytes // row_bytes)
        for indices in shuffled(len(self), n_rows, row_bytes, seed) if shuffle else in_order(len(self), n_rows):
            yield indices, self._look(indices) if in_place else self._take(indices)

    def _look(self, indices: Indices) -> npt.NDArray[Any]:
        """Return rows that are only read: where they lie, if they lie one behind another."""
        rows = indices if self._rows is None else self._rows[indices]
        if len(rows) and (np.diff(rows) == 1).all():
            return self._table.rows.look(int(rows[0]), int(rows[-1]) + 1)
        return self._table.rows.take(rows, mapped=True)

    def _take(self, indices: Indices, *, mapped: bool = False) -> npt.NDArray[Any]:
        return self._table.rows.take(indices if self._rows is None else self._rows[indices], mapped=mapped)

    @cached_property
    def cosines(self) -> Cosines:
        """What holds a vector against every row; it remembers their lengths."""
        return Cosines(self)

    @keywords(Searching)
    def search(self, like: Any, how: Searching) -> Any:
        """Return the rows most like a photo, a row, or several: see `featx.search`.

        Parameters
        ----------
        like : str, int, path, PIL image, array, or a sequence of these
            The id of a row, its position, a photo, or features.
        {options}

        Returns
        -------
        Listing
        """
        import featx  # the face of the whole: photos become rows in rooms that know this one

        return featx.search(self, like, unlike=how.unlike, k=how.k)

    def _of_split(self, name: str) -> Indices:
        indices = np.flatnonzero(self.splits == name)
        if not len(indices):
            counts = ", ".join(f"{split or 'none'} ({count:,})" for split, count in self._split_counts().items())
            raise DataError(f"No rows of split {name!r}. Splits: {counts or 'none'}.")
        return indices

    def _split_counts(self) -> Counter[str]:
        return Counter(self.splits.tolist())

    @keywords(Export)
    def export(self, path: str | Path, how: Export) -> Path:
        """Write the table as ``.npz``, ``.parquet``, ``.csv`` or ``.h5``, a block at a time.

        Parameters
        ----------
        path : str or Path
            Replaced whole if it exists.
        {options}

        Raises
        ------
        OptionError
            If the name ends otherwise, or that format has no columns.
        """
        return export(self.whole(), Path(path), columns=how.columns)

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame` of all rows: ``id``, ``label``, ``y``, ``split``, and a column for each feature.

        The columns ``f0``, ``f1``, … are in memory, as `X` is.

        Raises
        ------
        MissingExtraError
            If pandas is not installed.
        """
        from featx.features.export import to_pandas

        return to_pandas(self.whole())

    def whole(self) -> ArrayTable:
        """Return the same rows as a table of their own, which reads them where they are."""
        table = replace(self._picked([self._plain]), errors=self.errors)
        blocks = self._table.blocks if isinstance(self._table, ArrayTable) else ()
        return replace(table, blocks=tuple(part if self._rows is None else part.select(self._rows) for part in blocks))

    def with_labels(self, y: npt.ArrayLike, classes: Sequence[str]) -> Features:
        """Return the same rows under other labels: numbers (n,) of `classes`, -1 for none."""
        table = replace(self.whole(), y=np.asarray(y, np.int64), classes=tuple(classes))
        return Features(replace(table, path=self.path, views=self._table.views))

    @property
    def view_names(self) -> list[str]:
        """Names of the tables beside this one that hold its augmented views."""
        return self._table.views

    @property
    def plain_table(self) -> ArrayTable:
        """The table in memory that these rows are of."""
        assert isinstance(self._table, ArrayTable)
        return self._table

    @property
    def whole_rows(self) -> Any:
        """What reads the rows of the whole table, of which these are those at `row_numbers`."""
        return self._table.rows

    @property
    def row_numbers(self) -> Indices:
        """Which rows of the whole table these are, shape (n,)."""
        return np.arange(len(self._table.rows)) if self._rows is None else self._rows

    def with_rows(self, rows: Any) -> Features:
        """Return the same rows of a table in memory, read by another reader."""
        table = self.plain_table
        blocks = tuple(rows.blocks) if table.blocks else ()
        return Features(replace(table, rows=rows, blocks=blocks), self._rows)

    @property
    def _labels_told(self) -> str:
        if self.task != "classify":
            return f"{self.task}: {', '.join(self.target_names[:5])}{', …' * (len(self.target_names) > 5)}"
        return f"{len(self.classes):,} classes" if self.classes else "unlabelled"

    def _repr_html_(self) -> str:
        """Show what the table holds in a notebook."""
        from featx.features.export import facts_html

        recipes = [table.recipe for table in self.tables if table.recipe]
        facts = [
            ("rows", " × ".join(f"{length:,}" for length in self.shape) + f" {self.dtype}"),
            ("splits", " · ".join(f"{name} {n:,}" for name, n in self._split_counts().items() if name)),
            ("classes", f"{len(self.classes):,}: {', '.join(self.classes[:10])}{', …' * (len(self.classes) > 10)}"),
            ("made by", ", ".join(f"{one.backbone} {one.layer} {one.pool}" for one in recipes) or "arrays"),
            ("errors", f"{len(self.errors):,}" if self.errors else ""),
            ("file", self.path or "in memory"),
        ]
        return facts_html("Features", facts)

    def __repr__(self) -> str:
        size = " × ".join(f"{length:,}" for length in self.shape)
        splits = " · ".join(f"{name} {count:,}" for name, count in self._split_counts().items() if name)
        parts = [
            f"{size} {self.dtype}",
            self._labels_told,
            splits,
            f"{len(self.errors):,} errors" if self.errors else "",
            str(self.path or "in memory"),
        ]
        return f"Features({', '.join(part for part in parts if part)})"


def _texts(values: Sequence[str] | None, n: int) -> npt.NDArray[np.str_]:
    return np.array([""] * n if values is None else list(map(str, values)), dtype=str)


def _of_block(table: ArrayTable, block: Features) -> ArrayTable:
    """Return the columns of one block of a join alone, with the names and labels of the join."""
    return replace(
        table,
        rows=JoinedRows([block]),
        key=block.key,
        recipe=block.recipe.to_json() if block.recipe else "",
        request=block.request.to_json() if block.request else "",
        probe=block.probe,
        provenance=block.provenance,
        path=block.path,
        blocks=(),
    )
