"""`Model`: a recipe, a scaling step, a fitted head and its classes; from image files to labels, and from files."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import DataError, OptionError
from featx.extraction.options import ComputeOptions
from featx.model.inputs import ImageRows, described, in_one_pass, inputs_of, loadable_requests
from featx.model.items import as_items, combine_images, first_images
from featx.model.parameters import count_parameters
from featx.model.predictions import Predictions, check_thresholds, readable
from featx.model.saving import ModelParts, read, write
from featx.model.scores import relative_scores
from featx.model.settings import Classify, Loading, Predict, Saving, Thresholds, Top
from featx.model.target_predictions import LabelPredictions, NumberPredictions, answers
from featx.settings import keywords, part_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

    from numpy.typing import NDArray

    from featx.features import Features
    from featx.recipe import Frame, Request

    Floats = NDArray[np.float64]

#: A table is scaled and predicted this much at a time, in bytes.
BLOCK_BYTES = 64 << 20


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Model(ModelParts):
    """A classifier of images that remembers how its features are made.

    Made by `featx.fit` and `featx.load`.

    Attributes
    ----------
    head : classifier
        Fitted on class indices, on scaled rows.
    head_name : str
        As the user called it: ``mlp``.
    classes : tuple of str
        Names of the classes.
    scaler : FeatureScaler
        The step before the head, learned on the training rows.
    calibration : Calibration
        From the head's scores to probabilities, fitted on the validation rows.
    ood : OODScore, Vote or None
        How far from the training rows others lie; None where there were too few to tell.
    inputs : tuple of Input
        How rows are made from images, a block of columns each; none for a model of rows that came from elsewhere.
    report : FitReport
        What the fit came to; also reads as the JSON form of ``featx fit``: ``report["val"]["accuracy"]``.
    trained_on, chosen_on : ndarray of uint8, shape (n, 32)
        Content hashes of the training and of the validation rows.
    network : Network or None
        The weights of the backbone, if they travel with the model.
    views : Views or None
        The augmented views it was fitted on, which ``tta=True`` averages over.
    items : Combining or None
        How the rows of several images become that of their item, for a model of items.
    outputs : Outputs or None
        Names, thresholds and margins of the labels or numbers that it predicts in place of classes, which are none.
    """

    def table(self) -> Features | None:
        """Return the table that the head was fitted on; None if that is not there any more."""
        from featx.features import Features, join

        paths = self.report.tables or [self.report.table or ""]
        if not all(path and Path(path).exists() for path in paths):
            return None
        table = join([Features.open(path) for path in paths])
        return table if not self.inputs or table.key == self.key else None

    @keywords(Classify)
    def classify(self, source: Any, how: Classify) -> Predictions | LabelPredictions | NumberPredictions:
        """Predict images or a table, with a reason for every row that cannot be predicted.

        What comes back is of classes, labels or numbers, as the model is.

        Parameters
        ----------
        source : Features, path, sequence of paths or PIL images, uint8 array (n, h, w[, c]), or Dataset
            A table of the model's own recipe (`featx.Features` or the path of an ``.h5`` file), a list of the tables
            that it was fitted on side by side, or anything that `featx.extract` takes.
        {options}
        cache : path-like, optional
            A cache folder, whose rows of these images are read instead of computed. Nothing is written.

        Raises
        ------
        DataError
            If a table was made by another recipe, or has no views to average over.
        OptionError
            If `tta` is set, and the model was fitted without views.
        ProbeError
            If this machine computes other features than the one the model was fitted on.
        """
        from featx.features import joined_if_tables

        check_thresholds(how, self.columns, self.outputs, known=self.ood is not None)
        table = joined_if_tables(source)
        if table is not None:
            table = self._matching(table)
            table, members = self.rows_for(table), None
            if self.items is not None and (images := first_images(table)) is not None:
                members = tuple(tuple(images[0].ids[rows].tolist()) for rows in images[1])
            probabilities, familiarity = self._predict_table(table, tta=how.tta)
            ids = tuple(table.ids)
            reasons: dict[int, str] = {}
        else:
            ids, probabilities, familiarity, reasons, members = self._predict_images(source, how)
        found: dict[str, Any] = {
            "ids": ids,
            "images": members,
            "errors": reasons,
            "familiarity": None if self.ood is None else familiarity,
            **vars(part_of(Thresholds, how)),
        }
        if self.outputs is not None:
            kind = LabelPredictions if self.outputs.task == "multilabel" else NumberPredictions
            return kind(outputs=self.outputs, array=probabilities, **found)
        return Predictions(classes=self.classes, probabilities=probabilities, **found)

    @keywords(Predict)
    def predict(self, source: Any, how: Predict) -> NDArray[Any]:
        """Return the label of each row, object array of shape (n,); None where the model abstains.

        Of a model of several labels it is a tuple of those that each row has; of one of numbers these, float64 of shape
        (n,) or, of several, (n, t), NaN where the model abstains.

        Parameters
        ----------
        source
            Images or a table, as `classify` takes them.
        errors : {"raise", "mask"}
            What to do about images that cannot be read: say which and why, or return a masked array
            (`numpy.ma.MaskedArray`) that leaves them out. `classify` tells the reason of each.
        {options}
        cache : path-like, optional
            As in `classify`.

        Raises
        ------
        DataError
            If an image cannot be read, unless they are to be masked; and whatever `classify` raises.
        """
        found = self.classify(source, **vars(part_of(Classify, how)))
        return answers(found, how.errors)

    @keywords(Predict)
    def predict_proba(self, source: Any, how: Predict) -> NDArray[np.float64]:
        """Return probabilities, float64 of shape (n, k), columns in the order of `columns`. See `predict`."""
        found = self.classify(source, **vars(part_of(Classify, how)))
        if isinstance(found, NumberPredictions):
            raise OptionError("This model predicts numbers, which have no probabilities: model.predict(source)")
        return readable(found, found.array if isinstance(found, LabelPredictions) else found.probabilities, how.errors)

    @keywords(Top)
    def top(self, source: Any, how: Top) -> list[list[tuple[str, float]]]:
        """Return the `k` most probable (label, probability) of each row, best first. See `classify`."""
        found = self.classify(source, **vars(part_of(Classify, how)))
        if isinstance(found, NumberPredictions):
            raise OptionError("This model predicts numbers, of which there are no guesses: model.predict(source)")
        return found.top(how.k)

    @property
    def frames(self) -> tuple[Frame, ...]:
        """What images are fitted to for its networks, each frame once.

        Raises
        ------
        OptionError
            If it is a model of rows of one's own.
        """
        self._check_images()
        return self._row_maker.frames

    @keywords(ComputeOptions)
    def answers(self, pixels: Sequence[NDArray[np.uint8]], how: ComputeOptions) -> tuple[Floats, Floats | None]:
        """Return what it says of images that are decoded and fitted already: for services, which ask again and again.

        Parameters
        ----------
        pixels : sequence of ndarray of uint8, shape (n, height, width, 3)
            The same images for each of `frames`.
        {options}

        Returns
        -------
        said : ndarray of float64, shape (n, k)
            Probabilities or numbers, columns in the order of `columns`.
        familiarity : ndarray of float64, shape (n,), or None
            As of `featx.Predictions`.
        """
        from featx.extraction import Options

        rows = self._row_maker.of_pixels(pixels, Options(**vars(how)))
        said, familiarity = self._predict_rows(rows)
        return said, None if self.ood is None else familiarity

    def extract_options(self) -> dict[str, Any]:
        """Return the options of ``featx extract`` that make a table for this model, none if it has no recipe."""
        return {f.name: getattr(self.request, f.name) for f in dataclasses.fields(self.request)} if self.request else {}

    @property
    def made_of(self) -> str:
        """Backbone, layer and pooling of each input; empty for rows of one's own."""
        recipes = [made.recipe for made in self.inputs]
        return ", ".join(f"{recipe.backbone} {recipe.layer} {recipe.pool}" for recipe in recipes)

    @property
    def n_parameters(self) -> int:
        """Number of values that the head has learned; see `count_parameters`."""
        return count_parameters(self.head)

    @keywords(Saving)
    def save(self, path: str | Path, how: Saving) -> Path:
        """Write the model to a file and return its path. Equal fits give equal bytes.

        Parameters
        ----------
        path : path-like
            Where to, usually ``….featx``.
        {options}

        Raises
        ------
        ModelFileError
            If the head has no data-only form and `unsafe_pickle` is not set, or the file cannot be written.
        """
        return write(self, Path(path), bundle=how.bundle, unsafe_pickle=how.unsafe_pickle)

    def with_report(self, **changes: Any) -> Self:
        """Return the same model with fields of its `FitReport` changed."""
        return dataclasses.replace(self, report=dataclasses.replace(self.report, **changes))

    @contextlib.contextmanager
    def loadable_requests(self) -> Iterator[list[Request]]:
        """Hold what makes the rows of all inputs, a request for each pass over the images; none of own arrays."""
        with loadable_requests(self.inputs, self.network) as requests:
            yield in_one_pass(requests)

    def __repr__(self) -> str:
        """Say what it is in one line."""
        on = f" on {self.made_of}" if self.inputs else ""
        parts = [("val", self.report.val), ("test", self.report.test)]
        if self.outputs is not None:
            told = [
                f"{self.outputs.task}: {', '.join(self.columns[:5])}",
                *(f"{name} {one}" for name, one in parts if one),
            ]
        else:
            scores = [f"{name} {100 * found.value:.2f} %" for name, found in parts if found]
            told = [f"{len(self.classes)} classes", *scores]
        return f"<Model: {', '.join([f'{self.head_name}{on}', *told])}>"

    def _repr_html_(self) -> str:
        """Show what the model is and how it fared in a notebook."""
        from featx.features.export import facts_html

        parts = [("validation", self.report.val), ("test", self.report.test)]
        facts = [
            ("head", self.head_name),
            ("on", self.made_of or "arrays"),
            (
                "classes" if self.outputs is None else self.outputs.task,
                f"{len(self.columns):,}: {', '.join(self.columns[:10])}{', …' * (len(self.columns) > 10)}",
            ),
            ("parameters", f"{self.n_parameters:,}"),
            *((name, str(found)) for name, found in parts if found),
        ]
        return facts_html("Model", facts)

    def say(self, X: NDArray[Any]) -> Floats:
        """Return what the model says of rows (n, …) as they are made: probabilities or numbers, shape (n, k)."""
        return self._said_of(self.scaler.transform(X))

    def familiarity(self, X: NDArray[Any]) -> Floats:
        """Return which share of known rows is as unlike the training rows as those of `X` (n, …); else NaN."""
        return np.full(len(X), np.nan) if self.ood is None else self.ood.familiarity(self.scaler.transform(X))

    def _predict_rows(self, X: NDArray[Any]) -> tuple[Floats, Floats]:
        """Return probabilities (n, k) and familiarity (n,) of rows; NaN for the latter where the model has none."""
        rows = self.scaler.transform(X)
        familiarity = np.full(len(X), np.nan) if self.ood is None else self.ood.familiarity(rows)
        return self._said_of(rows), familiarity

    def _said_of(self, rows: NDArray[Any]) -> Floats:
        """Return what the head says of scaled rows (n, …): calibrated probabilities or numbers, shape (n, k)."""
        if self.outputs is not None:
            return self.outputs.of(self.head, rows)
        found = np.zeros((len(rows), len(self.columns)))  # a class that train did not have is never predicted
        scores = relative_scores(self.head, rows)
        found[:, np.asarray(self.head.classes_, dtype=np.intp)] = self.calibration.probabilities(scores)
        if not np.isfinite(found).all():
            raise DataError(f"The {self.head_name} head gives scores that are no numbers. Fit it again: featx fit")
        return found

    def rows_for(self, table: Features) -> Features:
        """Return `table` with a row for each of what the model predicts: of one of items their images combined.

        Raises
        ------
        DataError
            If the model predicts items and the table does not say which images belong together.
        """
        return table if self.items is None else as_items(table, self.items)

    def _predict_table(self, table: Features, *, tta: bool) -> tuple[Floats, Floats]:
        probabilities, familiarity = self._predict_blocks(table)
        if not tta:
            return probabilities, familiarity
        views = [table.view(number) for number in range(1, table.views)]
        fewest = min(map(len, views), default=0)
        if fewest < len(table):
            raise DataError(
                f"--tta averages over augmented views, and {len(table) - fewest:,} of the table's {len(table):,} rows "
                "have none: they are made of training images. Give it images, whose views are made now."
            )
        return np.mean([probabilities, *(self._predict_blocks(view)[0] for view in views)], axis=0), familiarity

    def _predict_blocks(self, table: Features) -> tuple[Floats, Floats]:
        probabilities, familiarity = np.empty((len(table), len(self.columns))), np.empty(len(table))
        for indices, X in table.blocks(BLOCK_BYTES):
            probabilities[indices], familiarity[indices] = self._predict_rows(X)
        return probabilities, familiarity

    def _predict_images(
        self, source: Any, how: Classify
    ) -> tuple[tuple[str, ...], Floats, Floats, dict[int, str], tuple[tuple[str, ...], ...] | None]:
        """Return ids, probabilities and familiarity (NaN where nothing could be read), reasons, and images of items."""
        from featx.datasets import open_dataset

        self._check_images()
        if how.tta and self.views is None:
            raise OptionError(
                "--tta averages over the views that a model was fitted on, and this one has seen plain images alone. "
                "Leave it out, or fit on views: featx extract DATA --views 4 --augment light, then featx fit"
            )
        beside = {name: value for name in ("items", "slots") if (value := getattr(how, name)) is not None}
        dataset, views = open_dataset(source, **beside), self.views if how.tta else None
        if self.items is not None and dataset.items is None:
            raise DataError(
                "The model predicts items of several images. Say which images are of which: --item-column COLUMN, or "
                "--item-by folder (items=[...] in Python)"
            )
        rows, reasons = self._row_maker.rows(
            dataset, views=views, cache=how.cache, **vars(part_of(ComputeOptions, how))
        )
        ids, members = tuple(dataset.ids), None
        if self.items is not None and dataset.items is not None:
            widths = [made.recipe.shape[0] for made in self.inputs]
            names, combined, parts = combine_images(rows[0], widths, dataset.items, dataset.slots, self.items)
            members = tuple(tuple(ids[i] for i in part) for part in parts)
            reasons = _reasons_of_items(combined, parts, reasons)
            ids, rows = tuple(names.tolist()), [combined]
        n = len(ids)
        probabilities, familiarity = np.full((n, len(self.columns)), np.nan), np.full(n, np.nan)
        good = np.array([i for i in range(n) if i not in reasons], dtype=np.intp)
        if len(good):
            of_views = [self._predict_rows(X[good]) for X in rows]
            probabilities[good] = np.mean([found for found, _ in of_views], axis=0)
            familiarity[good] = of_views[0][1]
        return ids, probabilities, familiarity, reasons, members

    def _check_images(self) -> None:
        if not self.inputs or any(made.request is None for made in self.inputs):
            raise OptionError(
                "This model was fitted on rows without a recipe, so it cannot tell how to make them from images. "
                "Give it rows: Features.from_arrays(X)"
            )

    @cached_property
    def _row_maker(self) -> ImageRows:
        """The networks that make rows from images, loaded when the first of them come."""
        return ImageRows(self.inputs, self.network)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open network behind: a copy in another process opens its own."""
        return {name: value for name, value in self.__dict__.items() if name != "_row_maker"}

    def _matching(self, table: Features) -> Features:
        """Return the columns of `table` that the model takes: it may stand beside others, and in any order."""
        from featx.features import join

        if table.key == self.key:
            return table
        by_key = {part.key: part for part in table.tables}
        if self.inputs and all(made.recipe.key in by_key for made in self.inputs):
            return join([by_key[made.recipe.key] for made in self.inputs])
        requests = [made.request for made in self.inputs if made.request is not None]
        if not requests:
            raise DataError(
                "This model was fitted on rows without a recipe; the table has one. Fit on the table: featx fit TABLE"
            )
        other = ", ".join(map(described, inputs_of(table))) or "no recipe"
        mine, commands = ", ".join(map(described, self.inputs)), map(extract_command, in_one_pass(requests))
        raise DataError(
            f"The table holds features of {other}, the model was fitted on {mine}. "
            f"Make the matching table: {' and '.join(commands)}"
        )


def _reasons_of_items(rows: NDArray[Any], members: list[NDArray[np.intp]], of_images: dict[int, str]) -> dict[int, str]:
    """Return why items have no row: none of their images has."""
    found = {}
    for item in np.flatnonzero(np.isnan(rows).any(axis=1)).tolist():
        known = [of_images[i] for i in members[item].tolist() if i in of_images]
        found[item] = known[0] if known else "none of its images is in a slot that the model knows"
    return found


@keywords(Loading)
def load(path: str | Path, how: Loading) -> Model:
    """Read a model that `Model.save` wrote. Nothing in the file is trusted, imported or executed.

    Parameters
    ----------
    path : path-like
        The file, or ``hf://owner/name[@revision][/file]`` for one on the Hugging Face Hub: fetched once, nothing else
        of the repository with it, and loaded without permissions.
    {options}

    Raises
    ------
    MissingDataError
        If there is no such file, or the Hub cannot be reached.
    ModelFileError
        If it is damaged, was not written by featx, or needs a permission that was not given.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_digits
    >>> from featx import Features, fit
    >>> model = fit(Features.from_arrays(*load_digits(return_X_y=True)), "ridge")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     load(model.save(f"{folder}/digits.featx")).head_name
    'ridge'
    """
    from featx.model.hub import fetch, is_address

    if not is_address(path):
        return read(Model, Path(path), allow_code=how.allow_code, unsafe_pickle=how.unsafe_pickle)
    if how.allow_code or how.unsafe_pickle:
        raise OptionError("A model of the Hub is loaded as data alone: leave out --allow-code and --unsafe-pickle.")
    return read(Model, fetch(path), allow_code=False, unsafe_pickle=False)


def extract_command(request: Request) -> str:
    """Return the command that makes a table for `request`.

    Examples
    --------
    >>> from featx.recipe import Request
    >>> extract_command(Request(backbone="vgg16", layers=("block3_pool",), image_size=32))
    'featx extract DATA --backbone vgg16 --layer block3_pool --image-size 32'
    """
    words = ["featx", "extract", "DATA", "--backbone", request.backbone]
    if len(request.layers) > 1:
        words += ["--layers", ",".join(request.layers)]
    elif request.layers:
        words += ["--layer", *request.layers]
    for f in dataclasses.fields(request):
        value = getattr(request, f.name)
        if f.name not in ("backbone", "layers") and value != f.default:
            option = "backbone-version" if f.name == "version" else f.name.replace("_", "-")
            words += [f"--{option}", str(value)]
    return shlex.join(words)
